"""What a boot leaves behind for the report of a trial: the end of its log, and what the kernel kept over a crash. Without what looks like a secret.

The kernel keeps its last words in pstore, one file a record, whatever holds them (RAM, EFI variables, ACPI ERST, flash): `dmesg-*` is a panic or an oops,
`console-*` all that went to the console. systemd-pstore(8) moves them away at boot, in folders by time. Nothing is deleted here: they are the system's own;
that a record was reported is remembered by its digest, so that it does not turn up in the report of another update.

Source: Documentation/admin-guide/ramoops.rst and fs/pstore of Linux; systemd-pstore(8).
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tidegate.agent import programs
from tidegate.agent.board import BOOT_ID, PSTORE
from tidegate.agent.checkup import journald
from tidegate.agent.files import replace_file
from tidegate.core.errors import DeviceError
from tidegate.core.scrub import scrub

#: Most of a whole log, and of one record, in characters: the tail of each.
LOG_MAX: Final = 12 << 10
_RECORD_MAX: Final = 6 << 10
#: Lines of a journal in a whole log.
_LINES: Final = 2_000
_READ_MAX: Final = 256 << 10
#: Records looked at and remembered; a board that crashes again and again keeps many.
_RECORDS_MAX: Final = 64
#: What a dump begins with (fs/pstore/platform.c): `Panic#1 Part2`. Part 1 is its end.
_PART: Final = re.compile(rb"^\s*([A-Za-z][A-Za-z ]*)#(\d+) Part(\d+)\b")
_KINDS: Final = ("dmesg", "console")


class Record(NamedTuple):
    """One record of pstore. `dump` and `part`: which crash of its boot it belongs to, counted from the end."""

    kind: str
    name: str
    digest: str
    dump: str
    part: int
    body: bytes


def previous(seen: str, armed_boot: str) -> str:
    """Return what the boot before this one left behind.

    Args:
        seen: file that remembers what was reported.
        armed_boot: the boot that set the boot flag, "" where it is not known. A journal that ends with it was not written by the image on trial.
    """
    known = _known(seen)
    parts = [_told(one) for one in _dumps([one for one in _records() if one.digest not in known])]
    # A journal that is kept in memory only knows no boot before this one, and shows this one instead.
    told_of = journald.boot_before()
    if told_of not in ("", _this_boot(), armed_boot.replace("-", "")):
        log = journald.tail(told_of)
        if log:
            parts.append(_section("journal of the boot before", log))
    return "".join(parts)[-LOG_MAX:]


def running() -> str:
    """Return the end of this boot's log: the journal, else the kernel's messages."""
    log = journald.tail("0")
    if not log:
        ran = programs.run(["dmesg"], journald.ASK_S)
        log = ran.output.decode("utf-8", "replace") if ran.code == 0 else ""
    return _section("log of the trial", log) if log else ""


def whole() -> str:
    """Return the ends of the journals of this boot and of the one before, else the kernel's messages."""
    before = journald.boot_before()
    named = [("journal of the boot before", before)] if before not in ("", _this_boot()) else []
    parts = [(name, journald.tail(boot, _LINES)) for name, boot in (*named, ("journal", "0"))]
    if not any(log for _, log in parts):
        ran = programs.run(["dmesg"], journald.ASK_S)
        parts = [("kernel", ran.output.decode("utf-8", "replace") if ran.code == 0 else "")]
    return "".join(f"--- {name} ---\n{log.strip()}\n" for name, log in parts if log)


def remember(seen: str) -> None:
    """Write down what is kept now: it was reported, or belongs to no trial. A medium that does not take it costs a repetition."""
    found = sorted({one.digest for one in _records()})
    if found == sorted(_known(seen)):
        return
    with contextlib.suppress(DeviceError):
        replace_file(seen, "".join(f"{one}\n" for one in found).encode())


def panicked(seen: str) -> bool:
    """Say whether the kernel kept a panic that is not known yet. An oops that it survived is none.

    Args:
        seen: file that remembers what was reported.
    """
    known = _known(seen)
    fresh = [one for one in _records() if one.kind == "dmesg" and one.digest not in known]
    return any(one.dump.startswith("Panic") for one in fresh)


def _this_boot() -> str:
    try:
        return Path(BOOT_ID).read_text("ascii").strip().replace("-", "")
    except OSError:
        return ""


def _known(seen: str) -> set[str]:
    try:
        return set(Path(seen).read_text("ascii", "replace").split())
    except OSError:
        return set()


def _records() -> list[Record]:
    """Read what is kept, the newest place last."""
    found = []
    for path in _files():
        with contextlib.suppress(OSError), path.open("rb") as file:
            body = file.read(_READ_MAX)
            digest = hashlib.sha256(body).hexdigest()
            match = _PART.match(body)
            found.append(
                Record(
                    kind=path.name.partition("-")[0],
                    name=path.name,
                    digest=digest,
                    dump="" if match is None else f"{match[1].decode()}#{match[2].decode()}",
                    part=0 if match is None else int(match[3]),
                    body=body,
                )
            )
    return list({one.digest: one for one in found}.values())


def _files() -> Iterator[Path]:
    """Yield the records' files, in the kernel's own place and where systemd put them."""
    count = 0
    for place in PSTORE:
        for folder, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                # What is still compressed (`.enc.z`) is one that the kernel could not read either.
                if name.partition("-")[0] in _KINDS and not name.endswith(".z"):
                    yield Path(folder, name)
                    count += 1
                    if count >= _RECORDS_MAX:
                        return


def _dumps(records: list[Record]) -> list[list[Record]]:
    """Put the parts of each dump together, in the order in which they were said."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for one in records:
        key = (one.kind, one.dump) if one.dump else (one.kind, one.name)
        groups.setdefault(key, []).append(one)
    return [sorted(group, key=lambda one: -one.part) for _, group in sorted(groups.items())]


def _told(dump: list[Record]) -> str:
    first = dump[0]
    text = b"".join(_PART.sub(b"", one.body, count=1) for one in dump).decode("utf-8", "replace")
    name = f"kernel {first.dump}" if first.dump else f"kernel {first.name}"
    return _section(name, text)


def _section(name: str, text: str) -> str:
    # Secrets go first: of one that is cut in two, the rest would not be known for what it is.
    return f"--- {name} ---\n{scrub(text.strip())[-_RECORD_MAX:]}\n"
