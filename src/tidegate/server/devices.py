"""Devices: how one proves who it is, and what an operator may do with it. What follows from a proof is in `server.identity`.

A device proves its key before anything is written.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from tidegate.core import codec, keys
from tidegate.core.errors import RequestError
from tidegate.core.keys import PublicKey
from tidegate.core.protocol import (
    ENROL_TYPE,
    REKEY_TYPE,
    SESSION_TYPE,
    EnrolBody,
    EnrolRequest,
    RekeyBody,
    RekeyRequest,
    SessionBody,
    SessionRequest,
)
from tidegate.server import quotas, snapshot
from tidegate.server.store import Connection, changes, device_queries, hot, identity_rows

#: States in which a device may say how it is: in quarantine it gets nothing, and is heard.
REPORTING: Final = frozenset({"accepted", "quarantined"})
#: What may follow what when an operator says so. A new key brings back more than this (`server.identity`).
_STEPS: Final = {
    "accepted": frozenset({"pending", "rejected", "quarantined"}),
    "rejected": frozenset({"pending"}),
    "revoked": frozenset({"pending", "accepted", "rejected", "quarantined"}),
    "quarantined": frozenset({"accepted"}),
    "decommissioned": frozenset({"pending", "accepted", "rejected", "quarantined", "revoked"}),
}
#: As many refusals as a device keeps (`protocol.DeviceState.refuses`).
_REFUSED_MAX: Final = 32
#: Keys of devices in these states never come back, under any name.
_RETIRING: Final = frozenset({"revoked", "decommissioned"})


class Confirmed(NamedTuple):
    """What a device confirmed. `left` is the digest of what it ran before; `back`: it was ordered back, so that it refuses that one from now on."""

    counter: int
    version: str
    sha256: str | None
    left: str | None
    back: bool


def open_enrolment(request: EnrolRequest) -> EnrolBody:
    """Return what a device says of itself, after it proved that it holds its key. Nothing is written before.

    Raises:
        PublisherError: `sig.*`.
    """
    peeked = codec.decode_document(keys.peek_payload(request.envelope), EnrolBody)
    key = keys.public_key(peeked.keytype, peeked.public_key)
    known = {one.keyid: key for one in request.envelope.signatures}
    return keys.open_document(request.envelope, ENROL_TYPE, EnrolBody, known)


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
        RequestError: `device.unknown`, `device.pending`, `device.revoked`.
    """
    peeked = codec.decode_document(keys.peek_payload(request.envelope), SessionBody)
    device = find(peeked.device_id)
    if device is None:
        raise RequestError("device.unknown", "no device of this id")
    key = key_of(device)
    known = {one.keyid: key for one in request.envelope.signatures}
    body = keys.open_document(request.envelope, SESSION_TYPE, SessionBody, known)
    require_reporting(device.state)
    return body, device


def open_rekey(request: RekeyRequest, find: Callable[[str], Any]) -> tuple[RekeyBody, Any]:
    """Return a re-key request's body and the device's row, after the device proved both its keys.

    A device that was cut off from the answer asks again with the same keys: then the new one is the present one, and its proof is enough.

    Raises:
        PublisherError: `sig.*`.
        RequestError: `device.unknown`, `device.pending`, `device.revoked`, `request.conflict`: the old key is not the device's.
    """
    peeked = codec.decode_document(keys.peek_payload(request.envelope), RekeyBody)
    device = find(peeked.device_id)
    if device is None:
        raise RequestError("device.unknown", "no device of this id")
    new, present = keys.public_key(peeked.keytype, peeked.public_key), key_of(device)
    known = keys.by_keyid((present, new))
    again = new.identity == present.identity
    body = keys.open_document(request.envelope, REKEY_TYPE, RekeyBody, known, 1 if again else 2)
    if device.state != "revoked":  # whose new key an operator may have approved
        require_reporting(device.state)
    if not again and body.old_key != device.key_sha256:
        raise RequestError("request.conflict", "the old key named is not this device's key")
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
        "decommissioned": "device.revoked",
        "quarantined": "device.quarantined",
    }.get(state)
    if code is not None:
        raise RequestError(code, f"this device is {state}")


def require_reporting(state: str) -> None:
    """Refuse a device that may not even say how it is.

    Raises:
        RequestError: `device.pending`, `device.revoked`.
    """
    if state not in REPORTING:
        require_accepted(state)


# --- what an operator does ---------------------------------------------------------------------------------------------


def set_state(conn: Connection, row: int, state: str, now: int) -> None:
    """Accept, reject, revoke, quarantine or decommission a device. Leaving `accepted` ends its sessions at once; doing it again changes nothing.

    Raises:
        RequestError: `device.unknown`; `request.conflict`: a device that was revoked comes back with a new key only, one that was decommissioned never.
    """
    device = device_queries.by_row(conn, row)
    if device is None:
        raise RequestError("device.unknown", f"row {row}")
    if device.state == state:
        return
    if device.state not in _STEPS[state]:
        raise RequestError(
            "request.conflict",
            f"a device that is {device.state} cannot become {state}",
            hint="a revoked device comes back with a new key: `tidegate device swap`"
            if device.state == "revoked"
            else "",
        )
    if state == "accepted":
        quotas.require_room_for_device(conn)
    if state in _RETIRING:
        identity_rows.retire_key(conn, device.key_sha256, row, state, now)
    move_to(conn, device, state, now)


def move_to(conn: Connection, device: Any, state: str, now: int, **values: Any) -> None:
    """Write a device's state with whatever goes with it, keep the count of devices by release right, and tell the fleet in memory. Decides nothing.

    Args:
        conn: of a unit of work on the writer.
        device: its row, as it stands.
        state: the new state; the same one is fine.
        now: unix seconds.
        values: other columns to change.
    """
    if device.state == "accepted" and state != "accepted":
        values.setdefault("key_gen", device.key_gen + 1)
    device_queries.change(conn, device.row, {"state": state, **values})
    step = (state == "accepted") - (device.state == "accepted")
    if step:
        hot.add_firmware(
            conn, device.tenant, device.product, device.variant, device.running_counter,
            device.running_version, step,
        )  # fmt: skip
    changes.bump(conn, "device", str(device.row), now)


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


def note_confirmed(conn: Connection, row: int, release: Confirmed) -> None:
    """Bring what is known of a device's slots and refusals up to an update that it confirmed.

    It tells both when it asks what to do, and after an update it may have nothing to ask for weeks. Meanwhile people would be shown slots of the time before,
    and an audience would be counted with devices that refuse the image which they were ordered back from. Where one of its parts lies beside the slots, its
    next question tells.

    Args:
        conn: the writer's connection.
        row: of the device.
        release: what it confirmed.
    """
    slots, refuses, apart = hot.standing(conn, row)
    left, sha256 = release.left, release.sha256
    if apart or not sha256 or left == sha256:
        return
    there = [name for name, one in slots.items() if one.get("sha256") == left]
    if (
        len(slots) == 2
        and len(there) == 1
        and all(one.get("sha256") != sha256 for one in slots.values())
    ):
        (other,) = set(slots) - set(there)
        slots[other] = {
            "state": "confirmed",
            "release_counter": release.counter,
            "version": release.version,
            "sha256": sha256,
        }
    gone = [left] if release.back and left else []
    refuses = [one for one in refuses if one not in {sha256, *gone}] + gone
    device_queries.change(conn, row, {"slots": slots, "refuses": refuses[-_REFUSED_MAX:]})


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
