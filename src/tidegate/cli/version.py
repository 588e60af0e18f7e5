"""`tidegate version`."""

import platform

import click

from tidegate import __version__
from tidegate.cli.output import Output, with_output


@click.command("version")
@with_output
def command(out: Output) -> None:
    """Say which version this is.

    \b
    tidegate version
    tidegate version --json
    """
    value = {"version": __version__, "python": platform.python_version()}
    out.data("version/1", value, f"tidegate {__version__}, Python {platform.python_version()}")
