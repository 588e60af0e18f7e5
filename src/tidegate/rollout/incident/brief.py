"""What a reader who was not there needs first, in sentences: what happened, who was hit, how it stands, why, what is left, and what bars it from now on."""

from collections.abc import Iterator
from typing import Final

from tidegate.rollout.incident.model import MEANS, Cause, IncidentReport
from tidegate.rollout.incident.wording import counted, day, when, who

#: Words that the report uses, for readers from elsewhere.
GLOSSARY: Final = (
    ("activate", "a device tells its boot loader to start the new system and restarts into it; only with a permit"),
    ("agent", "the program on a device that downloads, installs, restarts, checks itself and reports"),
    ("armed, trial", "the boot loader is told to boot the new system a few times, on trial; until that is confirmed it goes back by itself"),
    ("at once, room", "how many devices may be between their permit and their outcome at a time, and how many more may get one now"),
    ("attempt", "a device acted on the release: it was given leave to activate it, or failed to install it"),
    ("boot counter, tries", "how often a system on trial may still be started; when they are used up the boot loader takes the other slot"),
    ("cancelled", "the update of this device was ended before it began to activate; it runs what it ran"),
    ("closed", "the incident is over: what was to be said is said, and what is left to do is a follow-up"),
    ("confirmed", "the device ran the release then, and found itself well by its health contract"),
    ("counter", "the number of a release that decides which of two is newer"),
    ("ended badly", "reverted, failed or lost: all attempts that did not end with a device that is well on the release"),
    ("enrolled", "known to this server by a key of its own: only such devices are counted"),
    ("exposed", "given leave (a permit) to activate"),
    ("failed", "of those that ended badly: while the device was still on the old release, or for good; it did not go back"),
    ("fallback, way back", "the server orders devices back to an older release; a rollout of its own, with a gate of its own"),
    ("fallen back", "a rollout from which everybody who could be reached was ordered back, and that way back has ended"),
    ("four-eyes", "a second person has to agree before it is done"),
    ("gate", "the rule that lets a rollout go on, holds it or halts it, by what devices report"),
    ("halt", "no device gets leave to activate any more; what was staged stays inert"),
    ("health contract", "the checks that a release brings, by which a device judges whether it is well on it"),
    ("held", "staged and waiting; without a permit nothing is activated"),
    ("hold", "the gate does not open the next ring yet; devices of rings that are open still get leave"),
    ("inert", "an image that is stored on a device and that nothing boots"),
    ("isolation", "one variant is kept out and the others go on; the gate does it where that variant alone is over the limit and enough others are well"),
    ("limit", "more than this share stops it, from a number of attempts on; before that only as many failures as luck brings once in 1,000 times"),
    ("lost", "not heard again after its permit"),
    ("manifest", "the signed list of what a release is made of, and for which hardware; it is never changed"),
    ("mitigated", "it does no more harm; that it is understood is not said by that"),
    ("offered", "the server told a device that asked that there is a release for it; nothing is activated by that"),
    ("owner", "of an incident: who leads the work on it; of an action or a follow-up: who did it, or does it"),
    ("pair", "two values that a device has together, as variant = gw1-r7 and region = north; compared as one value is"),
    ("permit", "leave to activate, signed for one device and one release"),
    ("point of no return", "from its permit on a device may boot the release, whatever is decided now"),
    ("primary", "the slot that the boot loader takes as a rule"),
    ("recalled", "never offered again, by anybody; it cannot be undone"),
    ("reverted", "the device went back to the release before by itself"),
    ("ring", "a part of the fleet that gets the release before the next one does"),
    ("seed", "the number from which a simulation draws all its chances: the same seed plays the same story again"),
    ("severity", "minor for an isolation, major for everything else, when it is opened; people set it higher or lower, and the timeline says so"),
    ("slot", "one of two places for a system; the device runs one and updates the other"),
    ("soak", "time to pass before more opens, counted from permits: the last of a ring (or its opening), or each device's own where evidence is weighed"),
    ("stage", "an attribute of a device that says how early it gets releases; rings are cut by it"),
    ("staged", "downloaded, checked and stored in the other slot; nothing boots it yet"),
    ("variant, revision", "model and revision of the hardware, as gw1-r7: model gw1, revision 7"),
    ("warm-up", "for how long a device has to be well on a release before it may confirm it; signed with the release"),
    ("watchdog", "a timer of the hardware that restarts a device that hangs"),
    ("webhook", "a call that the server makes to a system of the operator's, to tell it what happened"),
)  # fmt: skip


