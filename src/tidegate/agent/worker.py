"""The worker: everything that must be verified or signed, one job at a time. It keeps no state but what is durable.

In one process with the runner (simulator, tests), or as `python -m tidegate.agent.worker` with JSON lines on its pipes (`agent.subprocess_worker` is the
other end). It ends when its standard input does.
"""

from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec

from tidegate.agent import installers
from tidegate.agent.events import (
    AskPermit,
    Change,
    Changed,
    Download,
    Failed,
    Installed,
    PermitRefused,
    Permitted,
    Progressed,
    ReadBack,
    Refresh,
)
from tidegate.agent.install.two_copies import require_digest
from tidegate.agent.jobs import (
    TAP_MARK,
    Enrol,
    MakeSession,
    OpenBundle,
    Rekey,
    Reply,
    Sign,
    Signed,
    Task,
    TokenRefused,
)
from tidegate.agent.net import api
from tidegate.agent.net.delivery import Delivery, through
from tidegate.agent.net.link import HttpTransport
from tidegate.agent.net.pacer import Pacer, PauseError, Tap
from tidegate.agent.places import places
from tidegate.agent.ports import Transport, World
from tidegate.agent.settings import Config, Settings
from tidegate.agent.state import (
    Staged,
)
from tidegate.agent.timekeeping import Timekeeper
from tidegate.agent.trust import enrol
from tidegate.agent.trust.offline import open_bundle, world_of
from tidegate.agent.trust.orders import Orders
from tidegate.agent.trust.store import TrustStore
from tidegate.core.director import (
    check_permit,
    open_permit,
)
from tidegate.core.errors import DeviceError, TidegateError, TransferError
from tidegate.core.keys import sign_document
from tidegate.core.protocol import (
    EVENT_TYPE,
    PERMIT_VALID_S,
    SIGNED_KINDS,
    EventBody,
    EventItem,
    PermitAnswer,
    PermitRequest,
)


