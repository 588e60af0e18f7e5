"""What devices report: accepted once, stored, counted; and what has been counted, as evidence.

An event is idempotent by (device, seq). Outcomes count only when the device key signed them. One request is one unit of work: event rows, update rows and every
counter change together or not at all, and the answer leaves after the commit. What the counts mean for a rollout is decided in `tidegate.rollout`.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from msgspec import UNSET, UnsetType

from tidegate.core import codec
from tidegate.core.errors import TidegateError
from tidegate.core.keys import PublicKey, open_document
from tidegate.core.protocol import (
    EVENT_TYPE,
    SIGNED_KINDS,
    EventBody,
    EventItem,
    LogWish,
    Restart,
)
from tidegate.core.reasons import is_reason
from tidegate.rollout.model import Evidence, Exposure, Tally
from tidegate.server import device_logs, devices, identity, outcomes, permits, restarts, witnesses
from tidegate.server.gatekeeper import rooms
from tidegate.server.store import (
    Connection,
    changes,
    device_queries,
    gate_rows,
    hot,
    identity_rows,
    rollout_rows,
)
from tidegate.server.store.hot import DeviceRow, EventRow, UpdateRow

#: States in which the new slot may run without having been confirmed.
_TRYING: Final = outcomes.AFTER | {"lost"}

#: After these a log may be wanted, also when they are told again because the answer was lost.
_FAILURES: Final = frozenset({"failed", "reverted"})

Refusals = list[tuple[int, str]]

#: A device may claim this much more device time than has passed since it joined: clocks differ, and restored servers forget.
_AHEAD_S: Final = 86_400
#: Errors of one device that count: so many at once, and so many an hour of its time. Beyond that more of them say nothing more.
_ERRORS_AT_ONCE: Final = 1_000
_ERRORS_AN_HOUR: Final = 3_600

#: How far ahead of the highest number that is known one may be that nobody signed: of a hundred thousand years, and yet not the last one.
AHEAD_MAX: Final = 1 << 32
#: Most updates that one sweep ends, so that the writer stays free for others.
SWEEP_MAX: Final = 2_000


class Opened(NamedTuple):
    """An event whose form and signature are good, with the texts to store."""

    body: EventBody
    text: str
    envelope: str | None


class Accepted(NamedTuple):
    """What became of a request: `running` says that the device's release changed, `moved` which rollouts have news."""

    acked_seq: int
    running: bool
    moved: frozenset[int]
    harmed: bool
    want_log: LogWish | UnsetType = UNSET


def open_items(
    items: Sequence[EventItem], device_id: str, key: PublicKey | None
) -> tuple[list[Opened], Refusals]:
    """Check the form and signatures of events (untrusted) before anything is written.

    Args:
        items: of one request.
        device_id: of the token that brought them.
        key: the device's; None is enough where nothing is signed.

    Returns:
        The good ones in their order, and (seq, code) of the refused. One whose seq cannot be told is left out of both.
    """
    good: list[Opened] = []
    refused: Refusals = []
    for item in items:
        try:
            opened = _open(item, key)
        except TidegateError as error:
            if item.body is not None:
                refused.append((item.body.seq, error.code))
            continue
        body = opened.body
        if body.device_id != device_id:
            refused.append((body.seq, "request.invalid"))
        elif body.kind in SIGNED_KINDS and opened.envelope is None:
            refused.append((body.seq, "sig.threshold"))
        elif body.reason is not None and not is_reason(body.reason):
            refused.append((body.seq, "request.invalid"))
        else:
            good.append(opened)
    return good, refused


def _open(item: EventItem, key: PublicKey | None) -> Opened:
    if item.envelope is None:
        if item.body is None:
            raise TidegateError("request.invalid", "neither body nor envelope")
        return Opened(item.body, codec.encode(item.body).decode(), None)
    keys = {} if key is None else {one.keyid: key for one in item.envelope.signatures}
    body = open_document(item.envelope, EVENT_TYPE, EventBody, keys)
    return Opened(body, codec.encode(body).decode(), codec.encode(item.envelope).decode())


