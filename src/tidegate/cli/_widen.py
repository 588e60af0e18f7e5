"""How what widens a rollout is done: said whom it reaches, asked, carried out."""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from tidegate.cli import _rollout_text
from tidegate.cli._people import confirm, show_lines
from tidegate.cli.output import Output
from tidegate.client import Client, structs

#: Verb → what does it, and what says whom it would reach.
_WIDENING: Final[
    dict[
        str,
        tuple[
            Callable[[Client, str, structs.Act], structs.Outcome],
            Callable[[Client, str, structs.Act], structs.WouldAct],
        ],
    ]
] = {
    "start": (Client.rollouts_start, Client.rollouts_start_dry_run),
    "activate": (Client.rollouts_activate, Client.rollouts_activate_dry_run),
    "resume": (Client.rollouts_resume, Client.rollouts_resume_dry_run),
    "advance": (Client.rollouts_advance, Client.rollouts_advance_dry_run),
    "readmit": (Client.rollouts_readmit, Client.rollouts_readmit_dry_run),
}


def widen(
    client: Client,
    out: Output,
    verb: str,
    name: str,
    options: dict[str, Any],
    act: structs.Act = structs.Act(),  # noqa: B008 - it is frozen
) -> None:
    """Say what a verb reaches, ask, and carry it out."""
    do, rehearse = _WIDENING[verb]
    found = rehearse(client, name, act)
    devices = found.devices
    if options["dry_run"]:
        show_lines(out, "would/1", found, [f"{verb} {name} would reach {devices:,} devices."])
        out.note("Nothing was written.")
        return
    what = f"{verb} {name} offers it to {devices:,} devices."
    reason = confirm(client, out, what, devices, yes=options["yes"], reason=options["reason"])
    _rollout_text.told(out, do(client, name, replace(act, reason=reason)))
