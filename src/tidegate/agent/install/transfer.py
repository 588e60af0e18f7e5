"""Streams a payload container onto a device: a slot, or a file that stands in for one. What installers share.

Order: stored hash, declared size, decode, plain hash, write; every 16 MiB flush, and only then say so. Zeros are written, because a
slot still holds the release before. The stored hash is asked where the bytes come in; what follows goes on beside the link, a few segments at a time.

**What is fetched again.** When the link fails, or a pause is asked for, every whole segment that came is flushed and the begun one is kept in a small file:
nothing is lost. When the process ends, or the power goes, the device itself is asked: the last interval is read back and held against the plain hashes, and
from there on every segment that is in its place already is taken as it is; a medium that lost flushed bytes is found here, not at boot.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Final, NamedTuple

import msgspec

from tidegate.agent.events import (
    Download,
    Downloaded,
    Progressed,
)
from tidegate.agent.install.pipeline import Pipeline, threads
from tidegate.agent.jobs import Reply
from tidegate.agent.net.download import Stream, open_stream
from tidegate.agent.places import in_slot
from tidegate.agent.ports import SlotDevice, World
from tidegate.agent.settings import Settings
from tidegate.agent.state import (
    Progress,
)
from tidegate.core.errors import DeviceError, PublisherError, TransferError
from tidegate.core.payload import HEADER_SIZE, Index, head_size, require_stored, unpack_segment
from tidegate.core.release import PayloadRef

#: Name of the file that keeps header and index of the payload under way.
HEAD_NAME: Final = "payload.head"
#: Name of the file that keeps what came of the segment at which the link failed: digest of the head, number of the segment, bytes.
PART_NAME: Final = "payload.part"
#: Fewer bytes than this are not worth a write.
PART_MIN: Final = 4096
#: Stored bytes of the segments under way between link and medium.
_ROOM_BYTES: Final = 2 << 20


class _Step(NamedTuple):
    """What is over: every segment before `done` is in its place, and durable if `flushed`. `stored_bytes` were read for it."""

    done: int
    flushed: bool = False
    stored_bytes: int = 0


class Transfer:
    """One attempt.

    Args:
        world: the device's ports.
        settings: its rates and limits.
        job: what to fetch, and how far it got before.
        token: bearer token, or None without a server.
        device: where the plain bytes go; at least as large as the image.
    """

    def __init__(
        self,
        world: World,
        settings: Settings,
        job: Download,
        token: str | None,
        device: SlotDevice,
    ) -> None:
        self._world = world
        self._settings = settings
        self._job = job
        self._token = token
        self._device = device
        self._payload: PayloadRef = job.piece.full
        #: What goes beside the slots is bound by its payload alone.
        self._slot = job.update.slot if in_slot(job.update, job.part) else ""
        self._sync_bytes = settings.sync_bytes
        #: What is durable and was said, what is in its place beyond that, and the bytes that came before this attempt.
        self._progress = self._known()
        self._done = self._base = 0

    def run(self) -> Iterator[Reply]:
        """Resume if that can be trusted, else begin. Ends with `Downloaded` when everything was flushed.

        Raises:
            TransferError: the link failed; PauseError: it was told to stop.
            PublisherError: the payload is not what was signed.
            DeviceError: this device failed.
        """
        index = self._kept_head()
        if index is None:
            yield from self._begin()
        else:
            yield from self._resume(index, self._found(index))

    def _known(self) -> Progress:
        """Return the job's progress, or none of it where it speaks of something else."""
        known, payload = self._job.progress, self._payload
        blank = Progress(
            payload_sha256=payload.sha256,
            index_sha256=payload.index_sha256,
            slot=self._slot,
        )
        if known is None:
            return blank
        mine = (payload.sha256, payload.index_sha256, self._slot)
        if (known.payload_sha256, known.index_sha256, known.slot) == mine:
            return known
        return msgspec.structs.replace(
            blank, stored_bytes=known.stored_bytes, resumes=known.resumes
        )

    def _begin(self) -> Iterator[Reply]:
        known = self._known()
        stream = self._open(0, "")
        try:
            head = self._read_head(stream)
            index = self._index(head)
            self._world.storage.write(HEAD_NAME, head)
            self._zero(index)
            self._progress = msgspec.structs.replace(
                known, segments=0, since=0, begun_bytes=0, etag=stream.etag
            )
            yield from self._segments(stream, index, b"")
        finally:
            stream.close()

    def _zero(self, index: Index) -> None:
        for offset, length in index.zeros():
            self._device.zero_at(offset, length)

    def _resume(self, index: Index, progress: Progress) -> Iterator[Reply]:
        if progress.segments >= len(index.segments):
            self._device.flush()
            yield Downloaded(now=self._now(), progress=_advanced(progress, progress.segments, 0))
            return
        part = self._kept_part(index, progress.segments)
        offset = index.segments[progress.segments].offset + len(part)
        try:
            stream = self._open(offset, progress.etag)
        except TransferError as error:
            if error.code == "download.range" and progress.etag:
                # The server holds another copy now; the next attempt does without If-Range, and the digests decide.
                forgetful = msgspec.structs.replace(self._known(), etag="")
                yield Progressed(now=self._now(), progress=forgetful)
            raise
        try:
            self._progress = msgspec.structs.replace(
                progress, etag=stream.etag, resumes=progress.resumes + 1
            )
            yield from self._segments(stream, index, part)
        finally:
            stream.close()

    def _segments(self, stream: Stream, index: Index, part: bytes) -> Iterator[Reply]:
        """Take segment after segment. `part`: what is there of the first one already."""
        self._done, self._base = self._progress.segments, self._progress.stored_bytes
        count = threads() if self._device.concurrent else 0
        with closing(Pipeline[_Step](count, _ROOM_BYTES)) as steps:
            yield from self._take(steps, stream, index, part)
        self._device.flush()
        progress = _advanced(self._progress, len(index.segments), self._base + stream.count)
        self._world.storage.delete(PART_NAME)
        yield Downloaded(now=self._now(), progress=progress)

    def _take(
        self, steps: Pipeline[_Step], stream: Stream, index: Index, part: bytes
    ) -> Iterator[Reply]:
        pending, last = 0, len(index.segments) - 1
        stored = bytearray(part)
        try:
            for number in range(self._done, last + 1):
                while len(stored) < index.segments[number].stored_length:
                    stream.read_on(stored, index.segments[number].stored_length)
                    yield from self._said(steps.over())
                require_stored(index, number, stored)
                steps.begin(partial(self._place, index, number, stored), len(stored))
                pending += index.segments[number].plain_length
                if pending >= self._sync_bytes and number < last:
                    pending = 0
                    steps.begin_after(partial(self._flush, number + 1, self._base + stream.count))
                stored = bytearray()
            yield from self._said(steps.over(wait=True))
        except TransferError as error:
            yield from self._said(steps.over(wait=True))
            if error.code == "download.hash":
                self._world.storage.delete(PART_NAME)
                stored = bytearray()
            yield from self._kept(index, stored, self._base + stream.count)
            raise

    def _said(self, steps: Iterator[_Step]) -> Iterator[Reply]:
        """Note what is in its place, and say what is durable."""
        for step in steps:
            self._done = step.done
            if step.flushed:
                self._progress = _advanced(self._progress, step.done, step.stored_bytes)
                yield Progressed(now=self._now(), progress=self._progress)

    def _place(self, index: Index, number: int, stored: bytearray) -> _Step:
        view = memoryview(unpack_segment(index, number, stored))
        for one in index.writes(number):
            self._device.write_at(one.target_offset, view[one.offset : one.offset + one.length])
        return _Step(number + 1)

    def _flush(self, done: int, stored_bytes: int) -> _Step:
        self._device.flush()
        return _Step(done, flushed=True, stored_bytes=stored_bytes)

    def _kept(self, index: Index, begun: bytearray, stored_bytes: int) -> Iterator[Reply]:
        """Make durable what came before the link failed, and say so if that is anything."""
        progress = self._progress
        same = self._done == progress.segments
        if not self._worth_keeping(begun, progress.begun_bytes if same else 0):
            begun = bytearray()
        if same and not begun:
            return
        if begun:
            number = self._done.to_bytes(4, "big")
            kept = bytes.fromhex(self._payload.index_sha256) + number + begun
            self._world.storage.write(PART_NAME, kept)
        self._device.flush()
        progress = _advanced(progress, self._done, stored_bytes)
        progress = msgspec.structs.replace(progress, begun_bytes=len(begun))
        yield Progressed(now=self._now(), progress=progress)

    def _worth_keeping(self, begun: bytearray, before: int) -> bool:
        room = self._world.storage.free_bytes() - self._settings.reserve_bytes
        return len(begun) >= before + PART_MIN and room >= len(begun) + PART_MIN

    def _kept_part(self, index: Index, number: int) -> bytes:
        """Return what was kept of a segment; its digest is asked when it is whole."""
        kept = self._world.storage.read(PART_NAME) or b""
        named = bytes.fromhex(self._payload.index_sha256) + number.to_bytes(4, "big")
        part = kept[len(named) :] if kept.startswith(named) else b""
        return part if len(part) < index.segments[number].stored_length else b""

    def _found(self, index: Index) -> Progress:
        """Ask the slot: believe the last interval only after reading it, and take what else is in its place."""
        known = self._known()
        if known.segments == 0 or known.segments > len(index.segments):
            # Whether the zeros of an attempt that ended so early were flushed, nobody knows.
            self._zero(index)
            known = msgspec.structs.replace(known, segments=0, since=0)
        at = known.since
        while at < len(index.segments) and self._holds(index, at):
            at += 1
        if at < known.segments:
            at = known.since
        return msgspec.structs.replace(known, segments=at, since=min(known.since, at))

    def _holds(self, index: Index, number: int) -> bool:
        segment = index.segments[number]
        plain = bytearray(segment.plain_length)
        for one in index.writes(number):
            part = self._device.read_at(one.target_offset, one.length)
            plain[one.offset : one.offset + one.length] = part
        return hashlib.sha256(plain).digest() == segment.plain_sha256

    # --- the index ----------------------------------------------------------------------------------------------------

    def _read_head(self, stream: Stream) -> bytes:
        header = stream.read_exactly(HEADER_SIZE)
        try:
            size = head_size(header)
        except PublisherError as error:
            # Not what was signed, so far as one can see: the bytes are wrong, not the publisher.
            raise TransferError("download.hash", error.detail) from error
        if self._world.storage.free_bytes() < size + self._settings.reserve_bytes:
            raise DeviceError("download.space", "no room for the payload's index")
        head = header + stream.read_exactly(size - HEADER_SIZE)
        if hashlib.sha256(head).hexdigest() != self._payload.index_sha256:
            raise TransferError("download.hash", "the payload's index")
        return head

    def _index(self, head: bytes) -> Index:
        index = Index.parse(head)
        index.require_supported()
        content = self._job.piece.unpacked
        if (index.image_size, index.target_sha256) != (content.size, content.sha256):
            raise PublisherError("sig.malformed", "the payload describes another image")
        if index.length != self._payload.length:
            raise PublisherError("sig.malformed", "the payload is of another length")
        return index

    def _kept_head(self) -> Index | None:
        head = self._world.storage.read(HEAD_NAME)
        if head is None or hashlib.sha256(head).hexdigest() != self._payload.index_sha256:
            return None
        return self._index(head)

    def _open(self, offset: int, etag: str) -> Stream:
        return open_stream(
            self._world.transport,
            self._payload.sha256,
            length=self._payload.length,
            offset=offset,
            etag=etag,
            token=self._token,
            timeout_s=self._settings.timeout_s,
            clock=self._world.clock,
        )

    def _now(self) -> int:
        return max(0, int(self._world.clock.now()))


def _advanced(progress: Progress, segments: int, stored_bytes: int) -> Progress:
    """Return the progress after a flush."""
    return msgspec.structs.replace(
        progress,
        since=progress.segments if segments > progress.segments else progress.since,
        segments=segments,
        begun_bytes=0,
        stored_bytes=max(stored_bytes, progress.stored_bytes),
    )
