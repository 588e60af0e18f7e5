"""`tidegate explain CODE`: the page of any error or reason, offline."""

import click

from tidegate.cli.output import Output, explain, with_output
from tidegate.core.errors import HINTS, RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.core.reasons import REASONS


@click.command("explain")
@click.argument("code")
@with_output
def command(code: str, out: Output) -> None:
    """Explain an error or reason by its code.

    \b
    tidegate explain sig.threshold
    tidegate explain health.network --json
    """
    text = explain(code)
    if text is None:
        near = did_you_mean(code, [*REASONS, *HINTS])
        raise RequestError("request.not_found", f'there is no code "{code}"{near}')
    value = {"code": code, "means": REASONS.get(code, ""), "do": HINTS.get(code, "")}
    out.data("code/1", value, text)
