"""Leave to activate: granted in the database against what the plan leaves room for, and refused from the moment a halt is acknowledged.

Granted = exposed = past the point of no return; so the grant is durable before the answer leaves. Asking again with the same nonce gives the same permit,
unless the rollout was stopped meanwhile.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.protocol import PERMIT_VALID_S, PermitBody, PermitRequest
from tidegate.rollout import keeping
from tidegate.rollout.model import Deadlines, Policy
from tidegate.server import caps, outcomes, snapshot
from tidegate.server.gatekeeper import rooms
from tidegate.server.snapshot import Live
from tidegate.server.store import Connection, device_queries, hot, rollout_rows
from tidegate.server.store.hot import UpdateRow
from tidegate.server.store.rollout_rows import PermitRow

RETRY_S: Final = 60
AHEAD_RETRY_S: Final = 3600
_NO_CAPS: Final[Mapping[str, int]] = MappingProxyType({})


class Refused(NamedTuple):
    """No leave now: why, and when to ask again."""

    because: str
    retry_after_s: int = RETRY_S


def permit(
    conn: Connection,
    device_row: int,
    request: PermitRequest,
    now: int,
    retry_s: int = RETRY_S,
    caps_of_server: Mapping[str, int] = _NO_CAPS,
) -> PermitBody | Refused:
    """Grant or refuse leave to activate one update.

    Args:
        conn: of a unit of work on the writer: state is read and the grant is written in one transaction.
        device_row: of the device.
        request: from the device.
        now: unix seconds.
        retry_s: told to a device that has to wait.
        caps_of_server: how many devices with the same value of an attribute may be on their way at once (`server.caps`).

    Raises:
        RequestError: `device.unknown`, `request.not_found`, `request.conflict`.
    """
    device = device_queries.by_row(conn, device_row)
    update = hot.update_by_id(conn, request.update)
    if device is None:
        raise RequestError("device.unknown", f"row {device_row}")
    if update is None or update.device_row != device_row:
        raise RequestError("request.not_found", "no such update of this device")
    if update.attempt != request.attempt:
        raise RequestError("request.conflict", f"attempt {update.attempt} is the present one")
    known = rollout_rows.permit_for(conn, update.id, update.attempt, request.nonce)
    live_row = rollout_rows.live_one(conn, update.rollout_id)
    live = snapshot.read_live(conn, live_row) if live_row else None
    stopped = _stopped(conn, device, update, live, now)
    if known is not None and known.state == "granted":
        # Who asks again has not used it, or its answer was lost: a halt stops that one, too. It stays counted as let go.
        return Refused(stopped, retry_s) if stopped else _body(known, device.id)
    if known is not None:
        return Refused("this permit was returned; ask with a new nonce", retry_s)
    because = stopped if live is None else _obstacle(conn, device, update, live, request) or stopped
    because = because or _not_let_go(conn, device, live, now)
    valid_s = _valid_s(live, request)
    if not because and not valid_s:
        because, retry_s = "this rollout gives no leave ahead", AHEAD_RETRY_S
    if because:
        return Refused(because, retry_s)
    assert live is not None  # noqa: S101 - that would be an obstacle
    capped = caps.least(caps_of_server, live.rollout.policy.at_once_per)
    kept = caps.keep_count(conn, update.tenant, capped)
    full = caps.full(conn, device, capped, way_back=live.row.kind == "fallback")
    if full is not None:
        return Refused(str(full), retry_s)
    if update.state != "permitted":
        no_room = _take_room(conn, device, update, live)
        if no_room:
            return Refused(no_room, retry_s)
    caps.enter(conn, device, update, kept)
    return _grant(conn, device, update, request, valid_s, now)


def _stopped(conn: Connection, device: Any, update: UpdateRow, live: Live | None, now: int) -> str:
    """Return why nobody, or nobody of this kind, is let go in a rollout; or an empty string."""
    if live is None:
        return "the rollout is over"
    if live.row.release_state != "live" and live.row.kind == "install":
        return "the release was recalled"
    if not live.proceeds:
        return f"the rollout is {live.row.state}"
    isolated = live.rollout.isolated
    # an update may still be counted under a query that lets its device in again
    for variant in (update.variant, device.variant):
        if variant in isolated:
            return f"{variant} is isolated"
    queries = keeping.queries(isolated)
    attrs = snapshot.facts_of(conn, device, now).attrs if queries else {}
    kept_out = keeping.kept_out(queries, "", attrs)
    return f"{kept_out} is isolated" if kept_out else ""


def _take_room(conn: Connection, device: Any, update: UpdateRow, live: Live) -> str:
    """Take one permit from what is left; return an empty text, or why there is none. The parts of the fleet come first: they say more."""
    weighed = any(one.gate == "evidence" for one in live.rollout.policy.guards)
    if live.row.room is not None and live.row.room <= 0:
        weighed = False  # nothing is taken from parts when there is none at all
    because = rooms.take(conn, update.rollout_id, device) if weighed else ""
    if not because and not rollout_rows.take_room(conn, update.rollout_id):
        return "as many devices are on their way as the plan leaves room for"
    return because


def _not_let_go(conn: Connection, device: Any, live: Live | None, now: int) -> str:
    """Return why what was fetched ahead is not activated yet, or an empty string."""
    if live is None or not live.rollout.policy.prefetch:
        return ""
    return snapshot.activation_bar(live, snapshot.facts_of(conn, device, now))


def _obstacle(
    conn: Connection, device: Any, update: UpdateRow, live: Live, request: PermitRequest
) -> str:
    """Return why this device cannot be given leave, or an empty string."""
    if device.state != "accepted":
        return f"the device is {device.state}"
    if update.state not in outcomes.BEFORE | {"permitted"}:
        ended = f" ({update.reason})" if update.reason else ""
        return f"the update is {update.state}{ended}"
    if device.held:
        return "the device is held"
    digests = {one[3].digest for one in snapshot.targets_of(conn, live.row.release_id)}
    if request.slot_sha256 not in digests or request.release_counter != update.release_counter:
        return "the slot does not hold what was assigned"
    return ""


def _valid_s(live: Live | None, request: PermitRequest) -> int:
    """Return for how long leave is good, in seconds; 0 = it is asked for ahead, and the rollout does not give any."""
    if not request.ahead_s:
        return PERMIT_VALID_S
    return 0 if live is None else min(request.ahead_s, live.delivery.offline_permit_s)


def _grant(
    conn: Connection,
    device: Any,
    update: UpdateRow,
    request: PermitRequest,
    valid_s: int,
    now: int,
) -> PermitBody:
    # Given ahead it is exposed from now on: nothing that is said later reaches a device that is out of reach.
    # an older one whose answer was lost stays granted beside it until the device returns it
    row = _row(conn, update, request.nonce, request.slot_sha256, now)._replace(valid_s=valid_s)
    rollout_rows.put_permit(conn, row)
    # Silence counts from the last moment at which it may be used.
    later = valid_s if request.ahead_s else 0
    deadline = now + later + deadlines(conn, update.rollout_id).return_s
    new = update._replace(
        state="permitted",
        state_at=now,
        permitted_at=update.permitted_at or now,
        deadline_at=deadline,
    )
    outcomes.book(conn, update, new, product=str(device.product), now=now)
    return _body(row, str(device.id))


def bar(conn: Connection, update: UpdateRow, nonce: str, now: int) -> None:
    """Note that a question which may still be on its way is not to be granted: the device has given it up."""
    if rollout_rows.permit_for(conn, update.id, update.attempt, nonce) is None:
        row = _row(conn, update, nonce, "", now)
        rollout_rows.put_permit(conn, row._replace(state="returned"))


def deadlines(conn: Connection, rollout_id: int) -> Deadlines:
    """Return when silence of a rollout's devices becomes an outcome."""
    policy = rollout_rows.policy(conn, rollout_id)
    return msgspec.convert(policy, Policy).deadlines if policy else Deadlines()


def _row(conn: Connection, update: UpdateRow, nonce: str, slot_sha256: str, now: int) -> PermitRow:
    return PermitRow(
        id=f"p-{update.rollout_id}-{update.device_row}-{update.attempt}-{nonce[:12]}",
        tenant=update.tenant,
        update_id=update.id,
        attempt=update.attempt,
        nonce=nonce,
        slot_sha256=slot_sha256,
        gate_epoch=hot.gate_epoch(conn, update.tenant),
        granted_at=now,
        valid_s=PERMIT_VALID_S,
        state="granted",
    )


def _body(row: PermitRow, device_id: str) -> PermitBody:
    return PermitBody(
        tenant=row.tenant,
        device_id=device_id,
        permit=row.id,
        update=row.update_id,
        attempt=row.attempt,
        slot_sha256=row.slot_sha256,
        gate_epoch=row.gate_epoch,
        nonce=row.nonce,
        issued=row.granted_at,
        valid_s=row.valid_s,
    )
