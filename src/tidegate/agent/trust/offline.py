"""A release by hand: what a person brought on a stick, verified like what comes over the wire, without a server.

The same trust: the chain of roots from the device's own, the product role's threshold, the device's own rules, the mandate, counter above what is installed.
What falls away is what only a server could say: that nothing newer exists, and leave to activate. So it must be allowed on this device
(`[offline] bundles`), and what the server held back before stays held back (`agent.moves`). Imported by the worker only.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from tidegate.agent.events import Assigned, Refused
from tidegate.agent.install.placing import placed
from tidegate.agent.jobs import OpenBundle, Quiet, Reply, Task
from tidegate.agent.net.delivery import through
from tidegate.agent.ports import World
from tidegate.agent.rules import own_refusal
from tidegate.agent.settings import Settings
from tidegate.agent.state import SlotRecord, State
from tidegate.agent.timekeeping import Timekeeper
from tidegate.agent.trust import mandates
from tidegate.agent.trust.sources import Source, SourceTransport, find
from tidegate.agent.trust.store import TrustStore
from tidegate.core.errors import DeviceError, PublisherError, TidegateError, TransferError
from tidegate.core.metadata import SignedTarget, product_role, signed_targets
from tidegate.core.offline import believe
from tidegate.core.release import PayloadRef
from tidegate.core.verify import TrustedSet, product_floor, verify_release

_PIECE: Final = 1 << 20
#: Bytes between two signs of life while a payload is hashed.
_QUIET: Final = 16 << 20


def world_of(world: World, path: str) -> World:
    """Return the same device with its transport going to a bundle or a mirror.

    Raises:
        TransferError: it is not there (any more): it may be plugged in again.
        PublisherError: `release.malformed`, `sig.oversized`.
    """
    try:
        source = find(path)
    except DeviceError as error:
        raise TransferError("download.refused", error.detail) from error
    return through(world, SourceTransport(source))


def open_bundle(world: World, settings: Settings, job: OpenBundle, task: Task) -> Iterator[Reply]:
    """Verify what a person brought; answer `Assigned` with an update that the server knows nothing of, or `Refused`."""
    now = max(0, int(world.clock.now()))
    try:
        source = find(job.path)
        keeper = Timekeeper(world, settings)
        store = TrustStore(
            world.storage,
            SourceTransport(source),
            settings.anchor,
            keeper.reading().now,
            clock=world.clock,
        )
        if store.condition == "degraded":
            detail = (
                "what was seen of metadata is lost: only an answer of the server shows what is new"
            )
            raise DeviceError("agent.state_damaged", detail)
        store.refresh_root()
        store.keep()
        keeper.know(task.state, store.trusted.root)
        trusted = _believed(settings, keeper, store, source, task)
        found = _choose(settings, task.state, trusted, source, keeper.reading().offline_now)
        yield from _whole(source, found)
        update = placed(
            world.board,
            settings,
            task.state,
            update=None,
            release=found.release,
            product_floor=product_floor(trusted, settings.product, settings.hardware.model),
            bundle=job.path,
        )
        yield Assigned(now=now, order=task.state.order, update=update)
    except TidegateError as error:
        yield Refused(now=now, reason=error.code, detail=error.detail)
    except OSError as error:
        yield Refused(now=now, reason="config.unreadable", detail=f"{job.path}: {error.strerror}")


def _believed(
    settings: Settings,
    keeper: Timekeeper,
    store: TrustStore,
    source: Source,
    task: Task,
) -> TrustedSet:
    documents = source.documents(settings.product)
    trusted = store.trusted
    try:
        believe(trusted, settings.product, documents, offline_now=keeper.reading().offline_now)
    except PublisherError as error:
        if error.code != "sig.expired" or task.token is None:
            raise
        # By this device's own clock. Where a server is in reach, its signed time decides, as for an order of its own.
        try:
            keeper.ask(trusted.root, task.token)
        except TidegateError:
            raise error from None
        signed = keeper.reading().now
        keeper.keep()
        believe(trusted, settings.product, documents, offline_now=signed)
    return trusted


def _choose(
    settings: Settings, state: State, trusted: TrustedSet, source: Source, offline_now: int
) -> SignedTarget:
    """Return the newest release in it that this device may take, or say why the newest one may not be."""
    document = trusted.roles[product_role(settings.product)]
    held = [
        one
        for one in signed_targets(document).values()
        if all(source.has(part.full.sha256) for part in one.release.pieces)
    ]
    if not held:
        raise PublisherError(
            "sig.director_mismatch", f"no payload that the holders of {settings.product} signed"
        )
    first: PublisherError | None = None
    for one in sorted(held, key=lambda one: one.release.release_counter, reverse=True):
        try:
            _require(settings, state, trusted, one, offline_now)
        except PublisherError as error:
            first = first or error
        else:
            return one
    raise first or PublisherError("sig.director_mismatch")


def _require(
    settings: Settings, state: State, trusted: TrustedSet, found: SignedTarget, offline_now: int
) -> None:
    running = state.slots.get(state.current, SlotRecord())
    verify_release(trusted, found.path)
    code = own_refusal(state, settings, found.release)
    if code is None and found.release.release_counter <= running.release_counter:
        # No repair by hand: nobody vouches for how old it is, so only a higher counter counts.
        code = "compat.counter"
    if code is not None:
        raise PublisherError(code, f"{found.release.name} on {settings.hardware.variant}")
    barred = mandates.bar(trusted, found, settings.device_id, offline_now)
    if barred is not None:
        raise PublisherError(barred.reason, f"{found.release.name}: by its signers' schedule")


def _whole(source: Source, found: SignedTarget) -> Iterator[Reply]:
    """Read the payloads once, so that a damaged copy is refused before the candidate slot is touched. The installer checks all of it again."""
    for part in found.release.pieces:
        yield from _whole_payload(source, part.full)


def _whole_payload(source: Source, payload: PayloadRef) -> Iterator[Reply]:
    opened = source.blob(payload.sha256)
    if opened is None:
        raise TransferError("download.refused", "the payload is gone")
    file, length = opened
    with file:
        if length != payload.length:
            raise TransferError("download.truncated", f"{length} of {payload.length} bytes")
        digest, left, quiet = hashlib.sha256(), length, 0
        while left:
            try:
                piece = file.read(min(_PIECE, left))
            except OSError as error:
                raise TransferError("download.truncated", str(error.strerror)) from error
            if not piece:
                raise TransferError("download.truncated", f"{left} bytes are missing")
            digest.update(piece)
            left -= len(piece)
            quiet += len(piece)
            if quiet >= _QUIET:
                quiet = 0
                yield Quiet()
    if digest.hexdigest() != payload.sha256:
        raise TransferError("download.hash", "the payload is not the one that was signed")
