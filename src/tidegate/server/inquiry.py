"""What the API tells: rollouts, releases, devices and the fleet as plain structs, put together from rows. Nothing is changed here."""

from typing import Any, Final

import msgspec

from tidegate.core.authority import Mandate
from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.core.protocol import DeliveryPolicy
from tidegate.core.words import key_words
from tidegate.rollout import cohort, levels, terms
from tidegate.rollout.model import Policy
from tidegate.server import (
    acts,
    approvals,
    fallbacks,
    fixed,
    incidents,
    planning,
    scopes,
    snapshot,
)
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.devices import slots_now
from tidegate.server.facts import (
    ArtifactFacts,
    DeviceRecord,
    EventFacts,
    EvidenceFacts,
    ExposureFacts,
    LogLine,
    ReleaseFacts,
    RolloutFacts,
    Running,
    Status,
    TallyFacts,
    UpdateFacts,
)
from tidegate.server.gatekeeper.facts import gate_facts
from tidegate.server.gatekeeper.replay import Replayed, replay
from tidegate.server.groups import Book
from tidegate.server.store import Connection, admin_accounts, admin_log
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows
from tidegate.server.store import supply as supply_rows
from tidegate.server.store.ordering import NEWEST, OLDEST, Order

Row = dict[str, Any]
#: Rows of devices that one request looks at before it answers with what it has and a cursor.
SCAN_MAX: Final = 20_000
_BATCH: Final = 500
#: Devices in the order in which they enrolled, and their reports, the newest first.
ENROLLED: Final = Order(by="row", down=False)
REPORTED: Final = Order(by="position", down=True)


# --- rollouts --------------------------------------------------------------------------------------------------------


def rollout(conn: Connection, name: str, now: int) -> RolloutFacts:
    """Return a rollout; a halted one with the way back that its release allows.

    Raises:
        RequestError: `request.not_found`.
    """
    row = acts.row_of(conn, name)
    way_back = fallbacks.proposed(conn, row, now)
    snapshot_of = fixed.facts(conn, row["fixed"], row["created_at"]) if row["fixed"] else None
    return msgspec.structs.replace(_rollout(conn, row), way_back=way_back, snapshot=snapshot_of)


def rollouts(
    conn: Connection,
    *,
    states: tuple[str, ...] = (),
    order: Order = NEWEST,
    limit: int = 50,
    sight: Sight = SEES_ALL,
) -> tuple[list[RolloutFacts], Order | None]:
    """Return rollouts in an order (by `id` or `name`), and that of the next page.

    Those out of `sight` are left out: a page may be short, or empty, and still have a next one.
    """
    found, more = order.cut(rows.rollouts(conn, states=states, order=order, limit=limit + 1), limit)
    seen = [row for row in found if sight.whole or sight.sees(scopes.place_of_rollout(conn, row))]
    return [_rollout(conn, row) for row in seen], more


def evidence(conn: Connection, name: str, audience: planning.Audience, now: int) -> EvidenceFacts:
    """Return all that is known about a rollout.

    Raises:
        RequestError: `request.not_found`.
    """
    row = acts.row_of(conn, name)
    found = planning.evidence_of(conn, row, planning.model_of(row), audience, now)
    tallies = []
    for (ring, variant), tally in sorted(found.tallies.items()):
        derived = {"harmed": tally.harmed, "attempts": tally.attempts, "pending": tally.pending}
        fields = {**msgspec.structs.asdict(tally), **derived}
        tallies.append(TallyFacts(ring=ring, variant=variant, **fields))
    exposure = [
        ExposureFacts(
            variant=variant,
            arm=arm,
            errors=one.errors,
            device_s=one.device_s,
            devices=one.devices,
            top=one.top,
        )
        for arm, side in (("updated", found.updated), ("control", found.control))
        for variant, one in sorted(side.items())
    ]
    return EvidenceFacts(
        rollout=name,
        position=found.position,
        tallies=tuple(tallies),
        exposure=tuple(exposure),
        gate=gate_facts(conn, int(row["id"])),
    )


def replayed(conn: Connection, name: str) -> Replayed:
    """Book a rollout's log of evidence anew, and say whether it leads to what is kept.

    Raises:
        RequestError: `request.not_found`.
    """
    row = acts.row_of(conn, name)
    return replay(conn, name, int(row["id"]))


def story(
    conn: Connection, name: str, *, order: Order = OLDEST, limit: int = 500
) -> tuple[list[LogLine], Order | None]:
    """Return a rollout's story in an order (by `id`), and that of the next page.

    Raises:
        RequestError: `request.not_found`.
    """
    row = acts.row_of(conn, name)
    found, more = order.cut(
        admin_log.plan_log(conn, int(row["id"]), order=order, limit=limit + 1), limit
    )
    lines = [
        msgspec.convert({key: one[key] for key in LogLine.__struct_fields__}, type=LogLine)
        for one in found
    ]
    return lines, more


