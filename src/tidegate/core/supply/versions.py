"""Which of two versions is older, as each packaging world orders them. Nothing here decides about firmware: that is `release_counter`'s work.

Sources: Debian Policy 5.6.12 and dpkg's `verrevcmp`; RPM's `rpmvercmp` with `~` and `^`; Semantic Versioning 2.0.0 section 11; PEP 440. Every order is
total: what does not read as a version of its world comes before everything that does, so that a strange version counts as old rather than as mended.
"""

import re
from functools import cmp_to_key
from itertools import zip_longest
from typing import Any, Final, Literal

Order = Literal["deb", "rpm", "semver", "pep440", "generic"]

_ORDERS: Final[dict[str, Order]] = {
    "deb": "deb",
    "rpm": "rpm",
    "pypi": "pep440",
    "npm": "semver",
    "cargo": "semver",
    "golang": "semver",
    "hex": "semver",
    "pub": "semver",
    "swift": "semver",
    "nuget": "semver",
    "composer": "semver",
    "githubactions": "semver",
}
#: Digits of a number that are compared as a number; longer ones are no versions but attacks on the converter.
_DIGITS_MAX: Final = 4_000


def order_of(purl_type: str) -> Order:
    """Return the order in which packages of a purl type stand."""
    return _ORDERS.get(purl_type, "generic")


def compare(order: Order, one: str, other: str) -> int:
    """Return less than, equal to or greater than 0 as `one` is older than, as old as or newer than `other`. Both are untrusted texts."""
    match order:
        case "deb":
            return _deb(one, other)
        case "rpm":
            return _rpm(one, other)
        case "semver":
            return _by_key(_semver(one), _semver(other), one, other)
        case "pep440":
            return _by_key(_pep440(one), _pep440(other), one, other)
        case "generic":
            return _generic(one, other)


def below(order: Order, version: str, limit: str) -> bool:
    """Say whether `version` is older than a `limit` that a person typed.

    People leave the epoch out (`3.0.17` for what Debian may call `1:3.0.17-1`); without one in the limit, epochs are not compared.
    """
    if order in {"deb", "rpm"} and ":" not in limit:
        version = version.partition(":")[2] if _has_epoch(version) else version
    return compare(order, version, limit) < 0


def sort_key(order: Order) -> Any:
    """Return a key for `sorted`."""
    return cmp_to_key(lambda one, other: compare(order, one, other))


def _has_epoch(version: str) -> bool:
    epoch, colon, _ = version.partition(":")
    return bool(colon) and epoch.isascii() and epoch.isdigit()


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def _number(digits: str) -> int:
    return int(digits[:_DIGITS_MAX] or "0")


def _by_key(left: Any, right: Any, one: str, other: str) -> int:
    if left is None or right is None:
        if left is None and right is None:
            return _generic(one, other)
        return -1 if left is None else 1
    return _sign(left, right)


# --- Debian ------------------------------------------------------------------------------------------------------------


def _deb(one: str, other: str) -> int:
    left, right = _parts(one), _parts(other)
    return (
        _sign(left[0], right[0]) or _verrevcmp(left[1], right[1]) or _verrevcmp(left[2], right[2])
    )


def _parts(version: str) -> tuple[int, str, str]:
    """Split into epoch, upstream version and revision (rpm: release); without one, it is empty."""
    version = version.strip()
    epoch = 0
    if _has_epoch(version):
        text, _, version = version.partition(":")
        epoch = _number(text)
    upstream, dash, revision = version.rpartition("-")
    return (epoch, upstream, revision) if dash else (epoch, version, "")


