"""The control loop: what is due by the clock, and evidence → plan → apply for every rollout.

Everything is read from the database and every step is safe to repeat, so any replica may run it;
the lease row keeps two from doing the same work at once, and the
compare-and-set of every plan keeps them from doing harm when they do.
"""

import logging
from concurrent.futures import Future
from typing import Final
from weakref import WeakKeyDictionary

import msgspec

from tidegate.core.errors import TidegateError
from tidegate.rollout import keeping
from tidegate.server import acts, apart, audit, jobs, planning, telemetry, uploads, widening
from tidegate.server.gatekeeper.keeper import Keeper
from tidegate.server.operations import audiences_of
from tidegate.server.planning import Audience
from tidegate.server.retention import Belief, Retention
from tidegate.server.services import Services
from tidegate.server.snapshot import Fleet
from tidegate.server.store import Connection, Store, admin_log, gate_rows
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows

LEASE: Final = "reconciler"
LEASE_S: Final = 30
#: How often the distribution of firmware is sampled for the chart.
SAMPLE_S: Final = 300
#: A completed rollout is watched for late harm this long after its end, or its last permit.
WATCH_S: Final = 28 * 86_400
#: Answers to idempotency keys are kept for this long.
KEPT_S: Final = 86_400
_log = logging.getLogger("tidegate.tick")


class Ticked(msgspec.Struct, frozen=True, kw_only=True):
    """What a tick did. `leader` False = another replica holds the lease, and nothing was done."""

    leader: bool
    started: int = 0
    lost: int = 0
    planned: int = 0
    changed: int = 0
    lapsed: int = 0


def tick(services: Services, now: int) -> Ticked:
    """Run the loop once. A rollout that fails is logged and does not keep the others from being looked at.

    Args:
        services: of the server.
        now: unix seconds.
    """
    store = services.store
    holder = services.holder
    if store.read(lambda conn: admin_log.leased(conn, LEASE, holder, now, LEASE_S)):
        return Ticked(leader=False)
    if not store.write(
        lambda conn: admin_log.take_lease(conn, LEASE, holder, now, LEASE_S)
    ).result():
        return Ticked(leader=False)
    started = store.write(lambda conn: _start_due(conn, now)).result()
    lost = store.write(lambda conn: telemetry.sweep_lost(conn, now)).result()
    lapsed = store.write(lambda conn: _lapse(conn, now)).result()
    audience = audiences_of(services).count
    keeper = keeper_of(services)
    begun = store.read(lambda conn: rows.begun(conn, now - WATCH_S))
    keeper.retain(begun)
    _watch(store, begun)
    looked = [_plan_one(store, one, audience, keeper, now) for one in begun]
    _go_on(services, now)
    store.write(lambda conn: _keep_house(conn, now)).result()
    _forget(services, begun, now)
    _sweep(services, now)
    store.write(lambda conn: services.repository.renew(conn, now)).result()
    if store.read(lambda conn: audit.is_due(conn, now)):
        signer = services.keys.audit
        store.write(lambda conn: audit.make_checkpoint(conn, signer, now)).result()
    services.copier.send(store, now)
    return Ticked(
        leader=True,
        started=started,
        lost=len(lost),
        planned=sum(one is not None for one in looked),
        changed=sum(bool(one) for one in looked),
        lapsed=lapsed,
    )


def _watch(store: Store, begun: list[int]) -> None:
    """Have what devices measure noted for the rollouts that are looked at."""
    if any(noted != (one in begun) for one, noted in store.read(gate_rows.watched).items()):
        store.write(lambda conn: gate_rows.set_watched(conn, begun)).result()