def cause(report: IncidentReport) -> Cause:
    """Say how well the cause is known."""
    if report.cause is not None:
        return "proved" if report.evidence else "said"
    return "supposed" if report.hypothesis is not None else "unknown"


def in_short(report: IncidentReport) -> Iterator[str]:
    """Yield what a reader needs before everything else."""
    if report.drill:
        yield "This was a drill: server, gate and agents are the real ones, devices and people were simulated. No customer's device was touched."
        text = "what its operator does at once falls into one second, minutes pass before the next step, and more where the drill waits to see something"
        yield f"The time of people is made up in it: {text}."
        yield _away(report)
    if report.incident.rollout:
        yield f"What happened: {_happened(report)}"
        yield f"Who ended badly: {_hit(report)}"
        yield f"How it stands: {_stands(report)}"
    known = report.cause or report.hypothesis
    said = {
        "proved": "proved",
        "said": "said to be proved, but nothing shows it except the counts",
        "supposed": "supposed, not proved",
        "unknown": "not known",
    }
    words = known.text.strip().rstrip(".").split("\n")[0] if known else ""
    shown = {one.means: None for one in report.evidence} if report.cause else {}
    by = (
        f" Shown by: {', '.join(MEANS[means] for means in shown)}; the counts alone do not prove it."
        if shown
        else ""
    )
    yield f"Why: {said[cause(report)]}{': ' + words if words else ''}.{by}"
    if report.incident.release:
        yield f"Can it go out again: {_again(report)}"
    yield f"What is left to do: {_left(report)}"


def _away(report: IncidentReport) -> str:
    """Say of whom it is measured how long they were away; the clock of a drill goes on only between two acts of a device."""
    bad = [one for one in report.reach.affected if one.permitted_at]
    known = [one.device for one in bad if one.at > one.permitted_at]
    said = "In the simulation a restart often falls into one second of the server's clock: how long devices were away is measured"
    if not bad:
        return f"{said} only where it does not."
    named = f" ({', '.join(known[:4])}{', ...' if len(known) > 4 else ''})" if known else ""
    return f"{said} for {len(known):,} of the {counted(len(bad), 'device')} named that ended badly{named}; of those that confirmed see How long it took."


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
            f"the product has {report.fleet.devices:,}, and the hardware of {report.fleet.matching:,} of them is named as compatible by its manifest"
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


def _again(report: IncidentReport) -> str:
    one = report.incident
    if report.recalled_at:
        by = f" by {report.recalled_by}" if report.recalled_by else ""
        why = f": {report.recall_reason.rstrip('.')}" if report.recall_reason else ""
        return f"no, it was recalled at {when(report.recalled_at)} UTC{by}{why}."
    return (
        f"YES, until it is recalled: whoever may start rollouts can start another one.{_risk(report)} {_recall(report)} "
        f"The command is: tidegate release recall {one.release}"
    )


def _risk(report: IncidentReport) -> str:
    """Say how many devices it would meet that may end badly with it: of variants that did, and of those of which nobody knows."""
    fleet = report.fleet
    if fleet is None or not fleet.alike + fleet.unknown:
        return ""
    parts = []
    if fleet.alike:
        parts.append(
            f"{counted(fleet.alike, 'device')} of variants that ended badly with it and do not refuse it"
        )
    if fleet.unknown:
        parts.append(
            f"{counted(fleet.unknown, 'device')} of variants that never tried it ({', '.join(fleet.untried)})"
        )
    return f" It would meet {' and '.join(parts)}."


