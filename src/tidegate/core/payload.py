"""The payload container: how the bytes of an image travel. Format: `docs/reference/payload.md`.

One format for whole images and for deltas: a full payload is a patch without a base. The index in front says which blocks of the target come from the
base (`c`), from the target stream T (`t`) or are zeros (`z`), and cuts T into segments, each an independent zstd frame with the digest of its stored and
of its plain bytes. The signed release metadata hold the digest of header and index, and of the whole file.

This version reads every container of format 1 and unpacks those without a base. Everything is checked against a limit before anything of that size is
allocated, and a segment's stored bytes are hashed before a decoder sees them.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import zstandard

from tidegate.core.errors import PublisherError, TransferError

MAGIC: Final = b"TDGP"
FORMAT: Final = 1
BLOCK_SIZE: Final = 4096
SEGMENT_SIZE: Final = 1 << 20
HEADER_SIZE: Final = 16

#: Limits of the format; a container beyond one of them is refused.
STORED_INDEX_MAX: Final = 2 << 20
RAW_INDEX_MAX: Final = 4 << 20
SEGMENT_MAX: Final = 4 << 20
IMAGE_MAX: Final = 1 << 40
OPERATIONS_MAX: Final = 1 << 18
REFERENCE_MAX: Final = 16 << 20
_WINDOW_MAX: Final = 8 << 20
_PAGE: Final = 64 << 10

_HEADER: Final = struct.Struct("<4sHHII")
_VARINT_MAX: Final = 1 << 56

COPY, TAKE, ZERO = 0x63, 0x74, 0x7A  # c, t, z
PLAIN, DIFF = 0, 1


@dataclass(frozen=True, slots=True)
class Operation:
    """Where the next `length` blocks of the target come from. `start` is a block of the base (`c`) or of T (`t`); zeros have none."""

    kind: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Write:
    """Copy `length` plain bytes of a segment from `offset` in it to `target_offset` in the slot."""

    offset: int
    target_offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of T.

    Attributes:
        kind: 0 = zstd frame; 1 = difference against the base.
        offset: where its stored bytes begin in the container.
        stored_length: how many they are.
        stored_sha256: raw digest of the stored bytes.
        plain_length: bytes after unpacking.
        plain_sha256: raw digest of those.
        pages: runs (start, count) of 64 KiB pages of the reference stream that a difference needs.
    """

    kind: int
    offset: int
    stored_length: int
    stored_sha256: bytes
    plain_length: int
    plain_sha256: bytes
    pages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Index:
    """A parsed index. All of it was checked as a whole: operations cover the target exactly once, sources lie inside what they name."""

    image_size: int
    segment_size: int
    base_sha256: str | None
    target_sha256: str
    reference: tuple[tuple[int, int], ...]
    operations: tuple[Operation, ...]
    segments: tuple[Segment, ...]
    head_size: int
    _writes: dict[int, list[Write]] = field(repr=False, compare=False)

    @property
    def length(self) -> int:
        """Return the size of the whole container, in bytes."""
        last = self.segments[-1] if self.segments else None
        return last.offset + last.stored_length if last else self.head_size

    @classmethod
    def parse(cls, head: bytes) -> "Index":
        """Parse header and stored index (untrusted until its digest was compared, bounded in any case).

        Raises:
            PublisherError: `sig.malformed`, or `compat.agent` for a format that this version does not know.
            TransferError: `download.truncated`: fewer bytes than the header promises.
        """
        stored, raw_length = head_lengths(head)
        if len(head) < HEADER_SIZE + stored:
            raise TransferError("download.truncated", "the payload's index ends early")
        frame = head[HEADER_SIZE : HEADER_SIZE + stored]
        return _read_index(_unpack(frame, raw_length, "index"), HEADER_SIZE + stored)

    def require_supported(self) -> None:
        """Refuse what this version can parse and not unpack: anything that needs a base.

        Raises:
            PublisherError: `compat.agent`.
        """
        if (
            self.base_sha256 is not None
            or any(one.kind == COPY for one in self.operations)
            or any(one.kind != PLAIN for one in self.segments)
        ):
            raise PublisherError("compat.agent", "a delta payload, which needs a newer agent")

    def writes(self, number: int) -> list[Write]:
        """Return where the plain bytes of segment `number` go, in order of the target."""
        return self._writes.get(number, [])

    def zeros(self) -> Iterator[tuple[int, int]]:
        """Yield (offset, length), in bytes, of every range of the slot that must read as zeros."""
        at = 0
        for one in self.operations:
            size = min(one.length * BLOCK_SIZE, self.image_size - at)
            if one.kind == ZERO:
                yield at, size
            at += size

    def resume_at(self, offset: int) -> int:
        """Return the number of the first segment that begins at or after `offset` in the container."""
        for number, one in enumerate(self.segments):
            if one.offset >= offset:
                return number
        return len(self.segments)


