"""Streams a payload container onto a device: a slot, or a file that stands in for one. What installers share.

Order: stored hash, declared size, decode, plain hash, write; every 16 MiB flush, and only then say so. Zeros are written, because a
slot still holds the release before. On resume the last interval is read from the device and held against the plain hashes: a medium
that lost flushed bytes is found here, not at boot.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from tidegate.agent.download import Stream, open_stream
from tidegate.agent.events import (
    Download,
    Downloaded,
    Progressed,
)
from tidegate.agent.jobs import Reply
from tidegate.agent.pacer import Pacer
from tidegate.agent.places import in_slot
from tidegate.agent.ports import SlotDevice, World
from tidegate.agent.settings import Settings
from tidegate.agent.state import (
    Progress,
)
from tidegate.core.errors import DeviceError, PublisherError, TransferError
from tidegate.core.payload import HEADER_SIZE, Index, decode_segment, head_size
from tidegate.core.release import PayloadRef

#: Name of the file that keeps header and index of the payload under way.
HEAD_NAME: Final = "payload.head"


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
        rates = [one for one in (settings.rate, job.update.policy.bps_max) if one]
        self._pacer = Pacer(
            world.clock,
            rate=min(rates, default=0),
            rate_min=settings.rate_min,
            grace_s=settings.rate_grace_s,
        )

    def run(self) -> Iterator[Reply]:
        """Resume if that can be trusted, else begin. Ends with `Downloaded` when everything was flushed.

        Raises:
            TransferError: the link failed.
            PublisherError: the payload is not what was signed.
            DeviceError: this device failed.
        """
        progress = self._fitting(self._job.progress)
        kept = self._kept_head() if progress is not None and progress.segments else None
        if progress is None or kept is None:
            yield from self._begin()
        else:
            yield from self._resume(kept, self._verified(kept, progress))

    def _fitting(self, progress: Progress | None) -> Progress | None:
        if progress is None:
            return None
        named = (progress.payload_sha256, progress.index_sha256, progress.slot)
        payload = self._payload
        mine = (payload.sha256, payload.index_sha256, self._slot)
        return progress if named == mine else None

    def _begin(self) -> Iterator[Reply]:
        before = self._job.progress
        stream = self._open(0, "")
        try:
            head = self._read_head(stream)
            index = self._index(head)
            self._keep_head(head)
            for offset, length in index.zeros():
                self._device.zero_at(offset, length)
            progress = Progress(
                payload_sha256=self._payload.sha256,
                index_sha256=self._payload.index_sha256,
                slot=self._slot,
                stored_bytes=before.stored_bytes if before else 0,
                resumes=before.resumes if before else 0,
                etag=stream.etag,
            )
            yield from self._segments(stream, index, progress)
        finally:
            stream.close()

    def _resume(self, index: Index, progress: Progress) -> Iterator[Reply]:
        if progress.segments >= len(index.segments):
            yield Downloaded(now=self._now(), progress=progress)
            return
        offset = index.segments[progress.segments].offset
        try:
            stream = self._open(offset, progress.etag)
        except TransferError as error:
            if error.code == "download.range" and progress.etag:
                # The server holds another copy now; the next attempt does without If-Range, and the digests decide.
                forgetful = msgspec.structs.replace(progress, etag="")
                yield Progressed(now=self._now(), progress=forgetful)
            raise
        try:
            again = msgspec.structs.replace(
                progress, etag=stream.etag, resumes=progress.resumes + 1
            )
            yield from self._segments(stream, index, again)
        finally:
            stream.close()

    def _segments(self, stream: Stream, index: Index, progress: Progress) -> Iterator[Reply]:
        pending = 0
        base = progress.stored_bytes
        for number in range(progress.segments, len(index.segments)):
            stored = stream.read_exactly(index.segments[number].stored_length)
            plain = decode_segment(index, number, stored)
            view = memoryview(plain)
            for one in index.writes(number):
                part = view[one.offset : one.offset + one.length]
                self._device.write_at(one.target_offset, bytes(part))
            pending += len(plain)
            if pending >= self._settings.sync_bytes and number + 1 < len(index.segments):
                progress = self._flushed(progress, number + 1, base + stream.count)
                pending = 0
                yield Progressed(now=self._now(), progress=progress)
        progress = self._flushed(progress, len(index.segments), base + stream.count)
        yield Downloaded(now=self._now(), progress=progress)

    def _flushed(self, progress: Progress, segments: int, stored_bytes: int) -> Progress:
        self._device.flush()
        return msgspec.structs.replace(
            progress, since=progress.segments, segments=segments, stored_bytes=stored_bytes
        )

    def _verified(self, index: Index, progress: Progress) -> Progress:
        """Believe the last interval only after reading it."""
        if progress.segments > len(index.segments):
            return msgspec.structs.replace(progress, segments=0, since=0)
        for number in range(progress.since, progress.segments):
            if not self._holds(index, number):
                return msgspec.structs.replace(progress, segments=progress.since)
        return progress

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

    def _keep_head(self, head: bytes) -> None:
        storage = self._world.storage
        if storage.free_bytes() < len(head) + self._settings.reserve_bytes:
            raise DeviceError("download.space", "no room for the payload's index")
        storage.write(HEAD_NAME, head)

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
            pacer=self._pacer,
            timeout_s=self._settings.timeout_s,
        )

    def _now(self) -> int:
        return max(0, int(self._world.clock.now()))
