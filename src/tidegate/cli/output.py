"""What commands print: data to stdout, talk to stderr, errors with a code and a way out, exit codes by who must act.

The conventions are P1 to P8 of the command line's reference: `--json` gives one JSON value that names its schema; tables are plain ASCII; a command that makes
something prints its name alone on the last line.
"""

import functools
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import click
import msgspec

from tidegate.core.errors import HINTS, BusyError, RequestError, TidegateError
from tidegate.core.fields import Wanted, shaped, wanted
from tidegate.core.reasons import REASONS

P = ParamSpec("P")
R = TypeVar("R")

#: Meaning of every exit code, of both programs.
EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done, or asked and answered, whatever the answer",
    1: "it failed; the error says why",
    2: "wrong usage, or a confirmation is missing",
    3: "refused: signature, compatibility, downgrade, gate, policy",
    4: "sign in first, or not allowed",
    5: "no such thing",
    6: "conflict: it changed meanwhile, or exists with other content",
    7: "incomplete: somebody else must act first (signatures, approval)",
    8: "server or link unreachable, or busy: try again",
    9: "another process holds it",
    10: "what was waited for ended badly: halted, failed, reverted, lost",
    11: "what was waited for ended otherwise: cancelled, superseded, declined",
    12: "--timeout ran out while waiting",
    70: "a bug in Tidegate; a report file was written",
    130: "Ctrl-C",
}

_BY_CODE: Final[Mapping[str, int]] = {
    "request.invalid": 2,
    "request.confirmation_needed": 2,
    "download.hash": 3,
    "key.duplicate": 3,
    "key.trust_levels": 3,
    "release.malformed": 3,
    "claim.invalid": 3,
    "device.revoked": 3,
    "device.quarantined": 3,
    "request.unauthenticated": 4,
    "request.forbidden": 4,
    "session.expired": 4,
    "request.not_found": 5,
    "device.unknown": 5,
    "key.missing": 5,
    "request.conflict": 6,
    "release.exists": 6,
    "meta.incomplete": 7,
    "device.pending": 7,
    "link.unreachable": 8,
    "server.busy": 8,
    "request.rate_limited": 8,
    "audit.key": 2,
    "data.locked": 9,
    "agent.locked": 9,
    "server.internal": 70,
}
_BY_FAMILY: Final[Mapping[str, int]] = {
    "sig": 3,
    "compat": 3,
    "supply": 3,
    "download": 8,
    "audit": 3,
}


class Output:
    """Where a command's results go. `json` = `--json` was given; `fields` = those that `--fields` chose, as they were given."""

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.json = json
        self.quiet = quiet
        self.fields = ""
        self._known: frozenset[str] = frozenset()

    def choose(self, fields: str, known: Iterable[str]) -> None:
        """Keep these fields of each item of a list (untrusted; empty = all), out of those `known`; in a table they are its columns."""
        self.fields = fields
        self._known = frozenset(known)

    def data(self, schema: str, value: object, text: str) -> None:
        """Print one thing: as JSON with its schema, or as text for people."""
        if self.json:
            plain = msgspec.to_builtins(value)
            fields = plain if isinstance(plain, dict) else {"value": plain}
            _line(json.dumps({"schema": f"tidegate.{schema}", **fields}, ensure_ascii=False))
        else:
            _line(text)

    def table(
        self, schema: str, items: Iterable[Any], columns: Sequence[str], *, empty: str = "none"
    ) -> None:
        """Print a list: JSON `items`, or a table of these columns (fields, also dotted).

        Raises:
            RequestError: `request.invalid`: fields were chosen that are not known. Nothing is printed.
        """
        tree = self._chosen(columns)
        if tree and not self.json:
            columns = [one.strip() for one in self.fields.split(",") if one.strip()]
        plain = [msgspec.to_builtins(one) for one in items]
        if self.json:
            plain = shaped(plain, tree) if tree else plain
            body = {"schema": f"tidegate.{schema}", "items": plain}
            _line(json.dumps(body, ensure_ascii=False))
        elif not plain:
            self.note(empty)
        else:
            _line(render_table(columns, [[_field(one, name) for name in columns] for one in plain]))

    def _chosen(self, columns: Sequence[str]) -> Wanted:
        """Return which fields were chosen; empty for all. People may also choose the columns that are made for them."""
        if not self.fields:
            return {}
        known = self._known if self.json else self._known.union(columns)
        try:
            return wanted(self.fields, known)
        except RequestError as error:
            raise RequestError(
                error.code, f"--{error.detail}", hint=f"known: {', '.join(sorted(known))}"
            ) from error

    def made(self, name: str, **more: object) -> None:
        """Print the name of what was made, alone on the last line."""
        if self.json:
            _line(json.dumps({"schema": "tidegate.made/1", "name": name, **more}))
        else:
            _line(name)

    def note(self, text: str) -> None:
        """Say something beside the data; silent with `--quiet`."""
        if not self.quiet:
            click.echo(text, err=True)

    def progress(self, what: str) -> "Progress":
        """Show progress of long work on a terminal; nothing elsewhere."""
        return Progress(what, shown=not self.quiet and sys.stderr.isatty())