def mandate_of(row: Row) -> Mandate | None:
    """Return what the signers of a release, or of a rollout's release, allow."""
    return msgspec.json.decode(row["mandate"], type=Mandate) if row["mandate"] else None


def _rollout(conn: Connection, row: Row) -> RolloutFacts:
    parent = rows.rollout_by_id(conn, int(row["parent_id"])) if row["parent_id"] else None
    plain = {key: row[key] for key in RolloutFacts.__struct_fields__ if key in row}
    policy = msgspec.convert(row["policy"], type=Policy)
    delivery = msgspec.convert(row["delivery"], type=DeliveryPolicy)
    plain |= {
        "level": levels.level_of(policy, delivery),
        "terms": msgspec.to_builtins(terms.terms_of(policy, delivery)),
        "parent": parent["name"] if parent else None,
        "children": [one["name"] for one in rows.children(conn, int(row["id"]))],
        "incidents": [one.name for one in incidents.of_rollout(conn, int(row["id"]))],
        "mandate": msgspec.to_builtins(mandate_of(row)) if row["kind"] == "install" else None,
    }
    return msgspec.convert(plain, type=RolloutFacts)


# --- releases --------------------------------------------------------------------------------------------------------


def release(conn: Connection, name: str) -> ReleaseFacts:
    """Return a release with its artifacts.

    Raises:
        RequestError: `request.not_found`.
    """
    row = acts.release_of(conn, name)
    artifacts = [
        {key: one[key] for key in ArtifactFacts.__struct_fields__}
        for one in rows.artifacts(conn, int(row["id"]))
    ]
    return _release(conn, row, artifacts, supply_rows.attachments(conn, int(row["id"])))


def releases(
    conn: Connection,
    *,
    product: str = "",
    order: Order = NEWEST,
    limit: int = 50,
    sight: Sight = SEES_ALL,
) -> tuple[list[ReleaseFacts], Order | None]:
    """Return releases in an order (by `id`, `name`, or, of a product, `counter`), and that of the next page; those out of `sight` are left out.

    Raises:
        RequestError: `request.invalid`: an order by counters over several products.
    """
    if order.by == "counter" and not product:
        raise RequestError(
            "request.invalid", "sort: counters are in order within one product: name it"
        )
    found, more = order.cut(
        rows.releases(conn, product=product, order=order, limit=limit + 1), limit
    )
    seen = [row for row in found if sight.sees_release(str(row["product"]))]
    return [_release(conn, row, [], []) for row in seen], more


def _release(
    conn: Connection, row: Row, artifacts: list[Row], attachments: list[Row]
) -> ReleaseFacts:
    plain = {key: row[key] for key in ReleaseFacts.__struct_fields__ if key in row}
    devices = device_rows.running_count(conn, str(row["product"]), int(row["counter"]))
    plain |= {"devices": devices, "artifacts": artifacts, "attachments": attachments}
    plain["mandate"] = msgspec.to_builtins(mandate_of(row))
    plain["signers"] = [str(one) for one in row["signers"]]
    return msgspec.convert(plain, type=ReleaseFacts)


# --- devices ---------------------------------------------------------------------------------------------------------


def device_row(conn: Connection, device_id: str) -> Row:
    """Return a device's row.

    Raises:
        RequestError: `request.not_found`.
    """
    found = device_rows.device(conn, device_id)
    if found is None:
        near = did_you_mean(device_id, device_rows.matching_text(conn, device_id[:8]))
        raise RequestError("request.not_found", f'no device "{device_id[:64]}"{near}')
    return found


def device(conn: Connection, device_id: str, now: int) -> DeviceRecord:
    """Return a device.

    Raises:
        RequestError: `request.not_found`.
    """
    row = device_row(conn, device_id)
    newest = device_rows.newest_updates(conn, [int(row["row"])])
    return _device(row, Book(conn), newest.get(int(row["row"])), now)


