"""The evidence of the invented story: a rollout that goes well but for one part, one that was halted in a small fleet, and one whose fleet is a handful."""

from tests.browser.records import HOSTILE

from tidegate.rollout.lint import Conflict, Lint
from tidegate.server.reach import Reach, RingReach, Skipped
from tidegate.server.web import views as v

HALTS_AT = 1_000
PERMITS_END_PCT = 60


def odds(value: float) -> v.Odds:
    """Return odds on the meter of the story."""
    return v.Odds(value, HALTS_AT, PERMITS_END_PCT)


_STREAMS = (
    ("Activation failures", 0.2, "64 of 24,217; 2.22 % to 4.1 % allowed"),
    ("Silent at deadline", 1.3, "10 of 24,217; 1.25 % allowed"),
    ("Late crash", 0.4, "against devices not updated"),
    ("Going dark", 2.8, "against devices not updated"),
    ("Late crash rate", 0.9, "against the fleet's own"),
    ("Going dark rate", 1.1, "against the fleet's own"),
    ("Errors, 12 h", 1.1, "against devices not updated"),
)
_LONG = f"attr.modem=EG25-G-{'x' * 40}, region={HOSTILE}"


def going(now: int) -> v.EvidenceView:
    """Return the evidence of a rollout under way: the release is well, one part of it is amber."""
    needles = (
        v.NeedleRow("gw1-r4", odds(6.2), "by going dark"),
        v.NeedleRow(_LONG, odds(5.1), "by silent at deadline"),
        v.NeedleRow("The release", odds(1.4), "by silent at deadline"),
        v.NeedleRow("region=eu", odds(0.3), "by activation failures"),
    )
    return v.EvidenceView(
        odds=odds(2.1),
        verdict="go",
        at=now - 120,
        groups=(
            v.NeedleGroup("Strongest, each at its weight: all halt at the same mark", needles),
            v.NeedleGroup(
                "The whole fleet, stream by stream, before weights",
                tuple(v.NeedleRow(name, odds(value), note) for name, value, note in _STREAMS),
            ),
        ),
        proof=(
            v.ProofRow("24 h", 9_312, 0, 0.0021, 0.015, "open"),
            v.ProofRow("96 h", 2_417, 1, 0.0034, 0.02, "open"),
            v.ProofRow("168 h", 0, 0, 1.0, 0.02, "soaking", "24,140 on their way there"),
        ),
        limits=(
            v.LimitRow("Devices that ask", 3_960, 0.78, "hold it staged"),
            v.LimitRow("Permits of all variants", 9_300, 0.86, "amber leaves 56 %"),
            v.LimitRow("Outcomes of the first hours", 11_300, 0.88),
            v.LimitRow("Ring fleet, open to 40%", 29_113, 1.0, "not served yet"),
        ),
        limit_text="outcomes of the first hour",
        permits=(
            v.PermitRow("gw1-r1", 612),
            v.PermitRow("gw1-r2", 5_377),
            v.PermitRow("gw1-r4", 3_311, odds(6.2)),
            v.PermitRow("gw1-r3", 0, because="kept out", isolated=True),
            v.PermitRow(
                _LONG,
                0,
                odds(5.1),
                "the odds against it are 5 : 1; few permits an hour until they fall",
                capped=True,
            ),
        ),
        room=9_300,
        at_worst=54,
        exposed=24_217,
        failures=(
            v.NormalRow("gw1-r1", 0.0122, 0.0222),
            v.NormalRow("gw1-r2", 0.031, 0.041),
            v.NormalRow("all others", 0.0118, 0.0218),
        ),
        silences=(v.NormalRow("every device", 0.01, 0.0125),),
        gaps=("In 128,412 devices fewer than 2.3 % failures would pass unseen.",),
        rests_on="96,204 facts weighed in 38 parts of the fleet",
        watch="14 d",
        held_back="1%",
        held_until=now + 600_000,
    )


def stopped(now: int) -> v.EvidenceView:
    """Return the evidence that halted a rollout in a fleet of 64, of which nothing was known before."""
    return v.EvidenceView(
        odds=odds(1_060),
        verdict="halt",
        at=now - 18_000,
        groups=(
            v.NeedleGroup(
                "Strongest, each at its weight: all halt at the same mark",
                (
                    v.NeedleRow("The release", odds(1_041), "by silent at deadline"),
                    v.NeedleRow("region=eu", odds(14), "by silent at deadline"),
                ),
            ),
            v.NeedleGroup(
                "The whole fleet, stream by stream, before weights",
                (
                    v.NeedleRow("Activation failures", odds(0.7), "0 of 14; 3 % allowed"),
                    v.NeedleRow("Silent at deadline", odds(1e9), "4 of 14; 1.25 % allowed"),
                ),
            ),
        ),
        proof=(v.ProofRow("24 h", 0, 0, 1.0, 0.015, "waiting"),),
        permits=(v.PermitRow("gw1-r1", 0, because="the evidence is against the release"),),
        exposed=14,
        failures=(v.NormalRow("every device", 0.02, 0.03),),
        silences=(v.NormalRow("every device", 0.01, 0.0125),),
        assumed=True,
        gaps=(
            "64 devices: too few for any odds to stop it before everybody has it, even if every one of them failed. A person decides.",
        ),
        rests_on="31 facts weighed in 6 parts of the fleet",
        watch="14 d",
    )


def reach(release: str) -> Reach:
    """Return whom a rollout would reach, with something of every kind that speaks against it."""
    counts = {"gw1-r1": (4, 61, 8_012), "gw1-r2": (40, 862, 70_024), "gw1-r4": (14, 522, 40_564)}
    rings = tuple(
        RingReach(
            name=name,
            shares_bp=(10_000,),
            matched=sum(one[at] for one in counts.values()),
            offered=sum(one[at] for one in counts.values()),
            variants={variant: one[at] for variant, one in counts.items()},
        )
        for at, name in enumerate(("internal", "pilot", "fleet"))
    )
    offered = sum(one.offered for one in rings)
    return Reach(
        release=release, product="gw1", matched=offered + 612, offered=offered, rings=rings,
        skipped=(Skipped(code="compat.hardware", text="no artifact fits the hardware", count=612),),
        lints=(Lint(code="canary.none", level="warning", text=f"No canary for {HOSTILE}"),),
        conflicts=(Conflict(rollout="gw1-2.5.0", release="gw1-2.5.0", devices=96_579, first=False),),
    )  # fmt: skip