class Worker:
    """Does jobs for one device.

    Args:
        world: its ports.
        settings: what it was told.
        tap: what a transfer is allowed at this moment; None = what the settings say, for ever.
        connect: opens the way to a mirror's origin; None = over plain sockets.
    """

    def __init__(
        self,
        world: World,
        settings: Settings,
        tap: Callable[[], Tap] | None = None,
        connect: Callable[[str], Transport] | None = None,
    ) -> None:
        self._world = world
        self._settings = settings
        self._tap = tap
        self._connect = connect or HttpTransport

    def perform(self, task: Task) -> Iterator[Reply]:
        """Do one job. Never raises but for a fault in the agent or a loss of power: every error is an answer."""
        try:
            yield from self._job(task)
        except api.TokenError:
            yield TokenRefused()
        except PauseError:
            return
        except TidegateError as error:
            yield self._failed(error)

    def _job(self, task: Task) -> Iterator[Reply]:
        job = task.job
        match job:
            case Enrol():
                Timekeeper(self._world, self._settings).step(task.state)
                yield enrol.enrol(self._world, self._settings, job.claim)
            case MakeSession():
                Timekeeper(self._world, self._settings).step(task.state)
                yield enrol.session(self._world, self._settings, task.state.boot_id)
            case Rekey():
                yield enrol.rekey(self._world, self._settings)
            case Sign():
                yield self._sign(job)
            case OpenBundle():
                yield from open_bundle(self._world, self._settings, job, task)
            case Refresh():
                yield from Orders(self._world, self._settings).refresh(task)
            case Download():
                yield from self._download(job, task.token, task.mirrors)
            case ReadBack():
                yield self._read_back(job)
            case Change():
                yield self._change(job)
            case AskPermit():
                yield self._permit(job, task)

    # --- download -----------------------------------------------------------------------------------------------------

    def _download(
        self, job: Download, token: str | None, mirrors: tuple[str, ...] = ()
    ) -> Iterator[Reply]:
        """Have the installer get it: from mirrors as long as they serve, then from the server; or from what a person brought."""
        settings, bundle = self._settings, job.update.bundle
        installer = installers.load(job.piece.format, settings.allow)
        rates = [one for one in (settings.rate, job.update.policy.bps_max) if one]
        pacer = Pacer(
            self._world.clock,
            rate=min(rates, default=0),
            rate_min=settings.rate_min,
            grace_s=settings.rate_grace_s,
            tap=self._tap,
        )
        world = world_of(self._world, bundle) if bundle else self._world
        delivery = Delivery(world.transport, mirrors, self._connect, pacer, world.clock)
        world = through(world, delivery)
        while True:
            try:
                for reply in installer.download(world, settings, job, token):
                    if isinstance(reply, Progressed):
                        job = msgspec.structs.replace(job, progress=reply.progress)
                    yield reply
            except TransferError as error:
                struck = delivery.strike(error)
                if struck is None:
                    raise
                yield struck
            else:
                return

    # --- events -------------------------------------------------------------------------------------------------------

    def _sign(self, job: Sign) -> Signed:
        signer = enrol.device_signer(self._world, self._settings)

        def item(body: EventBody) -> EventItem:
            if body.kind in SIGNED_KINDS:
                return EventItem(envelope=sign_document(body, EVENT_TYPE, signer))
            return EventItem(body=body)

        return Signed(items=tuple(item(one) for one in job.events))

    # --- slot and permit ----------------------------------------------------------------------------------------------

    def _read_back(self, job: ReadBack) -> Reply:
        installer = installers.load(job.piece.format, self._settings.allow)
        if isinstance(installer, installers.OwnReader):
            installer.read_back(self._world, self._settings, job)
            return Installed(now=self._now())
        with closing(self._world.board.open_slot(job.update.slot)) as device:
            require_digest(device, job.piece.install)
        return Installed(now=self._now())

    def _change(self, job: Change) -> Reply:
        """Have one component do something; clean up, and look after a restart, for all of the update's."""
        done = installers.Done()
        whole = job.act in ("discard", "verify_back")
        for part in range(len(job.update.release.pieces)) if whole else (job.part,):
            if places(job.update)[part].kind != "component":
                continue
            try:
                piece = job.update.release.pieces[part]
                installer = installers.beside(piece.format, self._settings.allow)
                done = installer.change(self._world, self._settings, job.update, part, job.act)
            except TidegateError:
                # What cannot be cleaned up must not keep the next update from coming.
                if job.act != "discard":
                    raise
        return Changed(
            now=self._now(), act=job.act, part=job.part, restart=done.restart, final=done.final
        )

    def _permit(self, job: AskPermit, task: Task) -> Reply:
        world, settings, update = self._world, self._settings, job.update
        phase = task.state.phase
        if update.update is None:
            raise DeviceError("activate.no_permit", "an update that the server does not know")
        if not isinstance(phase, Staged):
            raise DeviceError("activate.no_permit", "nothing is staged that leave could be for")
        asked = phase.ahead if job.ahead_s else None
        asked_mono = phase.nonce_mono if asked is None else asked.mono
        request = PermitRequest(
            nonce=job.nonce,
            update=update.update,
            attempt=update.attempt,
            slot_sha256=update.release.digest,
            release_counter=update.release.release_counter,
            ahead_s=job.ahead_s,
        )
        answer = api.post(
            world.transport,
            "/d/v1/permit",
            request,
            PermitAnswer,
            clock=world.clock,
            token=task.token,
        )
        now, mono = self._now(), world.clock.monotonic()
        if answer.envelope is None:
            return PermitRefused(
                now=now,
                mono=mono,
                because=answer.because,
                retry_after_s=answer.retry_after_s,
                nonce=job.nonce,
            )
        store = TrustStore(world.storage, world.transport, settings.anchor, now, clock=world.clock)
        root = store.trusted.root
        body = open_permit(answer.envelope, root)
        check_permit(
            body,
            device_id=settings.device_id,
            update=update.update,
            attempt=update.attempt,
            slot_sha256=update.release.digest,
            nonce=job.nonce,
            elapsed_s=mono - asked_mono,
        )
        # Nobody stretches leave beyond what was asked for.
        good_s = min(body.valid_s, job.ahead_s or PERMIT_VALID_S)
        return Permitted(now=now, mono=mono, nonce=job.nonce, permit=body.permit, valid_s=good_s)

    def _now(self) -> int:
        return max(0, int(self._world.clock.now()))

    def _failed(self, error: TidegateError) -> Failed:
        return Failed(
            now=self._now(),
            mono=self._world.clock.monotonic(),
            reason=error.code,
            detail=error.detail,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s if isinstance(error, TransferError) else 0,
        )


def serve() -> None:
    """Do one task after the other from standard input, answering on standard output, a JSON line each; `done` ends each task.

    The first line is the configuration.

    A thread reads the input, so that its end is noticed during a job as well: a worker never outlives its loop; and so is a line that opens or closes the tap
    of the transfer under way.
    """
    import os
    import queue
    import threading

    from tidegate.agent import assemble

    told: queue.SimpleQueue[Config] = queue.SimpleQueue()
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    taps = [Tap()]

    def take(line: bytes) -> None:
        if line.startswith(TAP_MARK):
            taps[0] = msgspec.json.decode(line.removeprefix(TAP_MARK), type=Tap)
            return
        task = msgspec.json.decode(line, type=Task)
        taps[0] = task.tap
        tasks.put(task)

    def listen() -> None:
        buffer, first = b"", True
        try:
            while piece := os.read(0, 1 << 16):
                *lines, buffer = (buffer + piece).split(b"\n")
                for line in lines:
                    if first:
                        told.put(msgspec.json.decode(line, type=Config))
                        first = False
                    else:
                        take(line)
        finally:
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    found = told.get()
    ports = assemble.ports(found)
    worker = Worker(ports, found.settings, tap=lambda: taps[0], connect=ports.connect)
    while True:
        for reply in worker.perform(tasks.get()):
            os.write(1, msgspec.json.encode(reply) + b"\n")
        os.write(1, b"done\n")


if __name__ == "__main__":
    serve()