def devices(
    conn: Connection,
    now: int,
    *,
    query: str = "",
    state: str = "",
    order: Order = ENROLLED,
    limit: int = 50,
    sight: Sight = SEES_ALL,
) -> tuple[list[DeviceRecord], Order | None]:
    """Return devices in `sight` that match a query (untrusted) in an order (by `row` or `id`), and that of the next page.

    A request looks at a bounded number of devices: a page may be short, or empty, and still have a next one.

    Raises:
        RequestError: `request.invalid`: the query.
    """
    wanted, shown = cohort.parse(query), cohort.parse(sight.query)
    book = Book(conn)
    found: list[DeviceRecord] = []
    scanned = 0
    while scanned < SCAN_MAX:
        batch = device_rows.ordered(conn, order, _BATCH, (state,) if state else ())
        newest = device_rows.newest_updates(conn, [int(one["row"]) for one in batch])
        for row in batch:
            order = order.behind(row[order.by])
            if state and row["state"] != state:
                continue
            update = newest.get(int(row["row"]))
            told = book.attributes(row, now, update)
            if not (shown.matches(told) and wanted.matches(told)):
                continue
            found.append(_device(row, book, update, now))
            if len(found) == limit:
                return found, order
        scanned += len(batch)
        if len(batch) < _BATCH:
            return found, None
    return found, order


def updates_of(conn: Connection, device_id: str) -> list[UpdateFacts]:
    """Return every update of a device, newest first.

    Raises:
        RequestError: `request.not_found`.
    """
    row = device_row(conn, device_id)
    return [_update(one) for one in device_rows.updates_of(conn, int(row["row"]))]


def events_of(
    conn: Connection, device_id: str, *, order: Order = REPORTED, limit: int = 100
) -> tuple[list[EventFacts], Order | None]:
    """Return what a device reported in an order (by `position`), and that of the next page.

    Raises:
        RequestError: `request.not_found`.
    """
    row = device_row(conn, device_id)
    found, more = order.cut(
        device_rows.events_of(conn, int(row["row"]), order=order, limit=limit + 1), limit
    )
    return [_event({**one, "device": device_id}) for one in found], more


def events(conn: Connection, *, after: int = 0, limit: int = 100) -> tuple[list[EventFacts], int]:
    """Return the event log in order behind a position, and the cursor of the next page (0 = nothing more yet)."""
    found = [_event(one) for one in device_rows.events(conn, after=after, limit=limit)]
    return found, found[-1].position if len(found) == limit else 0


def _device(row: Row, book: Book, update: Row | None, now: int) -> DeviceRecord:
    plain = {key: row[key] for key in DeviceRecord.__struct_fields__ if key in row}
    own = dict(row["attributes"])
    plain["tags"] = list(own.pop(snapshot.TAGS, ()))
    plain["attributes"] = own
    plain["groups"] = sorted(book.attributes(row, now)["group"])
    plain["held"] = bool(row["held"])
    plain["slots"] = slots_now(row)
    plain["rekey"] = bool(row["rekey"])
    plain["key_words"] = key_words(row["key_sha256"])
    if row["key_promised_until"] <= now:
        plain["key_promised"] = ""
    plain["update"] = _update(update) if update else None
    return msgspec.convert(plain, type=DeviceRecord)


def _update(row: Row) -> UpdateFacts:
    return UpdateFacts(**{key: row[key] for key in UpdateFacts.__struct_fields__})


def _event(row: Row) -> EventFacts:
    body = msgspec.json.decode(row["body"].encode())
    return EventFacts(
        position=row["position"],
        device=row["device"],
        seq=row["seq"],
        received_at=row["received_at"],
        at=row["at"],
        kind=row["kind"],
        update=row["update_id"],
        attempt=row["attempt"],
        reason=row["reason"],
        signed=row["envelope"] is not None,
        body=body if isinstance(body, dict) else {},
    )


# --- the fleet -------------------------------------------------------------------------------------------------------


def status(conn: Connection, now: int) -> Status:
    """Return the fleet on one screen."""
    sums: dict[tuple[str, int], list[Any]] = {}
    for one in device_rows.firmware(conn):
        entry = sums.setdefault((one["product"], one["counter"]), ["", 0])
        entry[0] = entry[0] or one["version"]
        entry[1] += one["devices"]
    counts = device_rows.device_counts(conn)
    active, _ = rollouts(conn, states=("active", "paused", "falling_back", "awaiting_approval"))
    found, _ = incidents.listed(conn, unclosed=True)
    return Status(
        at=now,
        devices=counts,
        seen_24h=device_rows.seen_since(conn, now - 86_400),
        firmware=tuple(
            Running(product=product, counter=counter, version=version, devices=count)
            for (product, counter), (version, count) in sorted(sums.items(), reverse=True)
            if count
        ),
        rollouts=rows.rollouts_by_state(conn),
        active=tuple(active),
        incidents=tuple(found),
        approvals=len(approvals.listed(conn, state="open")),
        pending_devices=counts.get("pending", 0),
        gate_epoch=admin_log.gate_epoch(conn),
        single_operator=approvals.is_single(conn),
        accounts=admin_accounts.account_count(conn),
    )
