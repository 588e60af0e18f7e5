"""One invented story for the web pages: gw1 2.5.0 goes through its rings, one variant is isolated, an earlier release is halted."""

import io
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server.advisories import AdvisoryFacts, FindingFacts
from tidegate.server.components import DeviceFacts, PartFacts
from tidegate.server.components import GroupFacts as ComponentGroup
from tidegate.server.web import views as v
from tidegate.server.web.reader import Account

NOW = 1_795_443_600  # Mon 23 Nov 2026 14:20 UTC
DAY = 86_400
ALL = frozenset(
    {
        "rollout.halt",
        "rollout.widen",
        "rollout.approve",
        "rollout.fallback",
        "device.manage",
        "release.publish",
        "release.recall",
        "incident.write",
    }
)
HOSTILE = "<script>alert(1)</script>\u202e\u0007"
PASSWORD = "correct-horse"


@dataclass
class FixtureAuth:
    """Two accounts that live in memory; a session token is `session-NAME`."""

    sessions: set[str] = field(default_factory=set)

    def account(self, session: str, now: int) -> Account | None:
        """Return the account of a session that was opened."""
        del now
        if session not in self.sessions:
            return None
        name = session.removeprefix("session-")
        return Account(
            name,
            "viewer" if name == "guest" else "approver",
            frozenset() if name == "guest" else ALL,
        )

    def sign_in(self, name: str, password: str, address: str, now: int) -> str | None:
        """Open a session."""
        del address, now
        if password != PASSWORD:
            return None
        self.sessions.add(f"session-{name}")
        return f"session-{name}"

    def redeem(self, ticket: str, now: int) -> str | None:
        """Open a session for the one good ticket, once."""
        if ticket != "good" or "session-jonas.weber" in self.sessions:
            return None
        return self.sign_in("jonas.weber", PASSWORD, "", now)

    def sign_out(self, session: str, now: int) -> None:
        """Close a session."""
        del now
        self.sessions.discard(session)


