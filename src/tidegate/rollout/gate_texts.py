"""Gates as one line of text, as a person types them in a form or an option: `minimum_sample healthy=50 patience=7d; soak time=24h`. Pure.

A name, then its settings as `key=value`; the next gate stands behind a semicolon. Quotes keep blanks together. What a gate and its settings mean is checked
where a policy file's are (`rollout.presets`): the text only says the same as its tables.
"""

import re
import shlex
from collections.abc import Iterable
from typing import Any, Final

from tidegate.core.errors import RequestError
from tidegate.rollout.model import GateSpec

_WHOLE: Final = re.compile(r"-?[0-9]{1,15}")
_BROKEN: Final = re.compile(r"-?[0-9]{1,15}\.[0-9]{1,15}")
#: Longest text that is read.
MOST: Final = 2_000


def read(text: str, where: str) -> list[dict[str, Any]]:
    """Return gates (untrusted text) as the tables of a policy file; `none` and an empty text are no gates.

    Raises:
        RequestError: `request.invalid`: quotes that do not close, or a setting without `=`.
    """
    if len(text) > MOST:
        raise RequestError("request.invalid", f"{where}: more than {MOST} characters")
    if text.strip() in {"", "none"}:
        return []
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";")
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise RequestError("request.invalid", f"{where}: {error}") from error
    found: list[list[str]] = [[]]
    for word in words:
        if set(word) == {";"}:
            found.append([])
        else:
            found[-1].append(word)
    return [_gate(one, where) for one in found if one]


def write(specs: Iterable[GateSpec]) -> str:
    """Return gates as text; `none` where there are none."""
    return "; ".join(_written(one) for one in specs) or "none"


def _gate(words: list[str], where: str) -> dict[str, Any]:
    kind, *settings = words
    found: dict[str, Any] = {"type": kind}
    for word in settings:
        key, mark, value = word.partition("=")
        if not mark or not key:
            text = (
                f"{where}: {kind} has {word[:40]!r}, and not KEY=VALUE; gates are told apart by ;"
            )
            raise RequestError("request.invalid", text)
        found[key] = _value(value)
    return found


def _value(text: str) -> int | float | str:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _BROKEN.fullmatch(text) else text


def _written(spec: GateSpec) -> str:
    settings = [f"{key}={_quoted(value)}" for key, value in spec.settings.items()]
    return " ".join([spec.gate, *settings])


def _quoted(value: float | str) -> str:
    """Write a value; a text with a comma, as of several gates, needs no quotes."""
    text = str(value)
    return text if re.fullmatch(r"[\w.,:%/+-]+", text) else shlex.quote(text)
