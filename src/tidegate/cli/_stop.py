"""How `halt` and its like are told: what was stopped, what stays inert, who is beyond the point of no return."""

from collections.abc import Callable
from typing import Final

from tidegate.cli._people import show_lines, when
from tidegate.cli.output import Output, printable
from tidegate.client import Client, structs

_PAST_SHOWN = 12
_VERBS: Final[dict[str, Callable[[Client, str, structs.Act], structs.Outcome]]] = {
    "halt": Client.rollouts_halt,
    "pause": Client.rollouts_pause,
    "cancel": Client.rollouts_cancel,
    "isolate": Client.rollouts_isolate,
}


def narrow(client: Client, out: Output, verb: str, name: str, act: structs.Act) -> structs.Outcome:
    """Stop a rollout or a variant in it, and tell what was found. Never asks."""
    done = _VERBS[verb](client, name, act)
    show_lines(out, "act/1", done, _lines(done))
    if (stopped := done.stopped) is not None:
        if stopped.doubt:
            out.note(f"warning: {printable(stopped.doubt)}")
        out.note(f"Incident {stopped.incident} opened.")
        out.note(f"Next: tidegate incident show {stopped.incident}")
        if verb == "halt":
            out.note(f"      tidegate rollout fallback {name} --dry-run")
    return done


def _lines(done: structs.Outcome) -> list[str]:
    name, stopped = done.name, done.stopped
    if stopped is None:
        return [f"{name} is {done.state}: {done.text}"]
    word = "HALTED" if done.verb == "halt" else "ISOLATED"
    lines = [
        f"{word} {name} at {when(stopped.at)} UTC, effective now: {done.text}",
        "  no offer and no permit is given after that moment",
        *(
            [f"  {stopped.kept_out:>5,} devices of the fleet are kept out"]
            if stopped.kept_out is not None
            else []
        ),
        f"  {stopped.inert:>5,} devices had downloaded or staged it: their slot stays inert",
        f"  {stopped.past_count:>5,} devices are past the point of no return",
    ]
    lines += [f"        {one.device}  {one.state}" for one in stopped.past[:_PAST_SHOWN]]
    rest = stopped.past_count - _PAST_SHOWN
    if rest > 0:
        lines.append(f"        and {rest:,} more: tidegate rollout devices {name} --state past")
    lines.append(
        f"  {stopped.confirmed:>5,} devices run it (confirmed); nothing is changed on them"
    )
    return lines
