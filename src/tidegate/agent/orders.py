"""What the director orders, checked: an assignment is fetched, verified, held against the product role and against the device itself."""

from typing import Final

from tidegate.agent import api, enrol, mandates
from tidegate.agent.events import Assigned, Deferred, Ordered, Refused
from tidegate.agent.jobs import Reply, Task
from tidegate.agent.ports import World
from tidegate.agent.settings import Settings
from tidegate.agent.state import Order, SlotRecord, State, Update
from tidegate.agent.trust import TrustStore
from tidegate.agent.way_back import granted, use_of
from tidegate.core.director import (
    check_assignment,
    check_fallback,
    open_assignment,
    resolve_target,
)
from tidegate.core.errors import DeviceError, PublisherError, TidegateError
from tidegate.core.grant import GrantBody
from tidegate.core.keys import device_key_sha256
from tidegate.core.metadata import SignedTarget
from tidegate.core.protocol import (
    AssignmentAnswer,
    AssignmentBody,
    AssignmentRequest,
    DeviceState,
    GrantUse,
    SlotState,
)
from tidegate.core.release import Running, refusal
from tidegate.core.verify import TrustedSet, product_floor

#: A later word on the time than the clock's by more than this moves the reference, in seconds.
_SKEW_S: Final = 300


class Orders:
    """Asks for assignments and decides what of them is done, for one device.

    Args:
        world: its ports.
        settings: what it was told.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings

    def refresh(self, task: Task) -> Reply:
        """Walk the roots, ask the director with a fresh nonce, and check its answer against the product role and this device's own rules.

        Raises:
            DeviceError: before an assignment was read: the link failed, say.
        """
        world, settings = self._world, self._settings
        now = self._now()
        body: AssignmentBody | None = None
        try:
            store = TrustStore(
                world.storage, world.transport, settings.anchor, now, clock=world.clock
            )
            store.refresh_root()
            store.keep()
            checked = self._assignment(task, store)
            body = checked
            order = Order(epoch=body.epoch, seq=body.seq)
            if body.action == "hold" or body.action == "none":  # noqa: PLR1714 - narrows the type
                return Ordered(now=now, order=order, action=body.action, reason=body.reason)
            made = self._update(task.state, store, body)
            return (
                made if isinstance(made, Deferred) else Assigned(now=now, order=order, update=made)
            )
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

    def _update(self, state: State, store: TrustStore, body: AssignmentBody) -> Update | Deferred:
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
        grant = self._allow(state, found, body, trusted, now)
        if body.action == "install":
            offline_now = self._offline_now()
            barred = mandates.bar(trusted, found, self._settings.device_id, offline_now)
            if barred is not None:
                return mandates.deferred(
                    body,
                    found,
                    barred,
                    now=now,
                    mono=self._world.clock.monotonic(),
                    offline_now=offline_now,
                )
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
            grant=None if grant is None else use_of(grant, body),
            resume_min=0 if grant is None else grant.resume.min_counter,
        )

    def _allow(
        self,
        state: State,
        found: SignedTarget,
        body: AssignmentBody,
        trusted: TrustedSet,
        now: int,
    ) -> GrantBody | None:
        """Hold a signed release against the device's own rules; return the grant that it is allowed by, if it is by one."""
        settings = self._settings
        running = state.slots.get(state.current, SlotRecord())
        fallback = body.action == "fallback"
        if found.release.product != settings.product:
            raise PublisherError("compat.hardware", f"made for {found.release.product}")
        grant = None
        if fallback and body.grant is not None:
            grant = granted(state, settings, found, body, trusted, now)
        elif fallback:
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
            resume_min=state.resume_min.get(settings.product, 0),
        )
        if code is not None:
            raise PublisherError(code, f"{found.release.name} on {settings.hardware.variant}")
        return grant

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
            offline_now=self._offline_now(),
            attributes=settings.attributes,
            resume_min=state.resume_min.get(settings.product, 0),
            fallback_last=state.fallback_last.get(settings.product, GrantUse()),
        )

    def _offline_now(self) -> int:
        """Return a time that no online key can push forward: what mandates go by."""
        return self._now()

    def _now(self) -> int:
        return max(0, int(self._world.clock.now()))


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
