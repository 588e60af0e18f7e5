"""Text of strangers, made harmless: it may hold markup, control characters and lines without end.

Devices, attributes, notes and logs are all untrusted here. `line` is for one line anywhere, `block` for a log; the writers of Markdown and HTML escape what is
left for their own language.
"""

import html
import re
from typing import Final

LINE_MAX: Final = 1_000
#: Most of one line of a log.
LOG_LINE_MAX: Final = 400
#: An underscore inside a word makes no emphasis, and reasons are full of them.
_MARKED: Final = re.compile(r"([\\`*\[\]<>|#~&!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_LEADING: Final = re.compile(r"^([-+](?=\s|$)|[-=](?=[-= ])|\d{1,9}(?=[.)](?:\s|$)))")


def line(text: object, limit: int = LINE_MAX) -> str:
    """Return text as one line: no control, formatting or line-breaking character, cut to `limit` characters."""
    plain = "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for char in " ".join(str(text)[: 4 * limit].split())
    )
    return plain if len(plain) <= limit else plain[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def paragraphs(text: object, limit: int = 10_000) -> tuple[str, ...]:
    """Return text that a person wrote, as lines; empty ones are left out."""
    return tuple(found for part in str(text)[:limit].splitlines() if (found := line(part)))


def block(text: str) -> tuple[str, ...]:
    """Return the lines of a log; tabs become spaces."""
    return tuple(_log_line(part) for part in text.expandtabs(8).replace("\r\n", "\n").split("\n"))


def _log_line(text: str) -> str:
    plain = "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for char in text[: LOG_LINE_MAX + 1]
    )
    if len(plain) > LOG_LINE_MAX:
        return plain[: LOG_LINE_MAX - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return plain.rstrip()


def markdown(text: object) -> str:
    """Return one line that is text in Markdown, whatever it says: no link, heading, list, table, code, formula or HTML."""
    marked = _MARKED.sub(r"\\\1", line(text))
    marked = marked.replace("://", r"\://").replace("www.", r"www\.")
    return _LEADING.sub(lambda found: _escaped(found[1]), marked)


def _escaped(lead: str) -> str:
    # A number that begins a line makes a list only with the point behind it: an entity for its first digit keeps it text.
    return f"&#{ord(lead[0])};{lead[1:]}" if lead[0].isdigit() else f"\\{lead}"


def markup(text: object) -> str:
    """Return one line that is text in HTML and Atom."""
    return html.escape(line(text))


def fence(lines: tuple[str, ...]) -> str:
    """Return a fence that no line of a log can close."""
    longest = max((len(run) for one in lines for run in re.findall(r"`+", one)), default=0)
    return "`" * max(3, longest + 1)
