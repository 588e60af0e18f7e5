"""What a file system that keeps no more than its promise leaves of a folder after a power cut.

POSIX promises little: bytes are there once `fsync` of their file returned; a new, renamed or removed name once `fsync` of its folder returned. Until then, of a
journalling file system, names change in the order of the calls, as far as they came; and a file holds what it held at its last `fsync`, with any part of what
was done to it since, zeros in the place of bytes that did not arrive included. Real file systems often keep more than that (ext4 flushes
what is renamed over another file): code that needs it breaks on the next one.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

SECTOR: Final = 512
Names = dict[str, int]


@dataclass
class File:
    """One file, whatever its names: what is safe, and what was done to it since."""

    safe: bytes = b""
    since: list[bytes] = field(default_factory=list)

    @property
    def now(self) -> bytes:
        """What a reader sees."""
        return self.since[-1] if self.since else self.safe

    def contents(self) -> set[bytes]:
        """Everything that it may hold after a cut."""
        found = {self.safe, *self.since}
        for before, after in zip([self.safe, *self.since], self.since, strict=False):
            grown = after.removeprefix(before)
            base = before if after.startswith(before) else b""
            found |= {base + grown[:cut] for cut in range(0, len(grown), SECTOR)}
            found.add(base + bytes(len(grown)))
        return found


class Folder:
    """One folder, and everything that is asked of the operating system about it.

    Args:
        path: of a real folder, which is used all the same.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: dict[int, File] = {}
        self.names: list[Names]
        self.left: list[dict[str, bytes]] = []
        self._open: dict[int, int | None] = {}
        found = sorted(Path(path).iterdir())
        self.names = [{one.name: self._made(one.read_bytes()) for one in found}]

    def states(self) -> Iterator[dict[str, bytes]]:
        """Return every state in which a cut at this instant may leave the folder: content by name."""
        for names in self.names:
            numbers = sorted(set(names.values()))
            every = [sorted(self.files[one].contents()) for one in numbers]
            for chosen in product(*every):
                held = dict(zip(numbers, chosen, strict=True))
                yield {name: held[number] for name, number in names.items()}

    def now(self) -> dict[str, bytes]:
        """What a reader sees without a cut."""
        return {name: self.files[number].now for name, number in self.names[-1].items()}

    # --- what is asked ------------------------------------------------------------------------------------------------

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note what is asked; before and after each of it, `left` grows by what a cut would leave."""
        with ExitStack() as stack:
            for name in ("open", "write", "fsync", "close", "rename", "unlink"):
                real = getattr(os, name)
                noted = getattr(self, f"_{name}_")
                stack.enter_context(patch.object(os, name, self._around(real, noted)))
            yield

    def _around(self, real: Any, noted: Any) -> Any:
        def asked(*arguments: Any, **named: Any) -> Any:
            made = real(*arguments, **named)
            noted(made, *arguments)
            self.left += self.states()
            return made

        return asked

    def _name(self, path: str) -> str | None:
        folder, _, name = os.fspath(path).rpartition("/")
        return name if folder == self.path else None

    def _made(self, content: bytes = b"") -> int:
        self.files[len(self.files)] = File(content)
        return len(self.files) - 1

    def _set(self, names: Names) -> None:
        self.names.append(names)

    def _open_(self, handle: int, path: str, flags: int, *rest: Any) -> None:
        name = self._name(path)
        if os.fspath(path) == self.path:
            self._open[handle] = None
        if name is None:
            return
        if name not in self.names[-1]:
            self._set({**self.names[-1], name: self._made()})
        number = self.names[-1][name]
        if flags & os.O_TRUNC and self.files[number].now:
            self.files[number].since.append(b"")
        self._open[handle] = number

    def _write_(self, done: int, handle: int, data: bytes) -> None:
        number = self._open.get(handle)
        if number is not None:
            file = self.files[number]
            file.since.append(file.now + bytes(data[:done]))

    def _fsync_(self, done: None, handle: int) -> None:
        number = self._open.get(handle)
        if number is not None:
            file = self.files[number]
            file.safe, file.since = file.now, []
        elif handle in self._open:
            self.names = self.names[-1:]

    def _close_(self, done: None, handle: int) -> None:
        self._open.pop(handle, None)

    def _rename_(self, done: None, old: str, new: str) -> None:
        names = dict(self.names[-1])
        names[str(self._name(new))] = names.pop(str(self._name(old)))
        self._set(names)

    def _unlink_(self, done: None, path: str) -> None:
        names = dict(self.names[-1])
        names.pop(str(self._name(path)), None)
        self._set(names)
