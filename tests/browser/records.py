"""The part of the invented story that no command changes but by its state: releases, incidents, what devices run, and the rows that several pages share."""

from dataclasses import dataclass, replace

import msgspec

from tidegate.core.audit.entry import AuditRow
from tidegate.rollout.incident.blocks import Table, Words
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.advisories import AdvisoryFacts, FindingFacts
from tidegate.server.audit import Signed, Verdict
from tidegate.server.components import DeviceFacts, PartFacts
from tidegate.server.components import GroupFacts as ComponentGroup
from tidegate.server.web import views as v
from tidegate.server.web.reader import Account

NOW = 1_795_443_600  # Mon 23 Nov 2026 14:20 UTC
DAY = 86_400
#: A reason with a word that does not break, in a panel that is narrow.
_LONG = "gw1-r1: 4 of 8 attempts ended badly (50 %); most often boot.counter_exhausted (4)"
HOSTILE = "<script>alert(1)</script>\u202e\u0007"


@dataclass
class Records:
    """Releases, incidents, components and advisories."""

    state: str = "active"
    confirmed: int = 21_212

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
                odds=v.Odds(2.1, 1_000, 60),
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
                "1,060 : 1 that the release is worse than allowed (silence); halts at 1,000 : 1",
                now - 18_000,
                odds=v.Odds(1_060, 1_000, 60),
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

    def _at_the_stop(self) -> tuple[v.NeedleRow, ...]:
        said = "that the release is worse than allowed (silence); halts at 1,000 : 1"
        part = f"that modem={HOSTILE}{'x' * 60}, region=eu is worse than allowed (dark)"
        return (
            v.NeedleRow(f"3,580 : 1 {said}", v.Odds(3_580, 1_000)),
            v.NeedleRow(f"210.0 : 1 {part}", v.Odds(210, 1_000)),
            v.NeedleRow(
                "1.0 : 1 that variant=gw1-r2 is worse than allowed (failure)", v.Odds(1.0, 1_000)
            ),
        )

    def releases(self, now: int, sight: Sight = SEES_ALL) -> v.ReleasesPage:
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
            rollouts=(
                replace(
                    self._rows(now)[0], state="halted", state_text="Halted by gate", because=_LONG
                ),
            ),
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

    def incidents(self, now: int, sight: Sight = SEES_ALL) -> v.IncidentsPage:
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
            parts={
                "What became of whom": (
                    Table(
                        ("devices", "1,832 devices acted on it"),
                        (("1,791", "were ordered back, and are healthy"), ("11", "were lost")),
                        frozenset({0}),
                    ),
                ),
                "Variants": (
                    Table(
                        ("variant", "devices now", "attempts", "confirmed", "lost"),
                        (
                            ("gw1-r3 (isolated)", "9,004", "118", "79", "39"),
                            ("gw1-r2", "119,186", "1,714", "1,712", "2"),
                        ),
                        frozenset(range(1, 5)),
                    ),
                ),
                "Cause": (Words("Supposed, not proved: " + HOSTILE),),
            },
            facts=(
                v.Fact("Exposed", "1,832", "1.4 % of fleet"),
                v.Fact("Ended badly", "41", "reverted or lost", tone="bad"),
                v.Fact("Time to halt", "1 h 15 min", "", "From the first sign."),
                v.Fact("Past the point of no return", "0"),
            ),
            reasons=self._reasons(),
            because=self._because(now),
            evidence=self._at_the_stop(),
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
            devices=(
                v.DeviceList(
                    "Ended badly",
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

    def components(
        self, name: str, below: str, cursor: str, now: int, sight: Sight = SEES_ALL
    ) -> v.ComponentsPage:
        """Return the devices that run an old openssl."""
        del sight
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

    def advisories(self, cursor: str, now: int, sight: Sight = SEES_ALL) -> v.AdvisoriesPage:
        """Return two advisories."""
        del sight
        listed = tuple(self._advisory(now, number) for number in (1, 2))
        return v.AdvisoriesPage(now, listed, 61, 23_929, 1, next_cursor="2")

    def audit(
        self,
        actor: str,
        action: str,
        thing: str,
        cursor: str,
        account: Account,
        now: int,
        *,
        check: bool,
    ) -> v.AuditPage:
        """Return a log of three acts, one of them by somebody hostile."""
        del account
        rows = tuple(
            AuditRow(
                seq=48_115 - number, at=now - 900 * number, actor=who, action=act, object=what,
                detail={"reason": why}, request="5f1e6c0d9a3b7788", ip="2001:db8::17", hash="0" * 64,
            )
            for number, (who, act, what, why) in enumerate(
                (
                    ("ana.ruiz", "rollout.halt", "gw1-2.5.0", "two sites report restarts"),
                    ("tidegate", "audit.fork", "gw1-7F3A-91", "it holds a signed head that is not of this log"),
                    (HOSTILE, "group.edit", HOSTILE, HOSTILE),
                )
            )
        )  # fmt: skip
        note = f"tidegate/audit/default\n48112\n{'A' * 43}=\n\n\u2014 tidegate/audit/default {'A' * 91}=\n"
        signed = Signed(size=48_112, root="ab" * 32, at=now - 60, note=note)
        verdict = Verdict(ok=False, rows=17_092, head="0" * 64, broken_at=17_093)
        return v.AuditPage(
            now, rows, actor, action, thing, 48_115, signed, verdict if check else None, "48112"
        )

    def advisory(self, number: int, now: int, sight: Sight = SEES_ALL) -> v.AdvisoryPage | None:
        """Return an advisory with a finding that stands and one that is silenced."""
        del sight
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