def accept(
    conn: Connection,
    row: int,
    opened: Sequence[Opened],
    refused: Refusals,
    now: int,
    *,
    quarantine: bool = True,
    logs: int = device_logs.PER_REASON,
    proved: bool = True,
) -> Accepted:
    """Store and count events of one device that are not stored yet.

    Args:
        conn: of a unit of work on the writer.
        row: the device's row.
        opened: from `open_items`.
        refused: from `open_items`: acknowledged, so that the device forgets them, and never counted.
        now: unix seconds of receipt.
        quarantine: whether a clone is put there, or only reported.
        logs: of how many failures of each rollout and reason a log is wanted.
        proved: whether the device showed its key just now, by opening a session.

    Raises:
        TidegateError: `device.unknown`, `device.revoked`, `device.pending`: since the request came in; `session.expired`: numbers so far ahead are taken of a
            device alone that showed its key just now.
    """
    device = hot.device(conn, row)
    if device is None:
        raise TidegateError("device.unknown", f"row {row}")
    devices.require_reporting(device.state)
    if any(_contradicts(conn, device, one) for one in opened if one.envelope is not None):
        identity.contradicted(conn, row, now, quarantine=quarantine)
    if not proved:
        _require_near(opened, refused, device.acked_seq)
    fresh = _fresh(opened, device.acked_seq)
    hot.put_events(conn, [_event_row(device, one, now) for one in fresh])
    fold = _Fold(conn, device, now, logs)
    for one in fresh:
        fold.take(one.body)
    fold.finish()
    seqs = [one.body.seq for one in fresh] + [seq for seq, _ in refused]
    acked = max([device.acked_seq, *seqs])
    boot_id = fresh[-1].body.boot_id if fresh else ""
    hot.touch_device(
        conn, row, acked_seq=acked, boot_id=boot_id, measured_until=fold.until, now=now
    )
    if fold.moved:
        changes.notify(conn, "outcome", "")
    ended = logs and any(one.body.kind in _FAILURES for one in opened)
    want_log = device_logs.wish(conn, row, now) if ended else UNSET
    return Accepted(acked, fold.device is not device, frozenset(fold.moved), fold.harmed, want_log)


def _require_near(opened: Sequence[Opened], refused: Refusals, acked_seq: int) -> None:
    """Insist that numbers which nobody signed are near what is known: what is below the highest is not counted any more, and numbers come to an end.

    A device is far ahead where the server was set back; told that its session is over, it opens another, and is proved. A thief of its token cannot.
    """
    told = [one.body.seq for one in opened if one.envelope is None]
    if max([*told, *(seq for seq, _ in refused)], default=0) > acked_seq + AHEAD_MAX:
        raise TidegateError("session.expired", "a number so far ahead wants a session of now")


def _contradicts(conn: Connection, device: DeviceRow, one: Opened) -> bool:
    """Say whether a device signed something else under this number before: what it sends again is the same, but for the boot that it comes from."""
    if one.body.seq > device.acked_seq:
        return False
    known = identity_rows.event(conn, device.row, one.body.seq)
    if known is None or known.envelope is None:
        return False
    before, body = codec.decode(known.body.encode(), EventBody), one.body
    return _told(before) != _told(body)


def _told(body: EventBody) -> tuple[object, ...]:
    return (body.kind, body.at, body.update, body.attempt, body.reason)


def _fresh(opened: Sequence[Opened], acked_seq: int) -> list[Opened]:
    """Return what is behind the number up to which everything was taken, in order, each number once: this alone says what counts (decisions/0038)."""
    by_seq: dict[int, Opened] = {}
    for one in opened:
        if one.body.seq > acked_seq:
            by_seq.setdefault(one.body.seq, one)
    return [by_seq[seq] for seq in sorted(by_seq)]


def _event_row(device: DeviceRow, one: Opened, now: int) -> EventRow:
    body = one.body
    return EventRow(
        device.tenant, device.row, body.seq, now, body.at, body.kind, body.update, body.attempt,
        body.reason, one.text, one.envelope,
    )  # fmt: skip


