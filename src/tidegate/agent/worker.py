"""The worker: everything that must be verified or signed, one job at a time. It keeps no state but what is durable.

In one process with the runner (simulator, tests), or as `python -m tidegate.agent.worker` with JSON lines on its pipes (`agent.subprocess_worker` is the
other end). It ends when its standard input does.
"""

import hashlib
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from tidegate.agent import api, enrol, installers
from tidegate.agent.events import (
    AskPermit,
    Assigned,
    Download,
    Failed,
    Installed,
    Ordered,
    PermitRefused,
    Permitted,
    ReadBack,
    Refresh,
    Refused,
)
from tidegate.agent.jobs import (
    Enrol,
    Enrolled,
    MakeSession,
    Reply,
    SessionMade,
    Sign,
    Signed,
    Task,
    TokenRefused,
)
from tidegate.agent.ports import Board, Clock, Storage, Transport
from tidegate.agent.settings import Settings
from tidegate.agent.state import (
    Order,
    SlotRecord,
    Staged,
    State,
    Update,
)
from tidegate.agent.trust import TrustStore
from tidegate.core.director import (
    check_assignment,
    check_fallback,
    check_permit,
    open_assignment,
    open_permit,
    resolve_target,
)
from tidegate.core.errors import DeviceError, PublisherError, TidegateError
from tidegate.core.keys import device_key_sha256, sign_document
from tidegate.core.metadata import SignedTarget
from tidegate.core.protocol import (
    EVENT_TYPE,
    SIGNED_KINDS,
    AssignmentAnswer,
    AssignmentBody,
    AssignmentRequest,
    DeviceState,
    EventBody,
    EventItem,
    PermitAnswer,
    PermitRequest,
    SlotState,
)
from tidegate.core.release import Running, refusal
from tidegate.core.verify import product_floor

_READ: Final = 1 << 20
#: A later word on the time than the clock's by more than this moves the reference, in seconds.
_SKEW_S: Final = 300


class World(Protocol):
    """What a worker needs of a device's ports."""

    @property
    def clock(self) -> Clock:
        """Time and randomness."""
        ...

    @property
    def storage(self) -> Storage:
        """The state directory."""
        ...

    @property
    def board(self) -> Board:
        """Slots and boot loader."""
        ...

    @property
    def transport(self) -> Transport:
        """The way to the server."""
        ...