def head_lengths(header: bytes) -> tuple[int, int]:
    """Read the first 16 bytes (untrusted): lengths of the stored and of the raw index, both within their limits.

    Raises:
        PublisherError: `sig.malformed` or `compat.agent`.
        TransferError: `download.truncated`.
    """
    if len(header) < HEADER_SIZE:
        raise TransferError("download.truncated", "the payload's header ends early")
    magic, version, flags, stored, raw = _HEADER.unpack_from(header)
    if magic != MAGIC:
        raise PublisherError("sig.malformed", "not a payload container")
    if version != FORMAT or flags != 0:
        raise PublisherError("compat.agent", f"payload format {version}.{flags} is not known here")
    if not 0 < stored <= STORED_INDEX_MAX or not 0 < raw <= RAW_INDEX_MAX:
        raise PublisherError("sig.malformed", "the payload's index is larger than its limit")
    return stored, raw


def head_size(header: bytes) -> int:
    """Return how many bytes header and stored index take, from the first 16: what `index_sha256` covers."""
    return HEADER_SIZE + head_lengths(header)[0]


def decode_segment(index: Index, number: int, stored: bytes) -> bytes:
    """Unpack one segment: length, stored digest, declared size, decoding, plain digest, in this order.

    Args:
        index: from a head whose digest was compared with the signed one.
        number: which segment.
        stored: its stored bytes (untrusted).

    Raises:
        TransferError, PublisherError: see `require_stored` and `unpack_segment`.
    """
    require_stored(index, number, stored)
    return unpack_segment(index, number, stored)


def require_stored(index: Index, number: int, stored: bytes | bytearray) -> None:
    """Hold the stored bytes of a segment (untrusted) against the index, before anything decodes them.

    Raises:
        TransferError: `download.truncated` or `download.hash`: other bytes than were signed.
    """
    segment = index.segments[number]
    if len(stored) != segment.stored_length:
        raise TransferError(
            "download.truncated",
            f"segment {number}: {len(stored)} of {segment.stored_length} bytes",
        )
    if hashlib.sha256(stored).digest() != segment.stored_sha256:
        raise TransferError("download.hash", f"segment {number}")


def unpack_segment(index: Index, number: int, stored: bytes | bytearray) -> bytes:
    """Unpack a segment whose stored bytes were found right: declared size, decoding, plain digest, in this order.

    Raises:
        PublisherError: `sig.malformed`: the signed bytes do not unpack to what was signed; `compat.agent`: a kind that this version cannot unpack.
    """
    segment = index.segments[number]
    if segment.kind != PLAIN:
        raise PublisherError("compat.agent", f"segment {number}: a difference against a base")
    plain = _unpack(stored, segment.plain_length, f"segment {number}")
    if hashlib.sha256(plain).digest() != segment.plain_sha256:
        raise PublisherError("sig.malformed", f"segment {number}: unpacks to other bytes")
    return plain


def _unpack(frame: bytes | bytearray, size: int, where: str) -> bytes:
    """Decode one zstd frame that must declare and give exactly `size` bytes (the decoder's own limit is no limit)."""
    try:
        declared = zstandard.get_frame_parameters(frame)
        if declared.content_size != size or declared.window_size > max(_WINDOW_MAX, size):
            raise PublisherError("sig.malformed", f"{where}: declares another size")
        decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
        plain = decoder.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise PublisherError("sig.malformed", f"{where}: {error}"[:200]) from error
    if len(plain) != size:
        raise PublisherError("sig.malformed", f"{where}: of another size than declared")
    return plain


def stored_max(plain_length: int) -> int:
    """Return the most bytes that a segment may take stored: zstd's own bound for bytes that do not compress."""
    return plain_length + (plain_length >> 8) + 128