class _Fold:
    """Counts one request's events; holds what is summed before it is written."""

    def __init__(self, conn: Connection, device: DeviceRow, now: int, logs: int) -> None:
        self.logs = logs
        self.conn = conn
        self.device = device
        self.now = now
        self.moved: set[int] = set()
        self.harmed = False
        self._watching: list[tuple[int, int]] | None = None
        self._exposed: dict[tuple[int, str], list[int]] = {}
        self._measured: list[tuple[int, int, int]] = []
        self._named: list[tuple[int, str, float, int]] = []
        self.until = device.measured_until
        self._days: dict[str, int] = {}

    def take(self, body: EventBody) -> None:
        """Count one event."""
        # One that names an update comes with the update's own end, which is counted under the same reason.
        if body.kind == "security" and body.update is None:
            name = f"reason:{body.reason}" if body.reason else "security"
            self._days[name] = self._days.get(name, 0) + 1
            if body.reason == witnesses.FORK:
                witnesses.tell(self.conn, self.device.row, f"it says: {body.detail}", self.now)
        if body.update is not None:
            self._move(body, body.update)
        if body.running_counter and body.running_counter != self.device.running_counter:
            self._runs(body)
        if body.restart is not None:
            self._restarted(body.restart)
        if body.metrics is not None and body.metrics.device_s > 0:
            self._measure(body)

    def finish(self) -> None:
        """Write what was summed."""
        device = self.device
        if self._exposed:
            rows = [
                (rollout, device.variant, arm, errors, seconds)
                for (rollout, arm), (errors, seconds) in self._exposed.items()
            ]
            hot.add_exposure(self.conn, device.tenant, rows)
            alone = [
                (rollout, arm, device.row, device.variant, errors)
                for (rollout, arm), (errors, _) in self._exposed.items()
                if errors
            ]
            hot.add_device_errors(self.conn, device.tenant, alone)
        if self._measured:
            gate_rows.tell_measured(self.conn, device.tenant, device.row, self._measured, self.now)
        if self._named:
            gate_rows.tell_named(self.conn, device.tenant, device.row, self._named, self.now)
        if self._days:
            day = self.now // outcomes.DAY_S
            hot.add_daily(self.conn, device.tenant, day, device.product, self._days.items())

    def _move(self, body: EventBody, update_id: str) -> None:
        step = outcomes.TRANSITIONS.get(body.kind)
        if step is None:
            return
        old = hot.update_by_id(self.conn, update_id)
        if old is None or old.device_row != self.device.row or body.attempt != old.attempt:
            return
        sources, state = step
        if body.kind == "staged" and body.bytes:
            old = self._downloaded(old, body)
        if body.kind == "permit_returned" and not self._returned(old, body):
            return
        if old.state not in sources or not outcomes.may_follow(old, state):
            return
        new = self._moved(old, body, state)
        outcomes.book(self.conn, old, new, product=self.device.product, now=self.now)
        if body.kind == "permit_returned":
            rollout_rows.give_room(self.conn, old.rollout_id)
            self._give_back(old.rollout_id)
        elif new.state in outcomes.ENDED:
            rollout_rows.end_permits(self.conn, old.id)
        device_logs.note(self.conn, new, self.logs, self.now)
        self.moved.add(old.rollout_id)
        self.harmed = self.harmed or new.state in outcomes.HARMFUL
        if new.state == "confirmed":
            self._confirmed(body, new)

    def _give_back(self, rollout_id: int) -> None:
        """Give a permit back to the parts of the fleet that it was taken from."""
        device = device_queries.by_row(self.conn, self.device.row)
        if device is not None:
            rooms.give(self.conn, rollout_id, device)

    def _downloaded(self, update: UpdateRow, body: EventBody) -> UpdateRow:
        """Count a download that succeeded. Told late, as by a device that asks for its permit first, it moves nothing and counts all the same."""
        self._days["download.ok"] = self._days.get("download.ok", 0) + 1
        told = min(body.bytes, outcomes.BYTES_MAX)
        self._days["download.bytes"] = self._days.get("download.bytes", 0) + told
        known = update._replace(
            bytes=max(update.bytes, body.bytes), resumes=max(update.resumes, body.resumes)
        )
        hot.put_update(self.conn, known)
        outcomes.count_hour(self.conn, update, known, [], self.now)
        return known

    def _returned(self, update: UpdateRow, body: EventBody) -> bool:
        """Take a permit back; say whether the update is without one now. A question that has not come yet will not be granted any more."""
        if body.nonce is not None:
            permits.bar(self.conn, update, body.nonce, self.now)
        return rollout_rows.return_permits(self.conn, update.id, body.nonce)

    def _moved(self, old: UpdateRow, body: EventBody, state: str) -> UpdateRow:
        ended = state in outcomes.ENDED
        returned = body.kind == "permit_returned" or state == "declined"
        return old._replace(
            state=state,
            reason=body.reason if ended else None,
            detail=body.detail if ended else "",
            state_at=self.now,
            ended_at=self.now if ended else None,
            permitted_at=None if returned else old.permitted_at,
            deadline_at=self._deadline(old, state),
            bytes=max(old.bytes, body.bytes),
            resumes=max(old.resumes, body.resumes),
        )

    def _deadline(self, old: UpdateRow, state: str) -> int | None:
        if state == "verifying":
            return self.now + permits.deadlines(self.conn, old.rollout_id).confirm_s
        if state == "downloading":
            finish_s = permits.deadlines(self.conn, old.rollout_id).finish_s
            return self.now + finish_s if finish_s else None
        return old.deadline_at if state == "rebooting" else None

    def _confirmed(self, body: EventBody, update: UpdateRow) -> None:
        """The device accepted the new slot: from now on its errors count for this release."""
        told = devices.Confirmed(
            counter=update.release_counter,
            version=body.running_version,
            sha256=body.running_sha256,
            left=update.from_sha256,
            back=rollout_rows.is_way_back(self.conn, update.rollout_id),
        )
        devices.note_confirmed(self.conn, self.device.row, told)
        self._set_running(
            update.release_counter, body.running_sha256, body.running_version, self.now
        )

    def _runs(self, body: EventBody) -> None:
        """Note another release than known; a slot that is only being tried does not count as running."""
        if body.update is not None and body.kind not in {"confirmed", "reverted", "heartbeat"}:
            return
        trying = hot.updates_of(self.conn, self.device.row)
        if any(
            one.state in _TRYING and one.release_counter == body.running_counter for one in trying
        ):
            return
        self._set_running(body.running_counter, body.running_sha256, body.running_version, self.now)

    def _set_running(self, counter: int, sha256: str | None, version: str, at: int) -> None:
        old = self.device
        move_running(self.conn, old, counter, sha256, version, at)
        self.device = old._replace(
            running_counter=counter,
            running_sha256=sha256,
            running_version=version,
            confirmed_at=at,
        )

    def _restarted(self, told: Restart) -> None:
        """Keep what a device says of a restart that nobody asked for."""
        device = self.device
        known = restarts.Ends(*hot.ends_of(self.conn, device.row))
        ends, crashed = restarts.after(known, told, device.enrolled_at, self.now)
        if ends == known:
            return
        hot.put_ends(self.conn, device.row, ends)
        if ends.restarted_at != known.restarted_at or ends.restarts != known.restarts:
            name = f"restart:{ends.restart_cause}"
            self._days[name] = self._days.get(name, 0) + ends.restarts - known.restarts
            changes.notify(self.conn, "device", str(device.row))
        if crashed and device.state == "accepted":
            since = ends.restarts_from
            restarts.told_to(self.conn, device, since, self._watched(), self.now)

    def _watched(self) -> list[tuple[int, int]]:
        """Return the rollouts whose evidence is taken, asked for once."""
        if self._watching is None:
            self._watching = hot.watching(self.conn, self.device.tenant, self.device.product)
        return self._watching

    def _measure(self, body: EventBody) -> None:
        """Add errors and device time to both arms that this device belongs to: `updated` where it confirmed the rollout's release, else `control`."""
        metrics, device = body.metrics, self.device
        if device.state != "accepted":
            return  # two devices under one name: neither arm
        assert metrics is not None  # noqa: S101 - asked by the caller
        running = body.running_counter or device.running_counter
        if running != device.running_counter:
            return  # a slot that is being tried: neither arm
        errors, device_s = self._believed(metrics.errors, metrics.device_s)
        for rollout_id, counter in self._watched():
            arm = "updated" if running == counter and device.confirmed_at else "control"
            found = self._exposed.setdefault((rollout_id, arm), [0, 0])
            found[0] += errors
            found[1] += device_s
            if device_s:
                self._measured.append((rollout_id, errors, device_s))
                self._named += [
                    (rollout_id, name, amount * device_s / metrics.device_s, device_s)
                    for name, amount in (metrics.named or {}).items()
                ]

    def _believed(self, errors: int, device_s: int) -> tuple[int, int]:
        """Return what counts of a device's word: no more time than it can have lived, and no more errors than say something."""
        start = max(self.until, self.device.enrolled_at)
        lived = max(0, min(device_s, self.now + _AHEAD_S - start))
        self.until = start + lived
        return min(errors, _ERRORS_AT_ONCE + lived * _ERRORS_AN_HOUR // 3600), lived


def move_running(
    conn: Connection, device: DeviceRow, counter: int, sha256: str | None, version: str, at: int
) -> None:
    """Write what a device runs and keep the count of devices by release right."""
    hot.set_running(
        conn, device.row, counter=counter, sha256=sha256, version=version, confirmed_at=at
    )
    if counter != device.running_counter and device.state == "accepted":
        where = (device.tenant, device.product, device.variant)
        hot.add_firmware(conn, *where, device.running_counter, "", -1)
        hot.add_firmware(conn, *where, counter, version, 1)
    changes.notify(conn, "running", str(device.row))


#: What a deadline means that passes in this state.
_LOST: Final = {
    "offered": "lost.start", "downloading": "lost.finish", "verifying": "lost.confirm",
    "permitted": "lost.return", "rebooting": "lost.return",
}  # fmt: skip


def _waits(conn: Connection, update: UpdateRow) -> bool:
    """Say whether a device that has not begun, or not finished, is kept from it: by its rollout, or because it is held."""
    state = rollout_rows.state(conn, update.rollout_id)
    return state not in {"active", "completed"} or device_queries.is_held(conn, update.device_row)


def sweep_lost(conn: Connection, now: int) -> frozenset[int]:
    """End updates whose deadline passed as `lost`, and return the rollouts they belong to. Safe to repeat.

    A device that is heard again moves its update on (`outcomes.TRANSITIONS`).
    """
    moved: set[int] = set()
    for update in hot.overdue(conn, now, SWEEP_MAX):
        device = hot.device(conn, update.device_row)
        if update.state in outcomes.BEFORE and _waits(conn, update):
            later = permits.deadlines(conn, update.rollout_id)
            wait_s = later.start_s if update.state == "offered" else later.finish_s
            hot.put_update(conn, update._replace(deadline_at=now + wait_s if wait_s else None))
            continue
        product = device.product if device else ""
        outcomes.end(conn, update, "lost", _LOST[update.state], product=product, now=now)
        moved.add(update.rollout_id)
    return frozenset(moved)


def evidence(
    conn: Connection,
    rollout_id: int,
    audience: Mapping[tuple[str, str], int] | None = None,
) -> Evidence:
    """Return all that is known about a rollout, as the planner wants it.

    Args:
        conn: any connection.
        rollout_id: of the rollout.
        audience: how many devices belong to each (ring, variant); whoever plans counts them.
    """
    counted: dict[tuple[str, str], dict[str, int]] = {}
    reasons: dict[tuple[str, str], dict[str, int]] = {}
    for ring, variant, name, value in hot.tallies(conn, rollout_id):
        key = (ring, variant)
        if name.startswith("reason:"):
            if value:
                reasons.setdefault(key, {})[name[7:]] = value
        else:
            counted.setdefault(key, {})[name] = value
    for key, count in (audience or {}).items():
        counted.setdefault(key, {})["audience"] = count
    tallies = {
        key: Tally(**values, reasons=reasons.get(key, {})) for key, values in counted.items()
    }
    updated, control = _arms(conn, rollout_id, tallies)
    return Evidence(
        position=hot.newest_position(conn), tallies=tallies, updated=updated, control=control
    )


def _arms(
    conn: Connection, rollout_id: int, tallies: Mapping[tuple[str, str], Tally]
) -> tuple[dict[str, Exposure], dict[str, Exposure]]:
    """Return errors and device time by variant, of the updated and of the control arm."""
    confirmed: dict[str, int] = {}
    for (_, variant), tally in tallies.items():
        confirmed[variant] = confirmed.get(variant, 0) + tally.confirmed
    product = rollout_rows.product(conn, rollout_id)
    all_devices = device_queries.variants(conn, *product) if product else {}
    arms: dict[str, dict[str, Exposure]] = {"updated": {}, "control": {}}
    noisiest = hot.noisiest(conn, rollout_id)
    for variant, arm, errors, device_s in hot.exposures(conn, rollout_id):
        updated = confirmed.get(variant, 0)
        devices = updated if arm == "updated" else max(0, all_devices.get(variant, 0) - updated)
        top = noisiest.get(variant, 0) if arm == "updated" else 0
        arms[arm][variant] = Exposure(errors=errors, device_s=device_s, devices=devices, top=top)
    return arms["updated"], arms["control"]