class Worker:
    """Does jobs for one device.

    Args:
        world: its ports.
        settings: what it was told.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings

    def perform(self, task: Task) -> Iterator[Reply]:
        """Do one job. Never raises but for a fault in the agent or a loss of power: every error is an answer."""
        try:
            yield from self._job(task)
        except api.TokenError:
            yield TokenRefused()
        except TidegateError as error:
            yield self._failed(error)

    def _job(self, task: Task) -> Iterator[Reply]:
        job = task.job
        match job:
            case Enrol():
                yield self._enrol(job)
            case MakeSession():
                yield self._session(task)
            case Sign():
                yield self._sign(job)
            case Refresh():
                yield self._refresh(task)
            case Download():
                installer = installers.load(job.update.release.format, self._settings.allow)
                yield from installer.download(self._world, self._settings, job, task.token)
            case ReadBack():
                yield self._read_back(job)
            case AskPermit():
                yield self._permit(job, task)

    # --- enrol, session, events ---------------------------------------------------------------------------------------

    def _enrol(self, job: Enrol) -> Enrolled:
        world = self._world
        return enrol.enrol(world.storage, world.clock, world.transport, self._settings, job.claim)

    def _session(self, task: Task) -> SessionMade:
        world = self._world
        boot_id = task.state.boot_id
        return enrol.session(world.storage, world.clock, world.transport, self._settings, boot_id)

    def _sign(self, job: Sign) -> Signed:
        signer = enrol.device_signer(self._world.storage, self._world.clock)

        def item(body: EventBody) -> EventItem:
            if body.kind in SIGNED_KINDS:
                return EventItem(envelope=sign_document(body, EVENT_TYPE, signer))
            return EventItem(body=body)

        return Signed(items=tuple(item(one) for one in job.events))

    # --- assignment ---------------------------------------------------------------------------------------------------

    def _refresh(self, task: Task) -> Reply:
        world, settings = self._world, self._settings
        now = self._now()
        body: AssignmentBody | None = None
        try:
            store = TrustStore(world.storage, world.transport, settings.anchor, now)
            store.refresh_root()
            store.keep()
            checked = self._assignment(task, store)
            body = checked
            order = Order(epoch=body.epoch, seq=body.seq)
            if body.action == "hold" or body.action == "none":  # noqa: PLR1714 - narrows the type
                return Ordered(now=now, order=order, action=body.action, reason=body.reason)
            return Assigned(now=now, order=order, update=self._update(task.state, store, body))
        except PublisherError as error:
            return _refused(now, body, error)
        except DeviceError as error:
            if body is None:
                raise
            return _refused(now, body, error)

    def _assignment(self, task: Task, store: TrustStore) -> AssignmentBody:
        world, settings = self._world, self._settings
        nonce = world.clock.random_bytes(16).hex()
        request = AssignmentRequest(
            nonce=nonce, state=self._device_state(task, store.trusted.root.version)
        )
        answer = api.post(
            world.transport, "/d/v1/assignment", request, AssignmentAnswer, token=task.token
        )
        root = store.trusted.root
        body = open_assignment(answer.envelope, root)
        public = enrol.device_signer(world.storage, world.clock).public
        check_assignment(
            body,
            root,
            device_id=settings.device_id,
            device_key_sha256=device_key_sha256(public.keytype, public.public),
            nonce=nonce,
            last=(task.state.order.epoch, task.state.order.seq),
            # The nonce proves that this was made just now; the device's own clock proves nothing.
            now=body.issued,
        )
        return body

    def _update(self, state: State, store: TrustStore, body: AssignmentBody) -> Update:
        """Check what was assigned against the product role and the device's own rules."""
        assert body.target is not None  # noqa: S101 - check_assignment; for the type checker
        now = self._now()
        if body.issued > now + _SKEW_S:
            now, store = body.issued, store.at(body.issued)
        try:
            trusted = store.refresh(body.target.product)
        except PublisherError as error:
            if error.code != "sig.expired" or body.issued >= now:
                raise
            # The clock may be ahead: the director's fresh word on the time decides.
            now, store = body.issued, store.at(body.issued)
            trusted = store.refresh(body.target.product)
        found = resolve_target(body, trusted)
        self._allow(state, found, body, now)
        current = self._world.board.bootloader.current()
        return Update(
            update=body.update,
            attempt=body.attempt,
            action="fallback" if body.action == "fallback" else "install",
            release=found.release,
            slot=next(one for one in self._world.board.slots() if one != current),
            from_counter=state.slots.get(current, SlotRecord()).release_counter,
            product_floor=product_floor(
                trusted, body.target.product, self._settings.hardware.model
            ),
            allow_refused=body.allow_refused,
            policy=body.policy,
        )

    def _allow(self, state: State, found: SignedTarget, body: AssignmentBody, now: int) -> None:
        settings = self._settings
        running = state.slots.get(state.current, SlotRecord())
        fallback = body.action == "fallback"
        if found.release.product != settings.product:
            raise PublisherError("compat.hardware", f"made for {found.release.product}")
        if fallback:
            if running.release is None:
                raise PublisherError("compat.counter", "what runs names no way back")
            other = next(record for slot, record in state.slots.items() if slot != state.current)
            check_fallback(
                found,
                running=running.release,
                other=slot_state(other),
                floor=state.floor,
                now=now,
            )
        code = refusal(
            found.release,
            hardware=settings.hardware,
            channel=settings.channel,
            running=Running(
                release_counter=running.release_counter,
                security_version=running.security_version,
                sha256=running.sha256,
                version=running.version,
            ),
            floor=state.floor,
            agent=settings.agent,
            components=settings.components,
            fallback=fallback,
        )
        if code is not None:
            raise PublisherError(code, f"{found.release.name} on {settings.hardware.variant}")

    def _device_state(self, task: Task, root_version: int) -> DeviceState:
        state, settings = task.state, self._settings
        return DeviceState(
            hardware=settings.hardware,
            channel=settings.channel,
            agent=settings.agent,
            boot_id=state.boot_id,
            running=state.current,
            slots={name: slot_state(record) for name, record in state.slots.items()},
            security_floor=state.floor,
            refuses=tuple(one.sha256 for one in state.refused),
            root_version=root_version,
            assignment_seq=state.order.seq,
            held=state.hold is not None,
            inhibitors=task.inhibitors[:16],
            waiting=task.waiting,
            free_bytes=self._world.storage.free_bytes(),
            attributes=settings.attributes,
        )

    # --- slot and permit ----------------------------------------------------------------------------------------------

    def _read_back(self, job: ReadBack) -> Reply:
        install = job.update.release.install
        device = self._world.board.open_slot(job.update.slot)
        try:
            device.flush()
            digest = hashlib.sha256()
            for offset in range(0, install.size, _READ):
                digest.update(device.read_at(offset, min(_READ, install.size - offset)))
        finally:
            device.close()
        if digest.hexdigest() != install.sha256:
            raise DeviceError("install.readback")
        return Installed(now=self._now())

    def _permit(self, job: AskPermit, task: Task) -> Reply:
        world, settings, update = self._world, self._settings, job.update
        phase = task.state.phase
        if update.update is None:
            raise DeviceError("activate.no_permit", "an update that the server does not know")
        if not isinstance(phase, Staged):
            raise DeviceError("activate.no_permit", "nothing is staged that leave could be for")
        request = PermitRequest(
            nonce=job.nonce,
            update=update.update,
            attempt=update.attempt,
            slot_sha256=update.release.install.sha256,
            release_counter=update.release.release_counter,
        )
        answer = api.post(world.transport, "/d/v1/permit", request, PermitAnswer, token=task.token)
        now, mono = self._now(), world.clock.monotonic()
        if answer.envelope is None:
            return PermitRefused(
                now=now,
                mono=mono,
                because=answer.because,
                retry_after_s=answer.retry_after_s,
            )
        root = TrustStore(world.storage, world.transport, settings.anchor, now).trusted.root
        body = open_permit(answer.envelope, root)
        check_permit(
            body,
            device_id=settings.device_id,
            update=update.update,
            attempt=update.attempt,
            slot_sha256=update.release.install.sha256,
            nonce=job.nonce,
            elapsed_s=mono - phase.nonce_mono,
        )
        return Permitted(now=now, mono=mono, nonce=job.nonce, permit=body.permit)

    def _now(self) -> int:
        return max(0, int(self._world.clock.now()))

    def _failed(self, error: TidegateError) -> Failed:
        return Failed(
            now=self._now(),
            mono=self._world.clock.monotonic(),
            reason=error.code,
            detail=error.detail,
            retryable=error.retryable,
        )


