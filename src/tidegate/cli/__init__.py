"""The command line. Each noun is one file here, found by its name and imported when it is used: `--help` stays quick.

A module `cli/NOUN.py` that holds a click command called `command` is a subcommand; nothing else has to be edited. Names in
`_PARTS`, and those that begin with an underscore, are no commands.
"""

import ast
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

try:
    import click
except ModuleNotFoundError as error:
    # The program of the base install: there is nothing here that could print it any better.
    from tidegate.cli._missing import leave

    sys.exit(leave(error, sys.argv))

from tidegate import __version__
from tidegate.cli._missing import missing
from tidegate.cli.output import fail, failed_usage
from tidegate.core.errors import TidegateError
from tidegate.core.nearest import nearest

_PARTS: Final = frozenset({"client", "output"})

#: What people do, in the order in which they do it; shown by `tidegate` alone, as far as it is installed.
_SCREEN: Final = (
    ("demo", "Try        tidegate demo                     a fleet, a bad release, a halt"),
    ("serve", "Serve      tidegate serve                    the control plane"),
    ("keys", "Trust      tidegate keys, root               keys and the ceremony"),
    ("release", "Release    tidegate release build, sign, publish"),
    ("rollout", "Roll out   tidegate rollout create, show, explain"),
    ("halt", "           tidegate halt ROLLOUT             stops at once, never asks"),
    ("status", "Look       tidegate status                   the fleet on one screen"),
    ("device", "           tidegate device why DEVICE        why it is (not) updating"),
    ("incident", "Afterward  tidegate incident show, export"),
    ("sim", "Beforehand tidegate sim                      boards and fleets without hardware"),
    ("doctor", "Check      tidegate doctor"),
)


def names() -> list[str]:
    """List the subcommands that are there."""
    found = {one.name for one in pkgutil.iter_modules(__path__) if not one.name.startswith("_")}
    return sorted(found - _PARTS)


class _Nouns(click.Group):
    """Imports a subcommand when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in names():
            return None
        found = importlib.import_module(f"{__name__}.{cmd_name}")
        command: click.Command = found.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by the first line of their docstrings, read from their files: importing all of them would take longer than the budget."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_line(name)) for name in names()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in names():
            near = nearest(args[0], names())
            hint = f'; did you mean "tidegate {near}"?' if near else ""
            raise click.UsageError(f'there is no command "{args[0]}"{hint}', ctx)
        return super().resolve_command(ctx, args)


def _first_line(name: str) -> str:
    """Return the first line of a command's docstring without importing its module."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "command":
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return (ast.get_docstring(tree) or "").partition("\n")[0]


@click.group(cls=_Nouns, invoke_without_command=True, context_settings={"max_content_width": 100})
@click.version_option(__version__, "--version", message="%(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Deliver firmware to fleets of Linux devices, and stop by itself.

    \b
    tidegate demo
    tidegate serve --data ./tidegate-data
    """
    if ctx.invoked_subcommand is None:
        click.echo(first_screen())


def first_screen() -> str:
    """Return what `tidegate` alone prints: what people do, not the tree."""
    there = set(names())
    lines = [line for name, line in _SCREEN if name in there]
    return "\n".join(
        [
            "Tidegate delivers firmware to fleets of Linux devices, and stops by itself.",
            "",
            *lines,
            "",
            "All commands: tidegate --help   An error or reason: tidegate explain CODE",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `tidegate` and end the process with an exit code of `tidegate help exit-codes`."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code. Nothing is raised, whatever happens."""
    as_json = "--json" in arguments or "--jsonl" in arguments
    try:
        result = program.main(arguments, prog_name="tidegate", standalone_mode=False)
    except TidegateError as error:
        return fail(error, as_json=as_json)
    except click.UsageError as error:
        return failed_usage(error, as_json=as_json)
    except click.ClickException as error:
        error.show()
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 130
    except BrokenPipeError:
        # the reader went away (`| head`): nobody is left to be told
        sys.stdout = None
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except ModuleNotFoundError as error:
        lacking = missing(error)
        if lacking is None:
            return _report_bug(arguments, error)
        return fail(lacking, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last door: a report instead of a stack trace
        return _report_bug(arguments, error)
    return result if isinstance(result, int) else 0


def _report_bug(arguments: list[str], error: Exception) -> int:
    from tidegate.cli.output import write_report

    path = write_report(arguments, error)
    click.echo(
        f"error[internal]: Tidegate made a mistake in {' '.join(arguments[:2])}: {error}\n"
        f"  do    report it, with {path} (no keys or tokens are in it)",
        err=True,
    )
    return 70
