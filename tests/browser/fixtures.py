"""One invented story for the web pages: gw1 2.5.0 goes through its rings, one variant is isolated, an earlier release is halted."""

import io
from dataclasses import dataclass
from typing import BinaryIO

from tests.browser import weighed
from tests.browser.commands import Commands
from tests.browser.records import DAY, HOSTILE, NOW
from tests.browser.told import Told

from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.web import views as v
from tidegate.server.web.reader import Account


@dataclass
class FixtureStory(Commands, Told):
    """Reader over a story that commands change."""

    def position(self) -> int:
        """Return what grows with each change."""
        return self.at

    def counts(self, now: int, sight: Sight = SEES_ALL) -> v.Counts:
        """Return the top bar."""
        del sight
        running = (("gw1-2.5.0", "ring fleet, 40 % open"),) if self.state == "active" else ()
        return v.Counts(
            running=running,
            pending=2,
            incidents=1,
            products=("gw1",),
            audit_size=48_112,
            audit_at=now,
        )

    def fleet(self, now: int, sight: Sight = SEES_ALL) -> v.FleetPage:
        """Return the fleet."""
        del sight
        x = tuple(now - (60 - n) * DAY for n in range(61))
        new = tuple(round(max(0.0, n - 52) ** 2 * 0.29, 2) for n in range(61))
        old = tuple(round(max(2.6, 60 - n), 2) for n in range(61))
        mid = tuple(round(100 - a - b, 2) for a, b in zip(new, old, strict=True))
        series = (
            v.Series("2.5.0", "--v0", new),
            v.Series("2.4.1", "--v1", mid),
            v.Series("2.4.0", "--v2", old),
        )
        marks = (
            v.Mark(now - 30 * DAY, "2.4.2 halted", "--bad"),
            v.Mark(now - 8 * DAY, "gw1-2.5.0", "--text-3"),
        )
        return v.FleetPage(
            now=now,
            devices=128_412,
            seen_24h=121_966,
            variants=4,
            chart=v.Chart(
                "stack",
                x,
                series,
                "Now: 2.5.0 18.6 percent, 2.4.1 78.8, 2.4.0 2.6.",
                marks,
                unit="%",
            ),
            versions=(
                v.VersionRow(
                    "2.5.0", "v0", 23_929, 23_929, "rolling out, gw1-2.5.0", "/rollouts/gw1-2.5.0"
                ),
                v.VersionRow("2.4.1", "v1", 98_471, -21_904, "channel stable"),
                v.VersionRow("2.4.0", "v2", 6_008, -1_388, "5,120 wait for a window"),
                v.VersionRow("2.4.2", "bad", 4, -7, "recalled", "/releases/gw1-2.4.2"),
            ),
            inbox=(
                v.InboxRow(
                    "halt",
                    "bad",
                    "modem-31.004 halted by gate",
                    "/rollouts/modem-31.004",
                    "Ring internal: 4 of 14 silent past the deadline. Fall back, resume or cancel.",
                    now - 18_000,
                ),
                v.InboxRow(
                    "iso",
                    "iso",
                    "gw1-r3 isolated in gw1-2.5.0",
                    "/incidents/INC-2026-017",
                    "19 of 33 reverted. No corrective action yet.",
                    now - 5 * DAY,
                ),
                v.InboxRow(
                    "person",
                    "",
                    "Approve: widen gw1-2.5.0 to 100 %",
                    "/rollouts/gw1-2.5.0",
                    "Asked by Ana Ruiz. Lapses in 23 h.",
                    now - 1_680,
                ),
            ),
            rollouts=self._rows(now)[:2],
            rollouts_total=31,
            outcomes=(
                v.OutcomeRow(
                    "confirmed",
                    "Confirmed",
                    15_987,
                    6_148,
                    "ok",
                    (10, 30, 45, 80, 640, 6148, 15987),
                ),
                v.OutcomeRow(
                    "not_activated",
                    "Failed before activation",
                    141,
                    88,
                    "text3",
                    (1, 3, 0, 2, 20, 88, 141),
                ),
                v.OutcomeRow(
                    "reverted", "Reverted by the device", 58, 27, "bad", (0, 4, 0, 19, 2, 27, 58)
                ),
                v.OutcomeRow(
                    "lost", "Lost, silent past the deadline", 9, 3, "lost", (0, 0, 0, 1, 0, 3, 9)
                ),
                v.OutcomeRow("declined", "Declined on site", 0, 4, "text3", (0, 0, 0, 0, 1, 4, 0)),
            ),
            refused=self._reasons()[:3],
            security=(
                v.TimelineRow(
                    now - 9_600,
                    "warn",
                    "warn",
                    "Possible clone. Two boot ids interleave; quarantined.",
                    code="security.clone",
                    href="/devices/gw1-0C41-77",
                ),
                v.TimelineRow(
                    now - DAY,
                    "shield",
                    "",
                    f"14 refused by devices {HOSTILE}",
                    code="download.hash",
                ),
            ),
        )

    def rollouts(self, now: int, cursor: str, sight: Sight = SEES_ALL) -> v.RolloutsPage:
        """Return the list."""
        del sight
        return v.RolloutsPage(now, self._rows(now), 31, "" if cursor else "c2")

    def participants(
        self, name: str, state: str, cursor: str, now: int
    ) -> v.ParticipantsPage | None:
        """Return the devices of a rollout."""
        del cursor
        if name not in {"gw1-2.5.0", "modem-31.004"}:
            return None
        states = ("permitted", "rebooting", "verifying", "reverted", "lost")
        rows = tuple(
            v.ParticipantRow(
                f"gw1-{number:04X}-{HOSTILE}" if number == 3 else f"gw1-{number:04X}-91",
                "gw1-r3", "lyon-2", "fleet", states[number % 5], "boot.counter_exhausted",
                "it did not come up healthy in as many tries as it had, and went back by itself",
                now - 60 * number, now - 30 * number,
            )
            for number in range(1, 12)
        )  # fmt: skip
        choices = (
            ("past", "past the point of no return"),
            ("stragglers", "ordered back and not gone"),
        )
        return v.ParticipantsPage(now, name, state or "past", choices, rows, "12")

    def rollout(self, name: str, account: Account, now: int) -> v.RolloutPage | None:
        """Return one rollout."""
        del account, now
        if name in {"gw1-2.6.0", "config-7"}:
            return self._begins(name)
        if name not in {"gw1-2.5.0", "modem-31.004"}:
            return None
        halted = self.state == "halted" or name == "modem-31.004"
        rings = (
            v.RingRow("internal", "passed", "Tue 15:40", 64, 54, 0, 0, 1, 4, 0, 2, 3, 10_000),
            v.RingRow(
                "pilot", "passed", "Sun 02:40", 1_500, 1_335, 6, 0, 11, 21, 1, 77, 49, 10_000
            ),
            v.RingRow(
                "fleet",
                "open",
                "since Sun 18:04",
                126_848,
                self.confirmed,
                1_536,
                14_870,
                141,
                58,
                9,
                7_636,
                81_386,
                4_000,
                "step 3 of 4: 40 %",
            ),
        )
        now = NOW
        evidence = weighed.stopped(now) if halted else weighed.going(now)
        x = tuple(now - (150 - n) * 3_600 for n in range(151))
        y = tuple(float(max(1, int(24_217 * (n / 150) ** 4))) for n in range(151))
        let_in = tuple(64.0 if n < 20 else 4_200.0 if n < 90 else 48_271.0 for n in range(151))
        return v.RolloutPage(
            now=now,
            name=name,
            title=name.replace("-", " "),
            state="halted" if halted else self.state,
            state_text="Halted by gate" if halted else "Active, ring fleet 40 % open",
            kind="install",
            release="gw1-2.5.0",
            release_counter=119,
            generation=412,
            created_at=now - 6 * DAY,
            created_by="ana.ruiz",
            started_at=now - 6 * DAY,
            asks=()
            if halted
            else (
                v.Ask(
                    "7",
                    "open ring fleet to 100 %",
                    "Reaches 71,527 more devices.",
                    "ana.ruiz",
                    now - 1_680,
                    now + 80_000,
                ),
            ),
            halted=v.Halted(
                now - 18_000,
                "planner",
                "4 of 14 devices did not come back: 28.6 %, limit 5 %",
                "INC-2026-018",
            )
            if halted
            else None,
            weighs=True,
            evidence=evidence,
            facts=(
                v.Fact(
                    "Is it bad?",
                    evidence.odds.text,
                    "against it",
                    f"No. Permits stop at {evidence.odds.stop_text}, halt at 1,000\u00a0:\u00a01.",
                    odds=evidence.odds,
                    tone="bad" if halted else "",
                ),
                v.Fact(
                    "How far is it?",
                    "22,601",
                    "confirmed of 128,412",
                    "17.6 %.",
                    (("ok", 22_601), ("wait", 105_811)),
                ),
                v.Fact(
                    "What limits speed now?",
                    "soak",
                    "ring fleet",
                    "Open for 4 h 10 min of 24 h. Next step today 22:04.",
                ),
                v.Fact(
                    "If it turned bad now",
                    "\u2248 54",
                    "devices lost",
                    "At most, of 24,217 exposed. 14,870 hold it staged, inert.",
                ),
            ),
            rings=rings,
            total=v.RingRow(
                "All", "", "", 128_412, 22_601, 1_542, 14_870, 153, 83, 10, 7_715, 81_438
            ),
            because=self._because(now),
            variants=(
                v.VariantRow("gw1-r1", "active", 541, 530, 2, "health.network"),
                v.VariantRow("gw1-r2", "active", 18_690, 18_402, 47, "health.network"),
                v.VariantRow("gw1-r3", "isolated", 33, 14, 19, "boot.counter_exhausted"),
                v.VariantRow("gw1-r4", "active", 4_986, 4_900, 25, "lost.return"),
            ),
            reasons=self._reasons(),
            log=(
                v.TimelineRow(
                    now - 1_680, "person", "", "Widening to 100 % asked for.", "ana.ruiz"
                ),
                v.TimelineRow(
                    now - 5 * DAY,
                    "iso",
                    "iso",
                    "Variant gw1-r3 isolated: 19 of 33 harmed, 57.6 %, limit 5 %.",
                    "by gate, plan 61",
                ),
            ),
            chart=v.Chart(
                "lines",
                x,
                (
                    v.Series("let in", "--text-3", let_in, "48,271 let in", dash=True, step=True),
                    v.Series("activated", "--v0", y, "24,217 activated", width=2.5),
                ),
                "24,217 activated since 17 November, of 48,271 let in by rings and steps.",
                (v.Mark(now - 5 * DAY, "isolate", "--iso"),),
                log=True,
            ),
            owed=(
                v.OwedRow("gw1-5520-D7", "gw1-r2", "verifying", now - 640),
                v.OwedRow("gw1-71DB-19", "gw1-r4", "rebooting", now - 40),
            ),
            owed_total=1_542,
            terms=(
                v.Pair(
                    "Level", "required: activated as soon as windows, inhibitors and permits allow"
                ),
                v.Pair("Deadlines", "start 7 d, finish 7 d, return 1 h, confirm 1 d"),
                v.Pair("Retry", "3 attempts in all; pause 1 min, doubled up to 1 d"),
            ),
            limits=(f"site {HOSTILE}: 20 of 20 at once are on their way, or did not come back",),
            isolated=("gw1-r3",),
            fallbacks=(v.Target("gw1-2.4.1", 117, "2.4.1"),),
            next_ring="fleet",
            next_step="Ring fleet from 40 % to 100 %: 71,527 more devices.",
        )

    def _begins(self, name: str) -> v.RolloutPage:
        """Return a rollout that has not begun, with an evidence guard, or one under way without."""
        draft = name == "gw1-2.6.0"
        return v.RolloutPage(
            now=NOW,
            name=name,
            title=name.replace("-", " "),
            state="draft" if draft else "active",
            state_text="Draft" if draft else "Active, ring all",
            kind="install",
            release=name,
            release_counter=120,
            generation=0,
            created_at=NOW - DAY,
            created_by="ana.ruiz",
            started_at=0 if draft else NOW - DAY,
            facts=(v.Fact("Is it bad?", "\u2013", "", "Not known: no device has acted on it yet."),)
            * 4,
            rings=(v.RingRow("all", "waiting", "", 64, 0, 0, 0, 0, 0, 0, 0, 64),),
            weighs=draft,
        )

    def devices(self, query: str, cursor: str, now: int, sight: Sight = SEES_ALL) -> v.DevicesPage:
        """Return one page of devices."""
        del cursor, sight
        if query == "((":
            return v.DevicesPage(
                now, query, 128_412, 121_966, 0, problem="Column 3: an attribute is missing."
            )
        rows = (
            v.DeviceRow(
                "gw1-7F3A-91",
                "gw1-r4",
                "Troms\u00f8 3",
                "2.4.1",
                "staged",
                "window opens today 23:00",
                now - 38,
            ),
            v.DeviceRow(
                "gw1-0C41-77",
                "gw1-r1",
                HOSTILE,
                "2.4.1",
                "quarantined",
                "possible clone, two boot ids",
                now - 180,
            ),
            v.DeviceRow(
                "gw1-9E02-4C",
                "gw1-r3",
                "Aarhus 11",
                "2.4.1",
                "isolated",
                "gw1-r3 isolated in gw1-2.5.0",
                now - 240,
            ),
            v.DeviceRow(
                "gw1-" + "X" * 60,
                "gw1-r3",
                "Aarhus 12",
                "2.4.1",
                "reverted",
                "boot.counter_exhausted",
                now - 60,
            ),
            v.DeviceRow(
                "gw1-71D9-E3",
                "gw1-r4",
                "",
                "2.4.1",
                "silent",
                "last word: rebooting",
                now - 111_600,
            ),
        )
        return v.DevicesPage(
            now,
            query,
            128_412,
            121_966,
            128_412,
            rows=rows,
            next_cursor="c2",
            chips=(
                v.Chip("All", "", 128_412, current=True),
                v.Chip("Quarantined", "state:quarantined", 1),
            ),
            pending=(
                v.PendingRow(
                    "gw1-4410-1B", "gw1", "gw1-r5", "4471-22-0917", now - 7_200, "7f3a" * 16
                ),
            ),
            pending_total=2,
            groups=(
                v.GroupRow("internal", "", 64),
                v.GroupRow("nordics", "region:eu-north", 21_880),
            ),
            variants=(("gw1-r2", 71_268), ("gw1-r4", 41_292), ("gw1-r1", 8_118), ("gw1-r3", 7_734)),
        )

    def device(self, device_id: str, now: int) -> v.DevicePage | None:
        """Return one device."""
        del now
        if device_id == "nobody":
            return None
        now = NOW
        return v.DevicePage(
            now=now,
            id=device_id,
            product="gw1",
            variant="gw1-r4",
            serial="4471-22-0917",
            site=self.site,
            state="staged",
            state_text="Staged, waiting for its window",
            enrolment="accepted",
            seen_at=now - 38,
            question="Why is this device not on 2.5.0 yet?",
            verdict="2.5.0 is on the device and verified. It may activate from 23:00 today, and will then ask for a permit.",
            rollout="gw1-2.5.0",
            checks=(
                v.WhyRow("passed", "Enrolled, key in good standing", "since 2 Mar 2025"),
                v.WhyRow("passed", "In ring fleet", "position 23.4 %, open to 40 %"),
                v.WhyRow("passed", "Hardware fits: gw1 rev 4", "variant not isolated"),
                v.WhyRow("passed", "Downloaded and verified", "today 10:42"),
                v.WhyRow("stopped", "Activation window 23:00 to 02:00", "opens in 8 h 40 min"),
                v.WhyRow("next", "Permit from the gates"),
                v.WhyRow("next", "Reboot, health contract, warm-up of 30 min"),
            ),
            timeline=(
                v.TimelineGroup(
                    "2.4.1 \u2192 2.5.0",
                    (
                        v.TimelineRow(
                            now - 13_000, "down", "ok", "Staged in slot B. 6.1 MB, resumed twice."
                        ),
                        v.TimelineRow(now - 70_000, "wait", "", "Offered."),
                    ),
                    "gw1-2.5.0",
                    "/rollouts/gw1-2.5.0",
                ),
                v.TimelineGroup(
                    "2.4.0 \u2192 2.4.1, first try reverted",
                    (
                        v.TimelineRow(
                            now - 80 * DAY,
                            "revert",
                            "bad",
                            "Reverted to 2.4.0:",
                            code="health.network",
                            detail=HOSTILE,
                        ),
                    ),
                ),
            ),
            updates_total=5,
            slots=(
                v.Slot("A", "running", "2.4.1", 117, "9c1e" * 16, "confirmed"),
                v.Slot("B", "staged", "2.5.0", 119, "51d7" * 16, "inert until a permit"),
            ),
            bootloader="U-Boot, redundant environment",
            contract=(
                v.CheckRow("Boot completed", "within 120 s, 3 tries", "passed"),
                v.CheckRow("Network", "held for 10 min", "passed"),
                v.CheckRow("Errors", "\u2264 0.5 an hour over 30 min", "passed"),
            ),
            contract_of="2.4.1",
            identity=(
                v.Pair("Variant", "gw1 rev 4", "model and revision"),
                v.Pair("Device key", "7f3a\u20260c91", "Ed25519", mono=True),
                v.Pair("Security floor", "5"),
                v.Pair("Agent", "tidegate-agent 0.1.0"),
            ),
            groups=("nordics", "lte"),
            failed_boot=f"01:31:11 health.network: no default route\n{HOSTILE}",
            failed_boot_at=now - 80 * DAY,
        )

    def take_advisories(self, body: bytes, account: Account, now: int) -> str:
        """Note that a file came."""
        self.said.append(("advisories", str(len(body)), account.name, ""))
        return "Took in a file."


def small_bundle() -> BinaryIO:
    """Return bytes that the fixture takes for a bundle."""
    return io.BytesIO(b"TGB" + bytes(range(256)))