class Progress:
    """One line on stderr that says how much of how much, redrawn when a percent was gained."""

    def __init__(self, what: str, *, shown: bool) -> None:
        self._what = what
        self._shown = shown
        self._last = -1

    def __call__(self, done: int, total: int) -> None:
        """Note progress; both in the same unit."""
        percent = 100 * done // total if total else 100
        if not self._shown or percent == self._last:
            return
        self._last = percent
        bar = ("#" * (percent // 5)).ljust(20, ".")
        click.echo(f"\r{self._what}  {bar}  {percent:3} %", err=True, nl=percent >= 100)


def with_output(function: Callable[P, R]) -> Callable[..., R]:
    """Give a command `--json` and `--quiet`, and the argument `out`."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no notes.")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> R:
        return function(*args, out=Output(json=as_json, quiet=quiet), **kwargs)  # type: ignore[arg-type]

    return command


def with_list(
    kind: type[msgspec.Struct],
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Give a command that lists things of this kind `--fields`, and what `with_output` gives."""
    known = [one.encode_name for one in msgspec.structs.fields(kind)]

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        @click.option(
            "--fields", default="", metavar="A,B.C", help="These fields only, in this order."
        )
        @functools.wraps(function)
        def command(*args: Any, out: Output, fields: str, **kwargs: Any) -> R:
            out.choose(fields, known)
            return function(*args, out=out, **kwargs)

        return with_output(command)

    return decorate


# --- errors -------------------------------------------------------------------------------------------------------------


def exit_code(error: TidegateError) -> int:
    """Return the exit code of an error: by its code, else by its family, else 1."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return _BY_FAMILY.get(error.code.partition(".")[0], 8 if isinstance(error, BusyError) else 1)


def fail(error: TidegateError, *, as_json: bool) -> int:
    """Print an error to stderr; return its exit code."""
    code = exit_code(error)
    if as_json:
        body = {
            "type": f"urn:tidegate:error:{error.code}",
            "code": error.code,
            "title": REASONS.get(error.code, error.code),
            "detail": error.detail,
            "hint": error.hint,
            "retryable": error.retryable,
            "exit": code,
        }
        click.echo(json.dumps(body, ensure_ascii=False), err=True)
        return code
    lines = [f"error[{error.code}]: {printable(error.detail)}"]
    meaning = REASONS.get(error.code, "")
    if meaning and meaning != error.detail:
        lines.append(f"  why   {meaning}")
    if error.hint:
        lines.append(f"  do    {printable(error.hint)}")
    lines.append(f"  more  tidegate explain {error.code}")
    click.echo("\n".join(lines), err=True)
    return code


def failed_usage(error: click.UsageError, *, as_json: bool) -> int:
    """Print a mistake in the command line; return exit code 2."""
    where = error.ctx.command_path if error.ctx else "tidegate"
    if as_json:
        fault = RequestError("request.invalid", error.format_message())
        return fail(fault, as_json=True)
    click.echo(
        f"error[request.invalid]: {error.format_message()}\n  do    {where} --help", err=True
    )
    return 2


def explain(code: str) -> str | None:
    """Return what there is to say about an error or reason; None when there is no such code."""
    if code not in REASONS and code not in HINTS:
        return None
    lines = [code]
    if code in REASONS:
        lines.append(f"  means  {REASONS[code]}")
    if code in HINTS:
        lines.append(f"  do     {HINTS[code]}")
    lines.append(f"  exit   {exit_code(TidegateError(code))}")
    return "\n".join(lines)


def write_report(arguments: list[str], error: Exception) -> Path:
    """Write a stack trace to a file for whoever mends it; arguments are left out, for they may name secrets."""
    text = "".join(traceback.format_exception(error))
    handle, name = tempfile.mkstemp(prefix="tidegate-report-", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        file.write(f"command: {' '.join(arguments[:2])}\n\n{text}")
    return Path(name)


# --- questions ------------------------------------------------------------------------------------------------------------


def need_confirmation(
    question: str,
    expected: str,
    *,
    yes: bool,
    reason: str | None,
    no_input: bool = False,
    hint: str = "",
) -> None:
    """Ask a person to type `expected` (a number of devices, a version) before something widens.

    `hint` says what to do where nobody can be asked, if it is not `--yes` and `--reason`.

    Raises:
        RequestError: `request.confirmation_needed`: nobody can be asked, and `--yes` or `--reason` is missing; or something else was typed.
    """
    if yes:
        if not reason:
            raise RequestError("request.confirmation_needed", "--yes needs --reason")
        return
    if no_input or not sys.stdin.isatty():
        raise RequestError(
            "request.confirmation_needed", f"{question}: nobody is there to answer", hint=hint
        )
    if click.prompt(question, err=True).strip() != expected:
        raise RequestError("request.confirmation_needed", "not what was asked for; nothing done")


def give_up(code: str, detail: str) -> NoReturn:
    """End the command with a caller's error."""
    raise RequestError(code, detail)


# --- text ----------------------------------------------------------------------------------------------------------------


def render_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a plain table: headings in capitals, columns as wide as needed."""
    heads = [name.rpartition(".")[2].upper() for name in columns]
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    )


def printable(text: str) -> str:
    """Take control characters out of untrusted text: it is printed on a terminal."""
    return "".join(char if char.isprintable() or char == " " else "?" for char in text)


def _field(plain: Any, name: str) -> str:
    for part in name.split("."):
        plain = plain.get(part, "") if isinstance(plain, dict) else ""
    if isinstance(plain, list | tuple):
        return ", ".join(printable(str(one)) for one in plain)
    return printable("" if plain is None else str(plain))


def _line(text: str) -> None:
    click.echo(text)