def _plan_one(
    store: Store, rollout_id: int, audience: Audience, keeper: Keeper, now: int
) -> bool | None:
    """Plan one rollout as often as it moves at once (a ring that opens may be followed by another decision); None when it failed."""
    moved = False
    try:
        if store.read(lambda conn: apart.is_stray(conn, rollout_id)):
            apart.count_all(store, rollout_id, now)
        store.read(lambda conn: _warm(conn, rollout_id, audience, now))
        keeper.prepare(store, rollout_id, now)
        for _ in range(4):
            plan = store.write(
                lambda conn: planning.reconcile(conn, rollout_id, audience, now, keeper.weigh)
            ).result()
            if plan is None or not plan.changed:
                break
            moved = True
            if any(one.startswith(keeping.MARK) for one in plan.isolate):
                apart.count_all(store, rollout_id, now)
    except TidegateError as error:
        keeper.forget(rollout_id)
        _log.warning("rollout %s could not be planned: %s", rollout_id, error)
        return None
    except BaseException:
        keeper.forget(rollout_id)
        raise
    return moved


def keeper_of(services: Services) -> Keeper:
    """Return what a server keeps of evidence in memory."""
    setbacks, keeper = _KEEPERS.get(services.fleet, (-1, None))
    if keeper is None or setbacks != services.setbacks:  # what is in memory may never have been
        keeper = Keeper(
            services.fleet,
            services.settings.gate_attributes,
            poll_s=services.settings.poll_interval_s,
        )
        _KEEPERS[services.fleet] = (services.setbacks, keeper)
    return keeper


_KEEPERS: Final[WeakKeyDictionary[Fleet, tuple[int, Keeper]]] = WeakKeyDictionary()


def _warm(conn: Connection, rollout_id: int, audience: Audience, now: int) -> None:
    """Count the audience in this thread, so that the writer finds it counted."""
    row = rows.rollout_by_id(conn, rollout_id)
    if row is not None:
        audience(conn, planning.model_of(row), str(row["product"]), now)


def _start_due(conn: Connection, now: int) -> int:
    due = rows.due(conn, now)
    for row in due:
        widening.begin_due(conn, row, now)
    return len(due)


def _lapse(conn: Connection, now: int) -> int:
    """Let requests lapse that nobody approved in time; a rollout that waited to start becomes a draft again."""
    lapsed = rows.lapsed_requests(conn, now)
    for request in lapsed:
        rows.settle_request(conn, int(request["id"]), "lapsed", planning.PLANNER, now)
        row = acts.row_of(conn, str(request["rollout"]))
        if row["state"] == "awaiting_approval":
            text = "nobody approved it in time"
            because = planning.plain((acts.waits(text, gate="approval"),))
            values = {"state": "draft", "because": because}
            acts.change(conn, row, values, planning.PLANNER, "lapse", text, now)
    return len(lapsed)


def _go_on(services: Services, now: int) -> None:
    """Go on with acts on many devices. What goes wrong with them is no reason to plan less."""
    try:
        jobs.step(services, now)
    except TidegateError as error:
        _log.warning("jobs wait: %s", error)


def _forget(services: Services, begun: list[int], now: int) -> None:
    """Forget what is old enough. What goes wrong with that is no reason to plan less."""
    retention = _RETENTIONS.setdefault(services.fleet, Retention(services.settings))
    try:
        until = _BELIEFS.setdefault(services.fleet, Belief()).until(services.store, now)
        retention.step(services.store, begun, now, until)
    except TidegateError as error:
        _log.warning("what is old could not be forgotten: %s", error)


def _sweep(services: Services, now: int) -> None:
    """Forget uploads that lapsed; beside the planner where that waits for a store, once at a time."""
    if not services.blobs.remote:
        uploads.sweep(services, now)
        return
    before = _SWEEPS.get(services.fleet)
    if before is None or before.done():
        _SWEEPS[services.fleet] = services.threads.blobs.submit(uploads.sweep, services, now)


_SWEEPS: Final[WeakKeyDictionary[Fleet, "Future[int]"]] = WeakKeyDictionary()
_BELIEFS: Final[WeakKeyDictionary[Fleet, Belief]] = WeakKeyDictionary()
_RETENTIONS: Final[WeakKeyDictionary[Fleet, Retention]] = WeakKeyDictionary()


def _keep_house(conn: Connection, now: int) -> None:
    at = now - now % SAMPLE_S
    if not device_rows.is_sampled(conn, at):
        device_rows.sample_firmware(conn, at)
    admin_log.forget_answers(conn, now - KEPT_S)
