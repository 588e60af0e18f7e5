"""The tar files of bundles, read strictly: regular files one after the other and nothing else (POSIX.1-1988 ustar, `pax(1)` "ustar Interchange Format").

The standard library's reader obeys what a tar file may ask for: links, sparse maps, extended headers of any size that it reads into memory. A bundle comes
from strangers and needs none of that, so everything else than a plain member is refused here, and at most one header and one piece are held at a time.

One extension is spoken in both directions: sizes of 8 GiB and more in base 256, as GNU tar and Python write them.
"""

from collections.abc import Callable, Iterator
from typing import Final

from tidegate.core.errors import PublisherError

BLOCK: Final = 512
#: Most bytes that are read at once.
PIECE: Final = 1 << 20
_SIZE_MAX: Final = 1 << 40
_REGULAR: Final = (b"0", b"\0")
_OCTAL_MAX: Final = 8**11


def header(name: str, size: int) -> bytes:
    """Return the header of a member; equal members have equal headers, whoever writes them.

    Args:
        name: at most 100 characters, or a folder of at most 155 and a name of at most 100.
        size: length of the member, in bytes.

    Raises:
        PublisherError: `release.malformed`: the name does not fit.
    """
    raw, prefix = name.encode(), b""
    if len(raw) > 100:
        cut = raw.find(b"/", len(raw) - 101)
        prefix, raw = raw[: max(cut, 0)], raw[cut + 1 :]
        if cut < 1 or len(prefix) > 155 or not 0 < len(raw) <= 100:
            raise PublisherError("release.malformed", f"{name[:80]}... is too long for a bundle")
    length = b"%011o\0" % size if size < _OCTAL_MAX else b"\x80" + size.to_bytes(11, "big")
    block = b"".join(
        (
            raw.ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" * 2,
            length,
            b"%011o\0" % 0,
            b" " * 8,
            b"0".ljust(101, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"0000000\0" * 2,
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padding(size: int) -> bytes:
    """Return the zeros between a member of that size and the next header."""
    return bytes(-size % BLOCK)


#: What ends a file.
END: Final = bytes(2 * BLOCK)


class Reader:
    """Reads members in order.

    Args:
        read: returns up to that many bytes, fewer only at the end (untrusted content).
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0
        self._pad = 0

    def next(self) -> tuple[str, int] | None:
        """Skip what is left of the present member and return (name, size in bytes) of the next, or None at the end.

        Raises:
            PublisherError: `release.malformed`: cut short, or not a plain member.
        """
        for _ in self.pieces():
            pass
        self._exactly(self._pad)
        self._pad = 0
        block = self._exactly(BLOCK)
        if not block.strip(b"\0"):
            return None
        name, size = _parse(block)
        self._left, self._pad = size, -size % BLOCK
        return name, size

    def pieces(self) -> Iterator[bytes]:
        """Yield what is left of the present member, in pieces of at most `PIECE` bytes.

        Raises:
            PublisherError: `release.malformed`: cut short.
        """
        while self._left:
            piece = self._exactly(min(PIECE, self._left))
            self._left -= len(piece)
            yield piece

    def content(self) -> bytes:
        """Return what is left of the present member; the caller has bounded its size."""
        return b"".join(self.pieces())

    def _exactly(self, size: int) -> bytes:
        found = self._read(size) if size else b""
        while len(found) < size:
            more = self._read(size - len(found))
            if not more:
                raise PublisherError("release.malformed", "the bundle ends early")
            found += more
        return found


def _parse(block: bytes) -> tuple[str, int]:
    if block[257:262] != b"ustar":
        raise PublisherError("release.malformed", "not a bundle: no tar header where one is due")
    told = _octal(block[148:156])
    if told != sum(block[:148]) + 8 * 0x20 + sum(block[156:]):
        raise PublisherError("release.malformed", "a damaged tar header")
    name = _text(block[:100])
    # GNU tar keeps other things where POSIX keeps the folder.
    prefix = _text(block[345:500]) if block[262:263] == b"\0" else ""
    name = f"{prefix}/{name}" if prefix else name
    if block[156:157] not in _REGULAR:
        raise PublisherError("release.malformed", f"{name[:80]!r} is no plain file")
    field = block[124:136]
    size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
    if size > _SIZE_MAX:
        raise PublisherError("release.malformed", f"{name[:80]!r} claims {size} bytes")
    return name, size


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if not text or text.strip(b"01234567"):
        raise PublisherError("release.malformed", "a tar header with a number that is none")
    return int(text, 8)


def _text(field: bytes) -> str:
    try:
        return field.partition(b"\0")[0].decode()
    except UnicodeDecodeError as error:
        raise PublisherError(
            "release.malformed", "a tar header with a name that is none"
        ) from error
