"""How `halt` and its like are told: what was stopped, what stays inert, who is beyond the point of no return."""

from collections.abc import Callable
from typing import Final

import click

from tidegate.cli._people import show_lines, when
from tidegate.cli.output import Output, printable
from tidegate.client import Client, structs

_PAST_SHOWN = 12
_Verb = tuple[
    Callable[[Client, str, structs.Act], structs.Outcome],
    Callable[[Client, str, structs.Act], structs.WouldAct],
]
_VERBS: Final[dict[str, _Verb]] = {
    "halt": (Client.rollouts_halt, Client.rollouts_halt_dry_run),
    "pause": (Client.rollouts_pause, Client.rollouts_pause_dry_run),
    "cancel": (Client.rollouts_cancel, Client.rollouts_cancel_dry_run),
    "isolate": (Client.rollouts_isolate, Client.rollouts_isolate_dry_run),
}
DRY_RUN: Final = click.option(
    "--dry-run", is_flag=True, help="Say whom it would concern; change nothing."
)


def narrow(
    client: Client, out: Output, verb: str, name: str, act: structs.Act, *, dry_run: bool = False
) -> None:
    """Stop a rollout or a variant in it, and tell what was found. Never asks."""
    does, would = _VERBS[verb]
    if dry_run:
        found = would(client, name, act)
        text = f"{verb} would concern {found.devices:,} devices that {found.name} reaches."
        show_lines(out, "would-act/1", found, [text])
        out.note("Nothing was changed.")
        return
    done = does(client, name, act)
    show_lines(out, "act/1", done, _lines(done))
    if (stopped := done.stopped) is not None:
        if stopped.doubt:
            out.note(f"warning: {printable(stopped.doubt)}")
        out.note(f"Incident {stopped.incident} opened.")
        out.note(f"Next: tidegate incident show {stopped.incident}")
        if verb == "halt":
            out.note(f"      tidegate rollout fallback {name} --dry-run")


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