def slot_state(record: SlotRecord) -> SlotState:
    """Return what the server is told of a slot."""
    return SlotState(
        state=record.state,
        release_counter=record.release_counter,
        security_version=record.security_version,
        version=record.version,
        sha256=record.sha256,
    )


def _refused(now: int, body: AssignmentBody | None, error: TidegateError) -> Refused:
    if body is None:
        return Refused(now=now, reason=error.code, detail=error.detail)
    return Refused(
        now=now,
        reason=error.code,
        detail=error.detail,
        update=body.update,
        attempt=body.attempt,
        release_counter=body.target.release_counter if body.target else 0,
        order=Order(epoch=body.epoch, seq=body.seq),
    )


def serve(arguments: list[str]) -> int:
    """Do one task after the other from standard input, answering on standard output, a JSON line each; `done` ends each task.

    A thread reads the input, so that its end is noticed during a job as well: a worker never outlives its loop.
    """
    import os
    import queue
    import threading
    from pathlib import Path

    from tidegate.agent import assemble, config

    path = Path(arguments[1]) if arguments[:1] == ["--config"] and len(arguments) > 1 else None
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        buffer = b""
        while piece := os.read(0, 1 << 16):
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                tasks.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    found = config.read(path, config.environment())
    worker = Worker(assemble.ports(found), found.settings)
    while True:
        task = msgspec.json.decode(tasks.get(), type=Task)
        for reply in worker.perform(task):
            os.write(1, msgspec.json.encode(reply) + b"\n")
        os.write(1, b"done\n")


if __name__ == "__main__":
    import sys

    sys.exit(serve(sys.argv[1:]))
