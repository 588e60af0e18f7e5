"""`tidegate gate`: the evidence gate alone, for a rollout that something else carries out."""

import json
import sys
from typing import BinaryIO

import click

from tidegate.core.errors import RequestError

#: The release is to be stopped.
HALTED = 10
#: Evidence can neither stop it nor let it go on.
HELD = 7


@click.command("gate", short_help="Guard somebody else's rollout: events in, decisions out.")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--json", "as_json", is_flag=True, hidden=True, help="It prints JSON anyway.")
def command(file: BinaryIO, *, as_json: bool) -> int:  # noqa: ARG001 - accepted, so that scripts may always say it
    """Guard somebody else's rollout: events in, decisions out.

    FILE, or what comes on standard input, has a JSON object a line; docs/reference/gate-lines.md describes them, and the decisions that are printed, a line
    each, as soon as they are due. No server is needed. Exit code 10: the release is to be stopped; 7: the fleet is too small to tell, a person decides.

    \b
    tidegate gate events.jsonl
    tail -F events.jsonl | tidegate gate
    """
    from tidegate.rollout.lines import Gate

    gate = Gate()
    for number, line in enumerate(iter(file.readline, b""), 1):
        try:
            for said in gate.read(line):
                _print(said)
        except RequestError as error:
            raise RequestError(error.code, f"line {number}: {error.detail}") from error
    for said in gate.end():
        _print(said)
    return HALTED if gate.halted else HELD if gate.held else 0


def _print(said: object) -> None:
    sys.stdout.write(json.dumps(said, ensure_ascii=False) + "\n")
    sys.stdout.flush()
