"""What a reader who was not there needs first, in sentences: what happened, who was hit, how it stands, why, what is left, and what bars it from now on."""

from collections.abc import Iterator
from typing import Final

from tidegate.rollout.incident.model import Cause, IncidentReport
from tidegate.rollout.incident.wording import day, who

#: Words that the report uses, for readers from elsewhere.
GLOSSARY: Final = (
    ("attempt", "a device acted on the release: it was given leave to activate it, or failed to install it"),
    ("cohort", "all devices that acted on the release"),
    ("confirmed", "the device runs the release and found itself well by its health contract"),
    ("exposed", "given leave (a permit) to activate"),
    ("failed", "the attempt ended badly while the device was still on the old release, or for good"),
    ("gate", "the rule that lets a rollout go on, holds it or halts it, by what devices report"),
    ("held", "staged and waiting; without a permit nothing is activated"),
    ("lost", "not heard again after its permit"),
    ("reverted", "the device went back to the release before by itself"),
    ("ring", "a part of the fleet that gets the release before the next one does"),
    ("slot", "one of two places for a system; the device runs one and updates the other"),
    ("soak", "time that devices must be well before more get the release"),
)  # fmt: skip


def cause(report: IncidentReport) -> Cause:
    """Say how well the cause is known."""
    if report.cause is not None:
        return "proved"
    return "supposed" if report.hypothesis is not None else "unknown"


def in_short(report: IncidentReport) -> Iterator[str]:
    """Yield what a reader needs before everything else."""
    if report.drill:
        yield "This was a drill: server, gate and agents are the real ones, devices and people were simulated. No customer's device was touched."
        yield "Simulated devices restart within seconds of the server's clock, so how long each was away is told too short."
    if report.incident.rollout:
        yield f"What happened: {_happened(report)}"
        yield f"Who was hit: {_hit(report)}"
        yield f"How it stands: {_stands(report)}"
    known = report.cause or report.hypothesis
    said = {"proved": "proved", "supposed": "supposed, not proved", "unknown": "not known"}
    words = known.text.strip().rstrip(".").split("\n")[0] if known else ""
    yield f"Why: {said[cause(report)]}{': ' + words if words else ''}."
    yield f"What is left to do: {_left(report)}"


def _happened(report: IncidentReport) -> str:
    one = report.incident
    by = who(one.opened_by)
    did = {
        "halt": f"{by} halted the rollout of {one.release}",
        "isolation": f"{by} took {one.subject} out of the rollout of {one.release}",
        "held": f"{by} let nobody go on with {one.release}: it can neither be proved bad nor go on, a person decides",
        "fallback": f"{by} ordered back the devices that run {one.release}",
        "manual": f"{by} opened this incident about {one.release}",
    }[one.kind]
    return f"{did}{f' ({report.version})' if report.version else ''}, product {report.product}."


def _hit(report: IncidentReport) -> str:
    counts = report.reach.counts
    parts = [f"{counts.harmed:,} of {counts.attempts:,} devices that acted on it ended badly"]
    if report.fleet is not None:
        parts.append(
            f"the product has {report.fleet.devices:,}, and the release fits {report.fleet.matching:,} of them"
        )
    return "; ".join(parts) + "."


def _stands(report: IncidentReport) -> str:
    counts = report.reach.counts
    parts = [f"{counts.lost:,} not heard again", f"{counts.open:,} with no outcome yet"]
    if report.running >= 0:
        parts.append(f"{report.running:,} still run it")
    back = sum(one.back for one in report.ways_back)
    parts.append(f"{counts.reverted:,} went back by themselves, {back:,} were brought back")
    return ", ".join(parts) + "."


def _left(report: IncidentReport) -> str:
    todo = [
        f"{one.text} ({one.owner or 'nobody'}, {'no date' if not one.due_at else 'by ' + day(one.due_at)})"
        for one in report.followups
        if not one.done_at
    ]
    todo += [f"missing here: {one}" for one in report.missing]
    return "; ".join(todo) + "." if todo else "nothing."


def barriers(report: IncidentReport) -> Iterator[str]:
    """Yield what keeps the release from going out again, and what does not."""
    one = report.incident
    if report.recalled_at:
        yield f"{one.release} is recalled: no rollout can bring it, and a device that runs it is told so."
    elif one.release:
        yield f"{one.release} is not recalled: whoever may start rollouts can start another one of it, until it is recalled."
    if report.state in {"halted", "paused"}:
        yield f"The rollout is {report.state}: no device gets leave to activate. Going on needs a person, and the evidence begins again at even odds."
    elif report.state:
        yield f"The rollout is {report.state}: it offers nothing any more."
    if report.reach.stopped.held:
        yield f"{report.reach.stopped.held:,} devices hold the image; without a permit it stays inert."
    gone_back = report.reach.counts.reverted
    if gone_back:
        yield f"{gone_back:,} devices went back by themselves; each refuses this release from now on, whoever offers it."


def apart(report: IncidentReport) -> str:
    """Say where the figures cannot tell two explanations apart; empty where they can."""
    shares = {"variant": report.reach.variants, "ring": report.reach.rings}
    split = [
        name
        for name, found in shares.items()
        if sum(1 for one in found if one.counts.attempts) > 1
        and not any(one.counts.harmed and one.counts.confirmed for one in found)
        and any(one.counts.harmed for one in found)
        and any(one.counts.confirmed for one in found)
    ]
    if len(split) < 2:
        return ""
    return (
        "No variant and no ring has both devices that ended badly and devices that are well. "
        "So these figures cannot say whether the hardware or the ring makes the difference."
    )