def _weight(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isascii() and char.isalpha() else ord(char) + 256


def _verrevcmp(one: str, other: str) -> int:
    left, right = _alternating(one), _alternating(other)
    for number, (mine, theirs) in enumerate(zip_longest(left, right, fillvalue="")):
        pair = (_number(mine), _number(theirs)) if number % 2 else _weights(mine, theirs)
        found = _sign(*pair)
        if found:
            return found
    return 0


def _alternating(text: str) -> list[str]:
    """Split a text so that words stand at even places and numbers at odd ones."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return ["", *parts] if parts and parts[0][0] in "0123456789" else parts


def _weights(one: str, other: str) -> tuple[list[int], list[int]]:
    longest = max(len(one), len(other))

    def weigh(text: str) -> list[int]:
        return [_weight(char) for char in text] + [0] * (longest - len(text))

    return weigh(one), weigh(other)


# --- RPM ---------------------------------------------------------------------------------------------------------------


def _rpm(one: str, other: str) -> int:
    left, right = _parts(one), _parts(other)
    return (
        _sign(left[0], right[0]) or _rpmvercmp(left[1], right[1]) or _rpmvercmp(left[2], right[2])
    )


_RPM_PART: Final = re.compile(r"[0-9]+|[A-Za-z]+|~|\^")


def _rpmvercmp(one: str, other: str) -> int:
    """Compare as rpm does: `~` before the end, the end before `^`, letters before numbers, more parts after fewer."""
    for mine, theirs in zip_longest(_RPM_PART.findall(one), _RPM_PART.findall(other), fillvalue=""):
        found = _sign(_rpm_rank(mine), _rpm_rank(theirs))
        if found:
            return found
    return 0


def _rpm_rank(part: str) -> tuple[int, int, str]:
    if part == "~":
        return (0, 0, "")
    if not part:
        return (1, 0, "")
    if part == "^":
        return (2, 0, "")
    return (4, _number(part), "") if part[0] in "0123456789" else (3, 0, part)


# --- semantic versions -------------------------------------------------------------------------------------------------

_SEMVER: Final = re.compile(
    r"v?([0-9]+(?:\.[0-9]+){0,3})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]*)?"
)


def _semver(version: str) -> tuple[Any, ...] | None:
    found = _SEMVER.fullmatch(version.strip())
    if found is None:
        return None
    numbers = [_number(one) for one in found[1].split(".")]
    numbers += [0] * (4 - len(numbers))
    if found[2] is None:
        return (*numbers, 1, ())
    before = tuple(
        (0, _number(one), "") if one.isdigit() else (1, 0, one) for one in found[2].split(".")
    )
    return (*numbers, 0, before)


# --- PEP 440 -----------------------------------------------------------------------------------------------------------

_PEP440: Final = re.compile(
    r"""v?(?:(?P<epoch>[0-9]+)!)?(?P<release>[0-9]+(?:\.[0-9]+)*)
    (?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_n>[0-9]*))?
    (?:-(?P<post_n1>[0-9]+)|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_n2>[0-9]*))?
    (?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_n>[0-9]*))?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_PRE: Final = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_LOW: Final = (-1,)
_HIGH: Final = (1,)


def _pep440(version: str) -> tuple[Any, ...] | None:
    found = _PEP440.fullmatch(version.strip())
    if found is None:
        return None
    numbers = [_number(one) for one in found["release"].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    pre, dev = found["pre"], found["dev"]
    post = found["post_n1"] if found["post_n1"] is not None else found["post"] and found["post_n2"]
    ends_before = dev is not None and pre is None and post is None
    word = (pre or "").lower()
    return (
        _number(found["epoch"] or ""),
        tuple(numbers),
        _LOW
        if ends_before
        else (0, _PRE.get(word, word), _number(found["pre_n"]))
        if pre
        else _HIGH,
        _LOW if post is None else (0, _number(post)),
        _HIGH if dev is None else (0, _number(found["dev_n"])),
        _local(found["local"]),
    )


def _local(text: str | None) -> tuple[Any, ...]:
    if text is None:
        return (-1,)
    parts = re.split(r"[-_.]", text.lower())
    return (0, *((1, _number(one), "") if one.isdigit() else (0, 0, one) for one in parts))


# --- everything else ---------------------------------------------------------------------------------------------------

_GENERIC_PART: Final = re.compile(r"[0-9]+|[a-z]+|~")
#: Words that make a version come before the one without them.
_BEFORE: Final = frozenset(
    {"~", "alpha", "beta", "dev", "m", "milestone", "pre", "preview", "rc", "snapshot"}
)


def _generic(one: str, other: str) -> int:
    """Compare numbers as numbers and words as words; `rc`, `beta` and their like come before the end, other words after it (`1.0.2k` is after `1.0.2`)."""
    left = _GENERIC_PART.findall(one.strip().lower().removeprefix("v"))
    right = _GENERIC_PART.findall(other.strip().lower().removeprefix("v"))
    for mine, theirs in zip_longest(left, right, fillvalue=""):
        found = _sign(_generic_rank(mine), _generic_rank(theirs))
        if found:
            return found
    return 0


def _generic_rank(part: str) -> tuple[int, int, str]:
    if part in _BEFORE:
        return (0, 0, part)
    if not part:
        return (1, 0, "")
    if part[0] in "0123456789":
        number = _number(part)
        return (3, number, "") if number else (1, 0, "")  # 1.0 is 1.0.0
    return (2, 0, part)