@dataclass
class FixtureStory:
    """Reader and commands over a story that commands change."""

    state: str = "active"
    at: int = 100
    site: str = "Bod\u00f8 harbour"
    said: list[tuple[str, ...]] = field(default_factory=list)
    published: bytes = b""
    confirmed: int = 21_212

    # -- commands

    def tell_rollout(
        self, verb: str, name: str, account: Account, reason: str, fields: dict[str, str], now: int
    ) -> str:
        """Take note; a halt halts."""
        del now
        self.said.append((verb, name, account.name, reason, str(fields)))
        if verb == "halt":
            self.state = "halted"
        if verb == "cancel":
            raise RequestError("request.conflict", "It is halted; nothing is left to cancel.")
        self.at += 1
        return f"{verb.capitalize()}: effective now."

    def decide(
        self, request_id: str, account: Account, *, approve: bool, reason: str, now: int
    ) -> str:
        """Take note."""
        del now
        self.said.append(("approve" if approve else "decline", request_id, account.name, reason))
        return "Decided."

    def tell_device(
        self, verb: str, device_id: str, account: Account, reason: str, now: int
    ) -> str:
        """Take note."""
        del reason, now
        self.said.append((verb, device_id, account.name))
        return "Done."

    def recall(self, release: str, account: Account, reason: str, now: int) -> str:
        """Take note."""
        del now
        self.said.append(("recall", release, account.name, reason))
        return "Recalled."

    def open_incident(self, account: Account, fields: dict[str, str], now: int) -> tuple[str, str]:
        """Take note."""
        del now
        self.said.append(("open", fields.get("summary", ""), account.name))
        return "INC-2026-019", "INC-2026-019 is open."

    def tell_incident(
        self, verb: str, name: str, account: Account, fields: dict[str, str], now: int
    ) -> str:
        """Take note."""
        del now
        told = tuple(value for key, value in sorted(fields.items()) if key != "csrf")
        self.said.append((verb, name, account.name, *told))
        return "Written down."

    def publish(self, bundle: BinaryIO, account: Account, now: int) -> tuple[str, str]:
        """Keep the bytes; refuse what does not begin like a bundle."""
        del account, now
        self.published = bundle.read()
        if not self.published.startswith(b"TGB"):
            raise RequestError("release.malformed", "This is not a bundle.")
        return "gw1-2.5.0", "Published gw1-2.5.0."

    # -- pages

    def position(self) -> int:
        """Return what grows with each change."""
        return self.at

    def counts(self, now: int) -> v.Counts:
        """Return the top bar."""
        del now
        running = (("gw1-2.5.0", "ring fleet, 40 % open"),) if self.state == "active" else ()
        return v.Counts(running=running, pending=2, incidents=1, products=("gw1",))

    def fleet(self, now: int) -> v.FleetPage:
        """Return the fleet."""
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

    def _rows(self, now: int) -> tuple[v.RolloutRow, ...]:
        shares: v.Shares = (
            ("ok", 22_601),
            ("go", 1_542),
            ("go2", 14_870),
            ("wait", 81_438),
            ("iso", 7_715),
            ("bad", 236),
            ("lost", 10),
        )
        return (
            v.RolloutRow(
                "gw1-2.5.0",
                "gw1 2.5.0",
                "ring fleet, 40 % open",
                self.state,
                shares,
                128_412,
                22_601,
                153,
                83,
                10,
                "soak: 2,417 devices past 96 h, none dark",
                now - 6 * DAY,
            ),
            v.RolloutRow(
                "modem-31.004",
                "modem 31.004",
                "ring internal",
                "halted",
                (("ok", 10), ("wait", 50), ("lost", 4)),
                64,
                10,
                0,
                0,
                4,
                "failure_rate: 4 of 14 lost, 28.6 % of 5 % allowed",
                now - 18_000,
            ),
            v.RolloutRow(
                "gw1-2.4.1",
                "gw1 2.4.1",
                "all rings",
                "completed",
                (("ok", 120_000), ("wait", 6_000)),
                126_000,
                120_000,
                12,
                44,
                2,
                "",
                now - 40 * DAY,
                active=False,
            ),
        )

    def rollouts(self, now: int, cursor: str) -> v.RolloutsPage:
        """Return the list."""
        return v.RolloutsPage(now, self._rows(now), 31, "" if cursor else "c2")

    def _reasons(self) -> tuple[v.ReasonRow, ...]:
        return (
            v.ReasonRow("download.timeout", "no answer in time", "failed", 88, harm=False),
            v.ReasonRow("health.network", "the network did not come up", "reverted", 31),
            v.ReasonRow(
                "boot.counter_exhausted", "the boot loader used up its tries", "reverted", 26
            ),
            v.ReasonRow("lost.return", "activated, and never heard again", "lost", 10),
        )

    def _because(self, now: int) -> tuple[v.BecauseRow, ...]:
        return (
            v.BecauseRow(
                "failure_rate",
                True,
                "93 of 24,217 attempts ended badly, 0.4 %; the limit is 5 %",
                observed=0.4,
                limit=5,
                sample=24_217,
            ),
            v.BecauseRow(
                "soak",
                False,
                "open for 4 h 10 min of 24 h",
                ring="fleet",
                observed=15_000,
                limit=86_400,
                opens_at=now + 71_400,
                fails_above=False,
            ),
            v.BecauseRow(
                "minimum_sample",
                True,
                "21,212 of 100 confirmed",
                ring="fleet",
                observed=21_212,
                limit=100,
                fails_above=False,
            ),
            v.BecauseRow(
                "metric",
                False,
                "4.1 errors an hour against 1.0: 4.1 times the devices not updated, 2 times allowed",
                variant="gw1-r4",
                observed=4.1,
                limit=2,
            ),
        )

    def rollout(self, name: str, account: Account, now: int) -> v.RolloutPage | None:
        """Return one rollout."""
        del account, now
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
        x = tuple(now - (150 - n) * 3_600 for n in range(151))
        y = tuple(float(max(1, int(24_217 * (n / 150) ** 4))) for n in range(151))
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
            facts=(
                v.Fact(
                    "Is it bad?",
                    "0.4 %",
                    "harmed of 24,217",
                    "No. It halts above 5 %.",
                    (("bad", 93), ("wait", 24_124)),
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
                    "1,542",
                    "devices exposed, outcome open",
                    "14,870 more hold it staged; they stay inert without a permit.",
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
                (v.Series("activated", "--v0", y, "24,217 activated", width=2.5),),
                "24,217 devices activated since 17 November.",
                log=True,
            ),
            owed=(
                v.OwedRow("gw1-5520-D7", "gw1-r2", "verifying", now - 640),
                v.OwedRow("gw1-71DB-19", "gw1-r4", "rebooting", now - 40),
            ),
            owed_total=1_542,
            isolated=("gw1-r3",),
            fallbacks=(v.Target("gw1-2.4.1", 117, "2.4.1"),),
            next_ring="fleet",
            next_step="Ring fleet from 40 % to 100 %: 71,527 more devices.",
        )

    def devices(self, query: str, cursor: str, now: int) -> v.DevicesPage:
        """Return one page of devices."""
        del cursor
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

    def releases(self, now: int) -> v.ReleasesPage:
        """Return the releases."""
        return v.ReleasesPage(
            now,
            (
                v.ReleaseRow(
                    "gw1-2.5.0",
                    "gw1",
                    "2.5.0",
                    119,
                    ("stable", "beta"),
                    "live",
                    23_929,
                    now - 7 * DAY,
                    "ana.ruiz",
                ),
                v.ReleaseRow(
                    "gw1-2.4.2",
                    "gw1",
                    "2.4.2",
                    118,
                    ("stable",),
                    "recalled",
                    4,
                    now - 42 * DAY,
                    "ana.ruiz",
                ),
            ),
            2,
            5,
        )

    def release(self, name: str, now: int) -> v.ReleasePage | None:
        """Return one release."""
        if name not in {"gw1-2.5.0", "gw1-2.4.2"}:
            return None
        page = v.ReleasePage(
            now,
            name,
            name.replace("-", " "),
            "gw1",
            "2.5.0",
            119,
            6,
            "live",
            ("stable",),
            now - 7 * DAY,
            "ana.ruiz",
            devices=23_929,
            fleet=128_412,
            known=(
                v.TimelineRow(
                    now,
                    "iso",
                    "iso",
                    "Known issue: gw1-r3 is isolated in gw1-2.5.0",
                    detail="19 of 33 reverted.",
                    code="INC-2026-017",
                    href="/incidents/INC-2026-017",
                ),
            ),
            runs=(
                v.RunsRow("gw1-r2", "yes", 18_402, 71_268, 41, 6),
                v.RunsRow("gw1-r3", "isolated", 0, 7_734, 19, 0),
            ),
            artifacts=(
                v.ArtifactRow("rootfs", "gw1 rev 1 to 2", "full image", 84_200_000, "51d7" * 16),
                v.ArtifactRow("rootfs", "gw1 rev 3 to 4", "full image", 84_900_000, "a90c" * 16),
            ),
            compatible=(
                v.Pair("Hardware", "gw1, rev 1 to 4"),
                v.Pair("From", "counter 112 or later"),
                v.Pair("May go back to", "2.4.1, counter 117", "until 16 Dec 2026"),
            ),
            contract=(
                v.CheckRow("Boot", "within 120 s, 3 tries"),
                v.CheckRow("Services", "mqtt-bridge, meterd"),
            ),
            signers=(
                v.SignerRow("rita", "ab" * 32, "product/gw1"),
                v.SignerRow("petra", "cd" * 32, "product/gw1"),
            ),
            rollouts=self._rows(now)[:1],
            attachments=(
                v.AttachmentRow(
                    "rootfs",
                    "sbom",
                    "bom.cdx.json",
                    "cyclonedx-1.6",
                    412_000,
                    "ab" * 32,
                    "412 parts",
                ),
                v.AttachmentRow(
                    "rootfs", "provenance", "a" * 90 + ".json", "slsa-1", 9_000, "cd" * 32, HOSTILE
                ),
            ),
            advisories=(self._advisory(now, 1), self._advisory(now, 2)),
        )
        return (
            page
            if name == "gw1-2.5.0"
            else replace(page, state="recalled", recalled_at=now - DAY, recall_reason="went dark")
        )

    def incidents(self, now: int) -> v.IncidentsPage:
        """Return the incidents."""
        return v.IncidentsPage(
            now,
            (
                v.IncidentRow(
                    "INC-2026-018",
                    "4 of 14 devices did not come back",
                    "halt",
                    "open",
                    "modem-31.004",
                    now - 18_000,
                    "planner",
                ),
                v.IncidentRow(
                    "INC-2026-014",
                    "2.4.2 went dark",
                    "fallback",
                    "closed",
                    "gw1-2.4.2",
                    now - 40 * DAY,
                    "mei.okafor",
                    now - 39 * DAY,
                    4,
                ),
            ),
            2,
        )

    def incident(self, name: str, now: int) -> v.IncidentPage | None:
        """Return one report."""
        if not name.startswith("INC-"):
            return None
        return v.IncidentPage(
            now,
            name,
            "Release 2.4.2 halted: 41 of 1,832 devices went dark",
            "halt",
            "open",
            now - 18_000,
            "planner",
            "gw1-2.4.2",
            "gw1-2.4.2",
            "2.4.2 reached 1,832 of 128,190 devices before it halted itself. 41 went dark, 30 returned by themselves.\n\nAll others are back on 2.4.1.",
            cohort=(("ok", 1_791), ("go", 30), ("lost", 11)),
            cohort_rows=(
                v.Pair("Ordered back, healthy", "1,791", "no download"),
                v.Pair("Lost", "11", "past the deadline"),
            ),
            facts=(
                v.Fact("Exposed", "1,832", "1.4 % of fleet"),
                v.Fact("Harmed", "41", "reverted or lost", tone="bad"),
                v.Fact("Time to halt", "1 h 15 min", "", "From the first sign."),
                v.Fact("Past the point of no return", "0"),
            ),
            reasons=self._reasons(),
            because=self._because(now),
            variants=(
                v.VariantRow("gw1-r3", "isolated", 118, 79, 39),
                v.VariantRow("gw1-r2", "active", 1_714, 1_712, 2),
            ),
            timeline=(
                v.TimelineRow(
                    now - 90_000, "go", "", "gw1-2.4.2 starts, ring internal.", "ana.ruiz"
                ),
                v.TimelineRow(
                    now - 18_000,
                    "halt",
                    "bad",
                    "Halt: 26 of 1,832 dark.",
                    "by gate, plan 244",
                    detail="26 of 1,832 permits were never heard again: 3,580 : 1",
                ),
                v.TimelineRow(now - 8_000, "person", "", HOSTILE, "mei.okafor"),
            ),
            severity="critical",
            owner="mei.okafor",
            mitigated_at=now - 7_000,
            contrast=(
                v.ContrastRow(
                    "variant = gw1-r3", 39, 118, 2, 1_714, "1,000,000,000 : 1", "modem = EG25-G"
                ),
                v.ContrastRow(
                    f"site = {HOSTILE}{'long' * 40} and region = north", 9, 12, 32, 1_820, "412 : 1"
                ),
            ),
            contrast_note="1,832 devices with a known outcome; corrected for 23 looks",
            moves=(v.Pair("2.4.1 to 2.4.2", "1,832 devices", "41 harmed"),),
            devices=(
                v.DeviceList(
                    "Affected",
                    "affected",
                    41,
                    (
                        v.CohortRow(
                            "gw1-7F3A-91-with-a-very-long-serial-number-in-it-0123456789",
                            "gw1-r3",
                            "pilot",
                            "lost",
                            "lost.return",
                            now - 20_000,
                        ),
                        v.CohortRow(
                            "gw1-7F3A-92", "gw1-r3", "pilot", "reverted", "health.network", now
                        ),
                    ),
                ),
            ),
            logs=(
                v.LogRow(
                    "gw1-7F3A-92",
                    "gw1-r3: health.network",
                    now - 19_000,
                    (
                        "check: network: no route",
                        f"[    4.1] modem: {HOSTILE}",
                        "[    4.2] " + "x" * 380,
                    ),
                ),
            ),
            hypothesis=v.TimelineRow(
                now - 9_500, "person", "", "The modem needs two minutes to register.", "ana.ruiz"
            ),
            followups=(
                v.FollowUpRow(1, "Ask the vendor for a firmware", "ana.ruiz", now - DAY, late=True),
                v.FollowUpRow(2, "Modem in the lab", "mei.okafor", now, done_at=now - 60),
            ),
            publication=v.PublicationView(
                True,
                now - 6_000,
                "Update stopped: gw1-2.4.2",
                "Some gateways lost their connection.",
                "About 40 devices.",
                "",
                (v.TimelineRow(now - 5_000, "person", "", "All are back."),),
            ),
            actions=(
                v.TimelineRow(
                    now - 9_000, "ok", "ok", "2.5.0 waits 120 s for registration", "ana.ruiz"
                ),
            ),
            missing=("The cause is not known yet.",),
            related=(v.Pair("Fallback", "gw1-2.4.2-back", href="/rollouts/gw1-2.4.2-back"),),
        )

    # --- what releases are made of ---

    def components(self, name: str, below: str, cursor: str, now: int) -> v.ComponentsPage:
        """Return the devices that run an old openssl."""
        if not name:
            return v.ComponentsPage(now)
        if name.startswith("pkg:%"):
            return v.ComponentsPage(now, name, below, problem="name: not a package URL")
        version = "3.0.16-1~deb12u1+very.long.local.version.20261101T080000Z"
        return v.ComponentsPage(
            now,
            name,
            below,
            devices=23_929,
            unknown=12,
            parts=(
                PartFacts(
                    name=HOSTILE, version=version, purl="pkg:deb/debian/openssl", type="deb",
                    release="gw1-2.5.0", component="rootfs", devices=23_929, sure=True,
                ),
                PartFacts(
                    name="openssl", version="", purl="", type="", release="gw1-2.4.2",
                    component="rootfs", devices=0, sure=False,
                ),
            ),
            parts_in_all=61,
            groups=(
                ComponentGroup(
                    variant="gw1-r2", ring="pilot", devices=402, first_at=now - DAY, last_at=now
                ),
                ComponentGroup(variant="gw1-r3", ring="", devices=1, first_at=0, last_at=0),
            ),
            rows=(
                DeviceFacts(
                    id="gw1-7F3A-91", product="gw1", variant="gw1-r2", site="north", ring="pilot",
                    release="gw1-2.5.0", part="openssl", version=version, since=now - DAY,
                    last_seen=now,
                ),
                DeviceFacts(
                    id=HOSTILE, product="gw1", variant="gw1-r3", site="", ring="",
                    release="gw1-2.4.2", part="openssl", version="", since=0, last_seen=0,
                ),
            ),
            near=("libssl3", HOSTILE),
            next_cursor="50",
        )  # fmt: skip

    def _advisory(self, now: int, number: int) -> AdvisoryFacts:
        return AdvisoryFacts(
            number=number, id="CVE-2025-9230" if number == 1 else HOSTILE, format="osv",
            aliases=("GHSA-xxxx-yyyy-zzzz", HOSTILE), severity="high" if number == 1 else "",
            title=f"Out-of-bounds read and write in RFC 3211 KEK unwrap {HOSTILE}",
            url="https://security.example/" + "a" * 120, published_at=now - 9 * DAY,
            modified_at=now, imported_at=now - DAY, imported_by="ana.ruiz", withdrawn=False,
            devices=23_929 if number == 1 else 0, findings=3, silenced=1,
            releases=("gw1-2.5.0", "gw1-2.4.2", "gw1-2.4.1", "gw1-2.4.0"),
        )  # fmt: skip

    def advisories(self, cursor: str, now: int) -> v.AdvisoriesPage:
        """Return two advisories."""
        listed = tuple(self._advisory(now, number) for number in (1, 2))
        return v.AdvisoriesPage(now, listed, 61, 23_929, 1, next_cursor="2")

    def advisory(self, number: int, now: int) -> v.AdvisoryPage | None:
        """Return an advisory with a finding that stands and one that is silenced."""
        if number not in {1, 2}:
            return None
        loud = FindingFacts(
            advisory="CVE-2025-9230", release="gw1-2.5.0", component="rootfs", part=HOSTILE,
            version="3.0.16-1~deb12u1", purl="", status="affected", justification="", note="",
            devices=23_929,
        )  # fmt: skip
        silent = msgspec.structs.replace(
            loud, status="not_affected", justification="vulnerable_code_not_in_execute_path",
            note=HOSTILE,
        )  # fmt: skip
        return v.AdvisoryPage(now, self._advisory(now, number), (loud, silent), 2)

    def take_advisories(self, body: bytes, account: Account, now: int) -> str:
        """Note that a file came."""
        self.said.append(("advisories", str(len(body)), account.name, ""))
        return "Took in a file."


def small_bundle() -> BinaryIO:
    """Return bytes that the fixture takes for a bundle."""
    return io.BytesIO(b"TGB" + bytes(range(256)))