def _recall(report: IncidentReport) -> str:
    """Say who decides until when whether the release is recalled, or who did."""
    asked = [one for one in report.followups if one.about == "recall"]
    for one in asked:
        if not one.done_at:
            late = " (OVERDUE)" if one.overdue_s(report.at) else ""
            until = f"by {day(one.due_at)}{late}" if one.due_at else "with no date"
            return f"{one.owner or 'nobody'} decides on the recall, {until}."
    if asked:
        last = max(asked, key=lambda one: one.done_at)
        return f"{last.done_by} decided on {day(last.done_at)} to leave it."
    return "Nobody is named yet who decides on the recall."


def _left(report: IncidentReport) -> str:
    todo = [
        f"{one.text} ({one.owner or 'nobody'}, {'no date' if not one.due_at else 'by ' + day(one.due_at)}{', OVERDUE' if one.overdue_s(report.at) else ''})"
        for one in report.followups
        if not one.done_at
    ]
    todo += [f"missing here: {one}" for one in report.missing]
    return "; ".join(todo) + "." if todo else "nothing."


def barriers(report: IncidentReport) -> Iterator[str]:
    """Yield what keeps the release from going out again, and what does not."""
    one = report.incident
    if report.recalled_at:
        yield f"{one.release} is recalled: no rollout can bring it, and the server signs no permit for it any more."
    elif one.release:
        yield f"{one.release} is not recalled: whoever may start rollouts can start another one of it, until it is recalled."
    if report.state in {"halted", "paused"}:
        yield f"The rollout is {report.state}: no device gets leave to activate. Going on needs a person, and the evidence begins again at even odds."
    elif report.state == "completed" and not report.ways_back:
        yield "The rollout is completed: devices that come later still get it."
    elif report.state in {"active", "scheduled", "awaiting_approval", "draft"}:
        yield f"The rollout is {report.state}: nothing of it bars the release."
    elif report.state:
        yield f"The rollout {state(report)}. It offers nothing any more."
    if report.fleet is not None and not report.recalled_at:
        named = counted(report.fleet.matching, "device")
        yield (
            f"Its manifest names the hardware of {named} as compatible, and still does: a signed manifest is not changed. "
            "To correct it, recall the release and publish one that names less."
        )
    if report.reach.stopped.held:
        yield f"{counted(report.reach.stopped.held, 'device')} still hold the image; without a permit it stays inert."
    gone_back = report.reach.counts.reverted
    if gone_back:
        alone, they = ("by itself", "it refuses")
        if gone_back > 1:
            alone, they = "by themselves", f"all {gone_back:,} refuse"
        yield f"{counted(gone_back, 'device')} went back {alone}; {they} this release from now on, whoever offers it."


def state(report: IncidentReport) -> str:
    """Say how the rollout stands, as the end of a sentence about it. One that everybody was brought back from has not succeeded."""
    if report.state == "completed":
        return "ended: fallen back" if report.ways_back else "is completed"
    if report.state == "falling_back":
        return "is being brought back"
    return f"is {report.state}"


def split(report: IncidentReport) -> tuple[str, ...]:
    """Return what of variant and ring separates those that ended badly from those that are well, value by value."""
    shares = {"variant": report.reach.variants, "ring": report.reach.rings}
    return tuple(
        name
        for name, found in shares.items()
        if sum(1 for one in found if one.counts.attempts) > 1
        and not any(one.counts.harmed and one.counts.confirmed for one in found)
        and any(one.counts.harmed for one in found)
        and any(one.counts.confirmed for one in found)
    )


def apart(report: IncidentReport) -> str:
    """Say where the figures cannot tell two explanations apart; empty where they can."""
    if len(split(report)) < 2:
        return ""
    return (
        "No variant and no ring has both devices that ended badly and devices that are well. "
        "So these figures cannot say whether the hardware or the ring makes the difference."
    )