# --- reading the index --------------------------------------------------------------------------------------------------


class _Reader:
    """Reads the raw index; every number is bounded, every read checked."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def number(self, most: int, what: str) -> int:
        value = shift = 0
        while True:
            if self._at >= len(self._raw) or shift > 56:
                raise PublisherError("sig.malformed", f"payload index: {what} is cut or too long")
            byte = self._raw[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        if value > most:
            raise PublisherError("sig.malformed", f"payload index: {what} {value} is over {most}")
        return value

    def difference(self, what: str) -> int:
        value = self.number(_VARINT_MAX, what)
        return (value >> 1) ^ -(value & 1)

    def take(self, count: int, what: str) -> bytes:
        if self._at + count > len(self._raw):
            raise PublisherError("sig.malformed", f"payload index: {what} is cut")
        found = self._raw[self._at : self._at + count]
        self._at += count
        return found

    def runs(self, most: int, what: str) -> tuple[tuple[int, int], ...]:
        """Read (gap, length) pairs as (start, length); `most` bounds where the last one ends."""
        found = []
        at = 0
        for _ in range(self.number(OPERATIONS_MAX, what)):
            start = at + self.number(most, what)
            length = self.number(most, what)
            at = start + length
            if length == 0 or at > most:
                raise PublisherError("sig.malformed", f"payload index: {what} out of range")
            found.append((start, length))
        return tuple(found)

    @property
    def left(self) -> int:
        return len(self._raw) - self._at


def _read_index(raw: bytes, head: int) -> Index:
    reader = _Reader(raw)
    image_size = reader.number(IMAGE_MAX, "image size")
    if reader.number(1 << 20, "block size") != BLOCK_SIZE:
        raise PublisherError("compat.agent", f"a payload whose blocks are not {BLOCK_SIZE} bytes")
    segment_size = reader.number(SEGMENT_MAX, "segment size")
    if segment_size == 0 or segment_size % BLOCK_SIZE:
        raise PublisherError("sig.malformed", "payload index: segments are not whole blocks")
    based = reader.number(1, "base flag")
    base = reader.take(32, "base digest").hex() if based else None
    target = reader.take(32, "target digest").hex()
    reference = reader.runs(IMAGE_MAX // BLOCK_SIZE, "reference runs")
    operations, stream = _read_operations(reader, -(-image_size // BLOCK_SIZE))
    segments = _read_segments(reader, stream * BLOCK_SIZE, segment_size, head)
    if reader.left:
        raise PublisherError("sig.malformed", "payload index: bytes after its end")
    if base is None and (reference or any(one.kind == COPY for one in operations)):
        raise PublisherError("sig.malformed", "payload index: copies without a base")
    _check_reference(reference, segments, based=base is not None)
    writes = _writes(operations, image_size, segment_size)
    return Index(
        image_size, segment_size, base, target, reference, operations, segments, head, writes
    )


def _read_operations(reader: _Reader, blocks: int) -> tuple[tuple[Operation, ...], int]:
    """Read operations; together they cover `blocks` exactly. Returns them and the length of T, in blocks."""
    count = reader.number(min(OPERATIONS_MAX, blocks), "number of operations")
    operations = []
    covered = stream = 0
    last = {COPY: 0, TAKE: 0}
    for _ in range(count):
        kind = reader.take(1, "operation")[0]
        if kind not in (COPY, TAKE, ZERO):
            raise PublisherError("sig.malformed", f"payload index: operation {kind:#x}")
        start = last[kind] + reader.difference("operation start") if kind != ZERO else 0
        length = reader.number(blocks - covered, "operation length")
        # T grows in order of first use: an operation may look back into T or go on at its end, never leave a gap
        if length == 0 or start < 0 or (kind == TAKE and start > stream):
            raise PublisherError("sig.malformed", "payload index: an operation out of range")
        if kind == COPY and start + length > IMAGE_MAX // BLOCK_SIZE:
            raise PublisherError("sig.malformed", "payload index: a copy out of range")
        if kind != ZERO:
            last[kind] = start + length
        if kind == TAKE:
            stream = max(stream, start + length)
        covered += length
        operations.append(Operation(kind, start, length))
    if covered != blocks:
        raise PublisherError("sig.malformed", f"payload index: {covered} of {blocks} blocks")
    return tuple(operations), stream


def _read_segments(
    reader: _Reader, stream: int, segment_size: int, head: int
) -> tuple[Segment, ...]:
    count = reader.number(-(-stream // segment_size), "number of segments")
    if count != -(-stream // segment_size):
        raise PublisherError("sig.malformed", "payload index: segments do not make up T")
    segments = []
    offset = head
    for number in range(count):
        plain = min(segment_size, stream - number * segment_size)
        kind = reader.number(255, "segment kind")
        if kind not in (PLAIN, DIFF):
            raise PublisherError("compat.agent", f"segment kind {kind} is not known here")
        stored = reader.number(stored_max(plain), "stored length")
        digests = reader.take(64, "segment digests")
        pages = reader.runs(REFERENCE_MAX // _PAGE, "reference pages")
        segments.append(Segment(kind, offset, stored, digests[:32], plain, digests[32:], pages))
        offset += stored
    return tuple(segments)


def _check_reference(
    reference: tuple[tuple[int, int], ...], segments: tuple[Segment, ...], *, based: bool
) -> None:
    """Every page of the reference stream that a segment names lies inside it; a segment without base names none."""
    pages = -(-sum(length for _, length in reference) * BLOCK_SIZE // _PAGE)
    for number, one in enumerate(segments):
        if one.kind == DIFF and not based:
            raise PublisherError("sig.malformed", f"segment {number}: a difference without a base")
        if one.pages and (one.kind == PLAIN or sum(one.pages[-1]) > pages):
            raise PublisherError("sig.malformed", f"segment {number}: reference out of range")


def _writes(
    operations: tuple[Operation, ...], image_size: int, segment_size: int
) -> dict[int, list[Write]]:
    """Split what is taken from T at the borders of segments. Bounded by operations + blocks of the target."""
    found: dict[int, list[Write]] = {}
    at = 0
    for one in operations:
        size = min(one.length * BLOCK_SIZE, image_size - at)
        if one.kind == TAKE:
            source, target, left = one.start * BLOCK_SIZE, at, size
            while left:
                number, offset = divmod(source, segment_size)
                part = min(left, segment_size - offset)
                found.setdefault(number, []).append(Write(offset, target, part))
                source, target, left = source + part, target + part, left - part
        at += size
    return found


# --- writing the index --------------------------------------------------------------------------------------------------


def encode_head(
    *,
    image_size: int,
    segment_size: int,
    target_sha256: bytes,
    operations: tuple[Operation, ...],
    segments: tuple[Segment, ...],
    base_sha256: bytes | None = None,
    reference: tuple[tuple[int, int], ...] = (),
) -> bytes:
    """Write header and stored index. `offset` and `plain_length` of the segments are implied and not written."""
    raw = bytearray()
    for value in (image_size, BLOCK_SIZE, segment_size, int(base_sha256 is not None)):
        _put(raw, value)
    raw += (base_sha256 or b"") + target_sha256
    _put_runs(raw, reference)
    _put(raw, len(operations))
    last = {COPY: 0, TAKE: 0}
    for one in operations:
        raw.append(one.kind)
        if one.kind != ZERO:
            difference = one.start - last[one.kind]
            _put(raw, difference << 1 if difference >= 0 else ((-difference) << 1) - 1)
            last[one.kind] = one.start + one.length
        _put(raw, one.length)
    _put(raw, len(segments))
    for segment in segments:
        _put(raw, segment.kind)
        _put(raw, segment.stored_length)
        raw += segment.stored_sha256 + segment.plain_sha256
        _put_runs(raw, segment.pages)
    frame = zstandard.ZstdCompressor(level=19, write_content_size=True).compress(bytes(raw))
    if len(raw) > RAW_INDEX_MAX or len(frame) > STORED_INDEX_MAX:
        raise PublisherError("release.malformed", "the image is too large or too scattered")
    return _HEADER.pack(MAGIC, FORMAT, 0, len(frame), len(raw)) + frame


def _put(raw: bytearray, value: int) -> None:
    while value >= 0x80:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    raw.append(value)


def _put_runs(raw: bytearray, runs: tuple[tuple[int, int], ...]) -> None:
    _put(raw, len(runs))
    at = 0
    for start, length in runs:
        _put(raw, start - at)
        _put(raw, length)
        at = start + length
