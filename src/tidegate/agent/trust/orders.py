"""What the director orders, checked: an assignment is fetched, verified, held against the product role and against the device itself."""

import msgspec

from tidegate.agent.events import Assigned, Deferred, Noticed, Ordered, Refused
from tidegate.agent.install.placing import placed
from tidegate.agent.jobs import Reply, Task
from tidegate.agent.ledger import newest
from tidegate.agent.net import api
from tidegate.agent.ports import World
from tidegate.agent.rules import components_of, own_refusal
from tidegate.agent.settings import Settings
from tidegate.agent.state import Order, SlotRecord, State, Update
from tidegate.agent.timekeeping import Timekeeper
from tidegate.agent.trust import enrol, mandates, witness
from tidegate.agent.trust.store import TrustStore
from tidegate.agent.trust.way_back import granted, moment, use_of
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
from tidegate.core.verify import TrustedSet, issued_at, product_floor


class Orders:
    """Asks for assignments and decides what of them is done, for one device.

    Args:
        world: its ports.
        settings: what it was told.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings
        self._time = Timekeeper(world, settings)
        self._witnessed: tuple[Reply, ...] = ()

    def refresh(self, task: Task) -> tuple[Reply, ...]:
        """Walk the roots, ask the director with a fresh nonce, and check its answer against the product role and this device's own rules.

        Returns:
            What is wrong with the device's clock or the server's log, if anything, and then the answer.

        Raises:
            DeviceError: before an assignment was read: the link failed, say.
        """
        now = self._now()
        body: AssignmentBody | None = None
        noticed: tuple[Reply, ...] = ()
        try:
            store = self._roots(task)
            noticed = self._lost(task.state, store, now)
            body = self._assignment(task, store)
            complaint = self._time.proved(task.state)
            if complaint:
                noticed += (Noticed(now=now, reason="clock.untrusted", detail=complaint),)
            return (*noticed, *self._witnessed, self._answer(task.state, store, body, now))
        except PublisherError as error:
            return (*noticed, *self._witnessed, _refused(now, body, error))
        except DeviceError as error:
            if body is None:
                raise
            return (*noticed, *self._witnessed, _refused(now, body, error))
        finally:
            self._time.keep()

    def _roots(self, task: Task) -> TrustStore:
        """Walk the roots, for which no time is needed, and get a signed time where this device has none to go by."""
        world, keeper = self._world, self._time
        store = TrustStore(
            world.storage,
            world.transport,
            self._settings.anchor,
            keeper.reading().now,
            clock=world.clock,
        )
        store.refresh_root()
        store.keep()
        root = store.trusted.root
        keeper.know(task.state, root)
        if store.condition != "ok" or keeper.must_ask(task.state):
            keeper.ask_if_served(root, task.token)
            keeper.step(task.state)
        return store

    def _lost(self, state: State, store: TrustStore, now: int) -> tuple[Reply, ...]:
        """Say that kept documents or times are gone. What comes next is bound to a nonce, so nothing old can take their place, but somebody should know."""
        had_some = state.order.seq > 0
        if store.condition == "ok" or (store.condition == "blank" and not had_some):
            what = "the kept times" if self._time.damaged else ""
        else:
            what = "the kept metadata"
        if not what:
            return ()
        reason, detail = "agent.state_damaged", f"{what} cannot be read"
        return (Noticed(now=now, reason=reason, detail=detail),)

    def _answer(self, state: State, store: TrustStore, body: AssignmentBody, now: int) -> Reply:
        order = Order(epoch=body.epoch, seq=body.seq)
        if body.action == "hold" or body.action == "none":  # noqa: PLR1714 - narrows the type
            return Ordered(now=now, order=order, action=body.action, reason=body.reason)
        made = self._update(state, store, body)
        return made if isinstance(made, Deferred) else Assigned(now=now, order=order, update=made)

    def _assignment(self, task: Task, store: TrustStore) -> AssignmentBody:
        world, settings = self._world, self._settings
        nonce, mono = world.clock.random_bytes(16).hex(), world.clock.monotonic()
        seen = task.state.witness
        request = AssignmentRequest(
            nonce=nonce,
            state=self._device_state(task, store.trusted.root.version),
            audit_seen=msgspec.UNSET if seen is None else seen.note,
        )
        answer = api.post(
            world.transport,
            "/d/v1/assignment",
            request,
            AssignmentAnswer,
            clock=world.clock,
            token=task.token,
        )
        root = store.trusted.root
        self._witnessed = witness.look(seen, answer.audit, root, self._now())
        body = open_assignment(answer.envelope, root)
        public = enrol.device_signer(world, settings).public
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
        self._time.told(body.issued, mono)
        return body

    def _update(self, state: State, store: TrustStore, body: AssignmentBody) -> Update | Deferred:
        """Check what was assigned against the product role and the device's own rules."""
        assert body.target is not None  # noqa: S101 - check_assignment; for the type checker
        # The signed time decides what has expired, in both directions; the device's own clock alone decides nothing.
        reading = self._time.reading()
        trusted = store.at(reading.now).refresh(body.target.product)
        self._time.issued(online=issued_at(trusted))
        found = resolve_target(body, trusted)
        grant = self._allow(state, found, body, trusted, moment(reading, trusted))
        if grant is not None:
            self._time.issued(offline=grant.issued)
        if body.action == "install":
            offline_now = reading.offline_now
            barred = mandates.bar(trusted, found, self._settings.device_id, offline_now)
            if barred is not None:
                return mandates.deferred(
                    body,
                    found,
                    barred,
                    now=self._now(),
                    mono=self._world.clock.monotonic(),
                    offline_now=offline_now,
                )
        return placed(
            self._world.board,
            self._settings,
            state,
            update=body.update,
            attempt=body.attempt,
            action="fallback" if body.action == "fallback" else "install",
            release=found.release,
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
        code = own_refusal(state, settings, found.release, fallback=fallback)
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
            offline_now=self._time.reading().offline_now,
            attributes=settings.attributes,
            components=components_of(state, settings),
            release_counter=newest(state).release_counter,
            resume_min=state.resume_min.get(settings.product, 0),
            fallback_last=state.fallback_last.get(settings.product, GrantUse()),
        )

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
