"""Devices: how one joins, how it is recognised, what an operator may do with it.

A device proves its key before anything is written. Who claims to be a known device with another key is refused; so is a key of a device that was revoked.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from tidegate.core import codec, keys
from tidegate.core.errors import RequestError
from tidegate.core.keys import PublicKey
from tidegate.core.protocol import (
    ENROL_TYPE,
    SESSION_TYPE,
    EnrolAnswer,
    EnrolBody,
    EnrolRequest,
    SessionBody,
    SessionRequest,
)
from tidegate.server import snapshot
from tidegate.server.store import Connection, changes, device_queries, hot
from tidegate.server.store.hot import EventRow

#: How many of a device's last events are looked at to see whether an older boot id comes back.
_BOOTS_SEEN: Final = 64
#: Bits of attributes that have columns of their own.
_PLACES: Final = ("site", "region", "connectivity")


def open_enrolment(request: EnrolRequest) -> EnrolBody:
    """Return what a device says of itself, after it proved that it holds its key. Nothing is written before.

    Raises:
        PublisherError: `sig.*`.
    """
    peeked = codec.decode_document(keys.peek_payload(request.envelope), EnrolBody)
    key = keys.public_key(peeked.keytype, peeked.public_key)
    known = {one.keyid: key for one in request.envelope.signatures}
    return keys.open_document(request.envelope, ENROL_TYPE, EnrolBody, known)


def enrol(
    conn: Connection, body: EnrolBody, claim: str | None, now: int, *, approval: bool = True
) -> EnrolAnswer:
    """Take in a device, or say how a known one stands. Safe to repeat.

    Args:
        conn: of a unit of work on the writer.
        body: from `open_enrolment`.
        claim: the claim token that it brought (untrusted), or None.
        now: unix seconds.
        approval: whether a device without a claim may wait for a person.

    Raises:
        RequestError: `request.conflict` (the id is another key's), `claim.invalid`, `request.forbidden`.
    """
    digest = keys.device_key_sha256(body.keytype, body.public_key)
    known = device_queries.by_id(conn, body.device_id)
    if known is not None:
        if known.key_sha256 != digest:
            raise RequestError("request.conflict", "this device id belongs to another key")
        if known.state != "pending" or claim is None:
            return EnrolAnswer(device_id=known.id, state=_told(known.state))
    claimed = _check_claim(conn, body, claim, now) if claim is not None else None
    if claimed is None and not approval:
        raise RequestError("request.forbidden", "a claim token is needed here")
    state = "accepted" if claimed is not None else "pending"
    if known is None:
        row = device_queries.add(conn, _values(body, digest, state, now, claimed))
    else:
        row = known.row
        device_queries.change(
            conn, row, {"state": state, "claim_id": claimed.id if claimed else None}
        )
    if claimed is not None:
        if claimed.group_name:
            device_queries.join_group(conn, claimed.tenant, claimed.group_name, row, now)
            changes.bump(conn, "group", claimed.group_name, now)
        hot.add_firmware(conn, "default", body.product, body.hardware.variant, 0, "", 1)
    changes.bump(conn, "device", str(row), now)
    return EnrolAnswer(device_id=body.device_id, state=_told(state))


def _told(state: str) -> Any:
    """Return the state as devices are told it: a quarantined one learns no more than that it has to wait."""
    return "pending" if state == "quarantined" else state


def _check_claim(conn: Connection, body: EnrolBody, claim: str, now: int) -> Any:
    found = device_queries.claim_by_token(conn, hashlib.sha256(claim.encode()).hexdigest())
    if found is None or found.revoked_at is not None:
        raise RequestError("claim.invalid", "no such claim token")
    if found.expires_at <= now:
        raise RequestError("claim.invalid", "the claim token has expired")
    if found.product != body.product:
        raise RequestError("claim.invalid", f"the claim token is for {found.product}")
    if found.serials and body.hardware.serial not in found.serials:
        raise RequestError("claim.invalid", "this serial number is not on the claim's list")
    if not device_queries.use_claim(conn, found.id):
        raise RequestError("claim.invalid", f"all {found.max_count} uses of the claim are taken")
    return found


def _values(body: EnrolBody, digest: str, state: str, now: int, claim: Any) -> dict[str, Any]:
    own = {name: value for name, value in body.attributes.items() if name != snapshot.TAGS}
    places: dict[str, Any] = {name: own[name][:64] for name in _PLACES if name in own}
    if places.get("connectivity", "always") not in {"always", "intermittent"}:
        places["connectivity"] = "always"
    return {
        "id": body.device_id,
        "public_key": body.public_key,
        "keytype": body.keytype,
        "key_sha256": digest,
        "state": state,
        "product": body.product,
        "model": body.hardware.model,
        "rev": body.hardware.rev,
        "variant": body.hardware.variant,
        "serial": body.hardware.serial,
        "channel": body.channel,
        "attributes": own,
        "agent": body.agent,
        "slots": {},
        "refuses": [],
        "inhibitors": [],
        "last_seen": now,
        "enrolled_at": now,
        "claim_id": claim.id if claim is not None else None,
        **places,
    }


# --- sessions ---------------------------------------------------------------------------------------------------------


def key_of(device: Any) -> PublicKey:
    """Return a device's public key, from its row."""
    return keys.public_key(device.keytype, device.public_key)


def open_session(request: SessionRequest, find: Callable[[str], Any]) -> tuple[SessionBody, Any]:
    """Return a session request's body and the device's row, after the device proved its key.

    Args:
        request: untrusted.
        find: returns a device's row by id, or None.

    Raises:
        PublisherError: `sig.*`.
        RequestError: `device.unknown`, `device.pending`, `device.revoked`, `device.quarantined`.
    """
    peeked = codec.decode_document(keys.peek_payload(request.envelope), SessionBody)
    device = find(peeked.device_id)
    if device is None:
        raise RequestError("device.unknown", "no device of this id")
    key = key_of(device)
    known = {one.keyid: key for one in request.envelope.signatures}
    body = keys.open_document(request.envelope, SESSION_TYPE, SessionBody, known)
    require_accepted(device.state)
    return body, device


def require_accepted(state: str) -> None:
    """Refuse a device that may not take part.

    Raises:
        RequestError: `device.pending`, `device.revoked`, `device.quarantined`.
    """
    code = {
        "pending": "device.pending",
        "rejected": "device.revoked",
        "revoked": "device.revoked",
        "quarantined": "device.quarantined",
    }.get(state)
    if code is not None:
        raise RequestError(code, f"this device is {state}")


def begin_session(
    conn: Connection, row: int, body: SessionBody, now: int, *, quarantine: bool = True
) -> Any:
    """Note a session's boot id and agent; put the device into quarantine when an older boot comes back: two devices use one key.

    Returns:
        The device's row, as it stands afterwards.
    """
    device = device_queries.by_row(conn, row)
    if device is None:
        raise RequestError("device.unknown", f"row {row}")
    if body.boot_id and device.boot_id and body.boot_id != device.boot_id:
        note_boot(conn, device, body.boot_id, now, quarantine=quarantine)
    values = {"boot_id": body.boot_id, "agent": body.agent, "last_seen": max(now, device.last_seen)}
    device_queries.change(conn, row, values)
    changes.notify(conn, "device", str(row))
    return device_queries.by_row(conn, row)


def note_boot(
    conn: Connection, device: Any, boot_id: str, now: int, *, quarantine: bool = True
) -> bool:
    """Report, and put into quarantine, a device whose boot id was left for another one before; say whether it was one."""
    recent = hot.recent_boots(conn, device.row, _BOOTS_SEEN)
    if boot_id not in recent or recent[0] == boot_id:
        return False
    if quarantine:
        set_state(conn, device.row, "quarantined", now)
    # the server's own event: a device's are numbered from 1, so this number is nobody else's
    seq = -now
    text = codec.encode({"kind": "security", "reason": "security.clone", "boot_id": boot_id})
    hot.put_events(
        conn,
        [
            EventRow(
                device.tenant, device.row, seq, now, now, "security", None, 0, "security.clone",
                text.decode(), None,
            )
        ],
    )  # fmt: skip
    hot.add_daily(
        conn, device.tenant, now // 86_400, device.product, [("reason:security.clone", 1)]
    )
    changes.bump(conn, "device", str(device.row), now)
    return True


# --- what an operator does ---------------------------------------------------------------------------------------------


def set_state(conn: Connection, row: int, state: str, now: int) -> None:
    """Accept, reject, revoke or release a device. Leaving `accepted` ends its sessions at once.

    Raises:
        RequestError: `device.unknown`, `request.conflict`: a revoked device stays revoked.
    """
    device = device_queries.by_row(conn, row)
    if device is None:
        raise RequestError("device.unknown", f"row {row}")
    if device.state == "revoked" and state != "revoked":
        raise RequestError("request.conflict", "a revoked device enrols again with a new key")
    if device.state == state:
        return
    values: dict[str, Any] = {"state": state}
    if device.state == "accepted":
        values["key_gen"] = device.key_gen + 1
    device_queries.change(conn, row, values)
    step = (state == "accepted") - (device.state == "accepted")
    if step:
        hot.add_firmware(
            conn, device.tenant, device.product, device.variant, device.running_counter,
            device.running_version, step,
        )  # fmt: skip
    changes.bump(conn, "device", str(row), now)


def hold(conn: Connection, row: int, by: str, now: int) -> None:
    """Keep a device as it is until `unhold`. Safe to repeat."""
    device_queries.change(conn, row, {"held": 1, "held_by": by})
    changes.bump(conn, "device", str(row), now)


def unhold(conn: Connection, row: int, now: int) -> None:
    """End a hold of an operator's."""
    device_queries.change(conn, row, {"held": 0, "held_by": ""})
    changes.bump(conn, "device", str(row), now)


def set_tags(conn: Connection, row: int, tags: list[str], now: int) -> None:
    """Replace an operator's tags of a device.

    Raises:
        RequestError: `device.unknown`.
    """
    device = device_queries.by_row(conn, row)
    if device is None:
        raise RequestError("device.unknown", f"row {row}")
    attributes = {**device.attributes, snapshot.TAGS: sorted(set(tags))}
    device_queries.change(conn, row, {"attributes": attributes})
    changes.bump(conn, "device", str(row), now)


def slots_now(device: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the slots as told with the last question, brought up to the last outcome.

    A device tells its slots when it asks what to do, and what it runs with every outcome. If no slot holds what it runs, it switched since then, into the slot
    that did not run.
    """
    slots: dict[str, dict[str, Any]] = dict(device["slots"])
    digest = device["running_sha256"]
    confirmed = [name for name, one in slots.items() if one.get("state") == "confirmed"]
    unknown = digest and all(one.get("sha256") != digest for one in slots.values())
    if unknown and len(slots) == 2 and len(confirmed) == 1:
        (new,) = set(slots) - set(confirmed)
        slots[new] = {
            "state": "confirmed",
            "release_counter": device["running_counter"],
            "version": device["running_version"],
            "sha256": digest,
        }
    return slots
