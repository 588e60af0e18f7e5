"""Pack an image file into a payload container, in one pass over the image.

Zero blocks are left out; a block that was met before is stored once. Segments are compressed side by side, and the result is the same bytes however many
threads worked on it.
"""

import hashlib
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from tidegate.core.errors import PublisherError
from tidegate.core.payload import (
    BLOCK_SIZE,
    OPERATIONS_MAX,
    PLAIN,
    SEGMENT_SIZE,
    TAKE,
    ZERO,
    Operation,
    Segment,
    encode_head,
)

#: Level of what is published: packed once, downloaded by every device.
PUBLISH_LEVEL: Final = 19
#: Level for laboratories, where somebody waits.
LAB_LEVEL: Final = 3
_ZEROS: Final = bytes(BLOCK_SIZE)
#: With more pieces than this, repeated blocks are stored again rather than referred to.
_PIECES_MAX: Final = OPERATIONS_MAX // 2

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Packed:
    """What was written: digests and sizes of image and container.

    Attributes:
        image_size: bytes of the image.
        image_sha256: digest of the image: of the slot afterwards.
        length: bytes of the container.
        sha256: digest of the container.
        index_sha256: digest of its header and index.
    """

    image_size: int
    image_sha256: str
    length: int
    sha256: str
    index_sha256: str


def pack(
    image: Path,
    out: Path,
    *,
    level: int = PUBLISH_LEVEL,
    segment_size: int = SEGMENT_SIZE,
    jobs: int = 2,
    progress: Progress | None = None,
) -> Packed:
    """Write the container of `image` to `out`.

    Args:
        image: the image file; it is padded with zeros to whole blocks inside the container, and cut again when unpacked.
        out: replaced when the whole container is written.
        level: zstd level, 1 to 19.
        segment_size: plain bytes of a segment.
        jobs: threads that compress.
        progress: called with bytes done and bytes in all.

    Raises:
        PublisherError: `release.malformed`: an empty image, or one too scattered for the format.
    """
    size = image.stat().st_size
    if size == 0:
        raise PublisherError("release.malformed", f"{image.name} is empty")
    with (
        tempfile.TemporaryFile(dir=out.parent) as bodies,
        image.open("rb") as source,
        ThreadPoolExecutor(jobs) as pool,
    ):
        stream = _Stream()
        digest = hashlib.sha256()
        segments = _Segments(pool, bodies, level, jobs * 2)
        for part in _plain_segments(source, stream, digest, segment_size, size, progress):
            segments.add(part)
        segments.finish()
        head = encode_head(
            image_size=size,
            segment_size=segment_size,
            target_sha256=digest.digest(),
            operations=tuple(stream.operations),
            segments=tuple(segments.done),
        )
        length, sha256 = _join(head, bodies, out)
    return Packed(size, digest.hexdigest(), length, sha256, hashlib.sha256(head).hexdigest())


@dataclass
class _Stream:
    """Sorts blocks into operations while they pass."""

    operations: list[Operation] = field(default_factory=list)
    length: int = 0
    _known: dict[bytes, int] = field(default_factory=dict)

    def take(self, block: bytes) -> bool:
        """Note where a block comes from; True when it is new and belongs into T."""
        if block == _ZEROS:
            self._extend(ZERO, 0)
            return False
        name = hashlib.sha256(block).digest()
        start = self._known.get(name)
        if start is not None and len(self.operations) < _PIECES_MAX:
            self._extend(TAKE, start)
            return False
        self._known.setdefault(name, self.length)
        self._extend(TAKE, self.length)
        self.length += 1
        return True

    def _extend(self, kind: int, start: int) -> None:
        if self.operations:
            last = self.operations[-1]
            if last.kind == kind and (kind == ZERO or last.start + last.length == start):
                self.operations[-1] = Operation(kind, last.start, last.length + 1)
                return
        self.operations.append(Operation(kind, start, 1))


class _Segments:
    """Compresses segments on a few threads and writes them in order; at most `ahead` wait in memory."""

    def __init__(self, pool: ThreadPoolExecutor, out: BinaryIO, level: int, ahead: int) -> None:
        self.done: list[Segment] = []
        self._pool, self._out, self._level, self._ahead = pool, out, level, ahead
        self._waiting: deque[tuple[bytes, int, Future[bytes]]] = deque()

    def add(self, plain: bytes) -> None:
        digest = hashlib.sha256(plain).digest()
        self._waiting.append((digest, len(plain), self._pool.submit(_compress, plain, self._level)))
        while len(self._waiting) > self._ahead:
            self._write()

    def finish(self) -> None:
        while self._waiting:
            self._write()

    def _write(self) -> None:
        digest, size, future = self._waiting.popleft()
        stored = future.result()
        self._out.write(stored)
        stored_digest = hashlib.sha256(stored).digest()
        self.done.append(Segment(PLAIN, 0, len(stored), stored_digest, size, digest))


def _compress(plain: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_content_size=True).compress(plain)


def _plain_segments(
    source: BinaryIO,
    stream: _Stream,
    digest: "hashlib._Hash",
    segment_size: int,
    size: int,
    progress: Progress | None,
) -> Iterator[bytes]:
    """Yield T in segments while the image is read."""
    waiting = bytearray()
    done = 0
    while chunk := source.read(SEGMENT_SIZE):
        digest.update(chunk)
        done += len(chunk)
        chunk += bytes(-len(chunk) % BLOCK_SIZE)
        for at in range(0, len(chunk), BLOCK_SIZE):
            block = chunk[at : at + BLOCK_SIZE]
            if stream.take(block):
                waiting += block
                if len(waiting) == segment_size:
                    yield bytes(waiting)
                    waiting.clear()
        if progress is not None:
            progress(done, size)
    if done != size:
        raise PublisherError("release.malformed", "the image changed while it was read")
    if waiting:
        yield bytes(waiting)


def _join(head: bytes, bodies: BinaryIO, out: Path) -> tuple[int, str]:
    digest = hashlib.sha256(head)
    bodies.seek(0)
    part = out.with_name(out.name + ".part")
    with part.open("wb") as sink:
        sink.write(head)
        while chunk := bodies.read(SEGMENT_SIZE):
            digest.update(chunk)
            sink.write(chunk)
        length = sink.tell()
    shutil.move(part, out)
    return length, digest.hexdigest()
