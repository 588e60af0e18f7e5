"""What follows when a device has proved who it is: it joins, opens a session, changes its key; and when two turn out to be one.

Three ways in: the factory's list (its key was announced), a claim token, a person's approval. A key is one device's for ever: it is never taken under a second
name, and not again once it was replaced, revoked or decommissioned. Nothing here checks a signature; `server.devices` did.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from tidegate.core import codec, keys
from tidegate.core.errors import RequestError
from tidegate.core.protocol import EnrolAnswer, EnrolBody, RekeyAnswer, RekeyBody, SessionBody
from tidegate.core.protocol import session_ref as ref_of
from tidegate.core.words import key_words
from tidegate.server import audit, devices, keyring, quotas, snapshot
from tidegate.server.store import Connection, changes, device_queries, hot, identity_rows
from tidegate.server.store.hot import EventRow
from tidegate.server.store.scope import tenant_of
from tidegate.server.tokens import SKEW_S, Tokens, nonce_made
from tidegate.server.trail import Trail, Visit, follow, hinted_by_events

#: Bits of attributes that have columns of their own.
_PLACES: Final = ("site", "region", "connectivity")
#: An operator's word on a key that is to come is good for this long, in seconds.
PROMISE_S: Final = 7 * 86_400
#: Devices that may wait for a person at once: who asks needs no secret.
PENDING_MAX: Final = 10_000
#: Whose act it is in the audit when a device does it by itself.
_ITSELF: Final = "device"


# --- joining ---------------------------------------------------------------------------------------------------------


def enrol(
    conn: Connection, body: EnrolBody, claim: str | None, now: int, *, approval: bool = True
) -> EnrolAnswer | RequestError:
    """Take in a device, or say how a known one stands. Safe to repeat.

    Args:
        conn: of a unit of work on the writer.
        body: from `devices.open_enrolment`.
        claim: the claim token that it brought (untrusted), or None.
        now: unix seconds.
        approval: whether a device that nobody announced, and without a claim, may wait for a person.

    Returns:
        The answer; or an error to be raised once what was noted about it is durable.

    Raises:
        RequestError: `request.conflict` (the id is another key's, or the key another id's), `claim.invalid`, `request.forbidden`, `device.revoked`.
    """
    digest = keys.device_key_sha256(body.keytype, body.public_key)
    known = device_queries.by_id(conn, body.device_id)
    if known is not None and known.key_sha256 != digest:
        return _other_key(conn, known, body, digest, now)
    if known is not None and known.state != "pending":
        return EnrolAnswer(device_id=known.id, state=_told(known.state))
    if known is None:
        refused = _used_key(conn, body.device_id, digest, now)
        if refused is not None:
            return refused
    entry = _announced(conn, body, digest)
    claimed = _check_claim(conn, body, claim, now) if entry is None and claim is not None else None
    if known is not None and entry is None and claimed is None:
        return EnrolAnswer(device_id=known.id, state="pending")
    if entry is None and claimed is None:
        _require_room(conn, approval=approval)
    return _take_in(conn, known, body, digest, entry, claimed, now)


def _take_in(
    conn: Connection, known: Any, body: EnrolBody, digest: str, entry: Any, claimed: Any, now: int
) -> EnrolAnswer:
    state = "pending" if entry is None and claimed is None else "accepted"
    values = _values(body, digest, state, now)
    values["claim_id"] = claimed.id if claimed is not None else None
    if entry is not None:
        values["given"] = entry.attributes
        values["attributes"] = {**values["attributes"], **(entry.attributes or {})}
        values |= _places(values["attributes"])
        identity_rows.use_listed(conn, entry.id, now)
    if known is None:
        row = device_queries.add(conn, values)
    else:
        row = known.row
        device_queries.change(conn, row, values)
    if claimed is not None and claimed.group_name:
        device_queries.join_group(conn, claimed.group_name, row, now)
        changes.bump(conn, "group", claimed.group_name, now)
    if state == "accepted":
        quotas.require_room_for_device(conn)
        hot.add_firmware(conn, tenant_of(conn), body.product, body.hardware.variant, 0, "", 1)
    changes.bump(conn, "device", str(row), now)
    return EnrolAnswer(device_id=body.device_id, state=_told(state))


def _told(state: str) -> Any:
    """Return the state as devices are told it: one in quarantine goes on reporting, one that was decommissioned is told to stay away."""
    return {"quarantined": "accepted", "decommissioned": "revoked"}.get(state, state)


def _require_room(conn: Connection, *, approval: bool) -> None:
    if not approval:
        raise RequestError("request.forbidden", "a claim token is needed here")
    if identity_rows.pending_count(conn) >= PENDING_MAX:
        raise RequestError(
            "request.rate_limited", f"{PENDING_MAX:,} devices wait for a person already"
        )


def _used_key(conn: Connection, device_id: str, digest: str, now: int) -> RequestError | None:
    """Refuse a key that had its time, or that another device has: a copied image carries its key along."""
    if identity_rows.retired(conn, digest) is not None:
        raise RequestError("device.revoked", "this key was retired; a new one is needed")
    holders = identity_rows.holders(conn, digest)
    if not holders:
        return None
    for device in holders:
        said = f"its key was brought by {device_id}"
        note(conn, device, "security.clone", said, now, daily=True)
    return RequestError(
        "request.conflict",
        "this key belongs to another device",
        hint="a copied image carries the key along: delete device.key on the copy, then enrol it",
    )


def _announced(conn: Connection, body: EnrolBody, digest: str) -> Any:
    """Return the entry of the factory's list that this device is, or None when it says nothing of it.

    Raises:
        RequestError: `request.conflict`: the list names this id, or this key, and something else with it.
    """
    entry = identity_rows.listed_key(conn, digest)
    if entry is None:
        if identity_rows.listed_id(conn, body.device_id):
            raise RequestError("request.conflict", "the factory's list has another key for this id")
        return None
    said = {
        "device_id": body.device_id,
        "serial": body.hardware.serial,
        "product": body.product,
        "channel": body.channel,
    }
    for name, value in said.items():
        wanted = getattr(entry, name)
        if wanted is not None and wanted != value:
            word = name.replace("_", " ")
            raise RequestError("request.conflict", f"the factory's list has another {word} for it")
    return entry


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


def _values(body: EnrolBody, digest: str, state: str, now: int) -> dict[str, Any]:
    own = {name: value for name, value in body.attributes.items() if name != snapshot.TAGS}
    return {
        "id": body.device_id,
        "public_key": body.public_key,
        "keytype": body.keytype,
        "key_sha256": digest,
        "state": state,
        **_hardware(body),
        "channel": body.channel,
        "attributes": own,
        "agent": body.agent,
        "slots": {},
        "refuses": [],
        "inhibitors": [],
        "last_seen": now,
        "enrolled_at": now,
        **_places(own),
    }


def _hardware(body: EnrolBody) -> dict[str, Any]:
    return {
        "product": body.product,
        "model": body.hardware.model,
        "rev": body.hardware.rev,
        "variant": body.hardware.variant,
        "serial": body.hardware.serial,
    }


def _places(own: dict[str, Any]) -> dict[str, Any]:
    places: dict[str, Any] = {name: str(own[name])[:64] for name in _PLACES if name in own}
    if places.get("connectivity", "always") not in {"always", "intermittent"}:
        places["connectivity"] = "always"
    return places


# --- keys ------------------------------------------------------------------------------------------------------------


def promise_key(
    conn: Connection, device: dict[str, Any], beginning: str, by: str, now: int
) -> None:
    """Note which key an operator expects of a device next: after a board was swapped, or to leave quarantine or revocation.

    Args:
        conn: of a unit of work on the writer.
        device: its row.
        beginning: of the new key's digest, 16 hex digits or more (`core.words.key_beginning`): read from the device itself.
        by: the operator.
        now: unix seconds.

    Raises:
        RequestError: `request.conflict`: a decommissioned device never comes back; nor is its present key a new one.
    """
    if device["state"] == "decommissioned":
        raise RequestError("request.conflict", "a decommissioned device never comes back")
    if str(device["key_sha256"]).startswith(beginning):
        raise RequestError(
            "request.conflict",
            "that is the key which it has",
            hint="read the fingerprint of the new key: `tidegate-agent rekey` or `enrol` shows it",
        )
    values = {"key_promised": beginning, "key_promised_until": now + PROMISE_S}
    device_queries.change(conn, int(device["row"]), values)
    changes.bump(conn, "device", str(device["row"]), now)
    audit.record(conn, now, by, "device.swap", str(device["id"]), {"fingerprint": beginning})


def order_rekey(conn: Connection, device: dict[str, Any], by: str, reason: str, now: int) -> None:
    """Have a device make itself a new key; it hears of it with its next session.

    Raises:
        RequestError: `request.conflict`: it takes no part.
    """
    if device["state"] not in devices.REPORTING:
        raise RequestError("request.conflict", f"the device is {device['state']}")
    row = int(device["row"])
    # a session that is open would go on for a day: the device opens another one now
    device_queries.change(conn, row, {"rekey": 1, "key_gen": device["key_gen"] + 1})
    changes.bump(conn, "device", str(row), now)
    audit.record(conn, now, by, "device.rekey", str(device["id"]), {"reason": reason})


def _promised(device: Any, digest: str, now: int) -> bool:
    beginning = device.key_promised
    return bool(beginning) and digest.startswith(beginning) and now < device.key_promised_until


def _other_key(
    conn: Connection, known: Any, body: EnrolBody, digest: str, now: int
) -> EnrolAnswer | RequestError:
    """Answer who comes with a known id and another key: a swapped board that an operator approved, or nobody."""
    if known.state == "decommissioned":
        raise RequestError("device.revoked", "this id was retired; it is not given again")
    if not _promised(known, digest, now):
        raise RequestError(
            "request.conflict",
            "this device id belongs to another key",
            hint="was its board swapped? `tidegate device swap ID --fingerprint '...'`",
        )
    refused = _used_key(conn, body.device_id, digest, now)
    if refused is not None:
        return refused
    if known.product != body.product:
        raise RequestError("request.conflict", f"this device is a {known.product}")
    if known.state == "accepted":
        devices.move_to(conn, known, "pending", now)  # out of the count of what it was
        known = device_queries.by_row(conn, known.row)
    device_queries.change(conn, known.row, _hardware(body))
    fresh = device_queries.by_row(conn, known.row)
    _change_key(conn, fresh, body.keytype, body.public_key, digest, now)
    audit.record(conn, now, _ITSELF, "device.swapped", known.id, {"key": digest})
    return EnrolAnswer(device_id=known.id, state="accepted")


def rekey(conn: Connection, row: int, body: RekeyBody, now: int) -> RekeyAnswer | RequestError:
    """Give a device the new key that it made. Asking again with the same key is safe.

    A device in quarantine is not believed by its old key alone, since two have it: an operator approves the new one by its fingerprint (`promise_key`).

    Args:
        conn: of a unit of work on the writer.
        row: of the device.
        body: from `devices.open_rekey`.
        now: unix seconds.

    Returns:
        The answer; or an error to be raised once what was noted about it is durable.

    Raises:
        RequestError: `device.*`; `request.conflict`: the key was changed meanwhile, or the new one was in use before.
    """
    device = device_queries.by_row(conn, row)
    if device is None:
        raise RequestError("device.unknown", f"row {row}")
    digest = keys.device_key_sha256(body.keytype, body.public_key)
    if device.state != "revoked" or not _promised(device, digest, now):
        devices.require_reporting(device.state)
    if digest == device.key_sha256:
        return RekeyAnswer(state="done", key_gen=device.key_gen)
    if body.old_key != device.key_sha256:
        raise RequestError("request.conflict", "the old key named is not this device's key")
    if device.state == "quarantined" and not _promised(device, digest, now):
        return RekeyAnswer(state="pending", key_gen=device.key_gen)
    refused = _used_key(conn, device.id, digest, now)
    if refused is not None:
        return refused
    generation = _change_key(conn, device, body.keytype, body.public_key, digest, now)
    audit.record(conn, now, _ITSELF, "device.rekeyed", device.id, {"key": digest})
    return RekeyAnswer(state="done", key_gen=generation)


def _change_key(
    conn: Connection, device: Any, keytype: str, public: str, digest: str, now: int
) -> int:
    """Replace a device's key: sessions of the old one end at once, and it never comes back. Returns the new key generation."""
    identity_rows.retire_key(conn, device.key_sha256, device.row, "replaced", now)
    values = {
        "public_key": public,
        "keytype": keytype,
        "key_sha256": digest,
        "key_gen": device.key_gen + 1,
        "key_promised": "",
        "key_promised_until": 0,
        "rekey": 0,
        "trail": None,
    }
    if device.state != "accepted":
        quotas.require_room_for_device(conn)
    devices.move_to(conn, device, "accepted", now, **values)
    return int(device.key_gen) + 1


def clear(conn: Connection, device: dict[str, Any], by: str, reason: str, now: int) -> None:
    """Let a device out of quarantine with the key that it has: an operator found that there was one device only.

    Raises:
        RequestError: `request.conflict`: it is not in quarantine.
    """
    if device["state"] != "quarantined":
        raise RequestError("request.conflict", f"the device is {device['state']}")
    row = int(device["row"])
    device_queries.change(conn, row, {"trail": None})
    devices.set_state(conn, row, "accepted", now)
    audit.record(conn, now, by, "device.clear", str(device["id"]), {"reason": reason})


# --- sessions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What of the server's state a session depends on. `quarantine`: whether clones are put there, or only reported."""

    tokens: Tokens
    randomness: Callable[[int], bytes]
    lifetime_s: int
    quarantine: bool = True


class Opened(NamedTuple):
    """A session that was opened."""

    token: str
    expires_in_s: int
    acked_seq: int
    rekey: bool


def _asked_at(nonce: str, now: int) -> int:
    """Return from when on a session must have been asked for to follow one of this nonce; 0 for any time, where that was opened by a clock that was ahead.

    Else nobody who opened one meanwhile could open another until that time really comes.
    """
    made = nonce_made(nonce)
    return 0 if made > now + SKEW_S else made


def begin_session(
    conn: Connection, row: int, key_sha256: str, body: SessionBody, terms: SessionTerms, now: int
) -> Opened:
    """Open a session: every earlier one of this device is over.

    Args:
        conn: of a unit of work on the writer.
        row: of the device.
        key_sha256: of the key that signed the request.
        body: from `devices.open_session`, its nonce taken.
        terms: the server's.
        now: unix seconds.

    Raises:
        RequestError: `device.*`; `session.expired`: the key was changed meanwhile, or a later request was answered before this one.
    """
    device = device_queries.by_row(conn, row)
    if device is None:
        raise RequestError("device.unknown", f"row {row}")
    devices.require_reporting(device.state)
    if device.key_sha256 != key_sha256:
        raise RequestError("session.expired", "the key was replaced")
    last = device.session_nonce
    if body.nonce == last or nonce_made(body.nonce) < _asked_at(last, terms.tokens.agreed(now)):
        raise RequestError("session.expired", "a later request of this device came first")
    lifetime = _lifetime(terms)
    keyring.turn(conn, terms.tokens, now, 2 * terms.lifetime_s, terms.randomness)
    # who it is stands in the token; so the token of a device that is put into quarantine here is made afterwards
    token = terms.tokens.issue(row, device.key_gen, now, lifetime)
    trail = follow(trail_of(device), Visit(ref_of(token), body.previous), body.boot_id, now)
    caught = trail.is_clone(now)
    if caught:
        trail = msgspec.structs.replace(trail, hints=())
        _report_clone(conn, device, now, quarantine=terms.quarantine)
        device = device_queries.by_row(conn, row) or device
        token = terms.tokens.issue(row, device.key_gen, now, lifetime)
        visits = (*trail.visits[:-1], Visit(ref_of(token), trail.visits[-1].previous))
        trail = msgspec.structs.replace(trail, visits=visits)
    values = {
        "boot_id": body.boot_id,
        "agent": body.agent,
        "last_seen": max(now, device.last_seen),
        "session_at": terms.tokens.agreed(now),
        "session_nonce": body.nonce,
        "trail": msgspec.to_builtins(trail),
    }
    device_queries.change(conn, row, values)
    changes.notify(conn, "device", str(row))
    return Opened(token, lifetime, device.acked_seq, bool(device.rekey))


def _lifetime(terms: SessionTerms) -> int:
    """Return a token's life: as set, give or take a tenth, so that a fleet that started together does not come back together for ever."""
    spread = int.from_bytes(terms.randomness(2), "big") % 201 - 100
    return max(1, terms.lifetime_s + terms.lifetime_s * spread // 1000)


# --- clones ----------------------------------------------------------------------------------------------------------


def trail_of(device: Any) -> Trail:
    """Return a device's trail, from its row."""
    return msgspec.convert(device.trail, Trail) if device.trail else Trail()


def contradicted(conn: Connection, row: int, now: int, *, quarantine: bool = True) -> None:
    """Note that a device signed two different reports under one number; two hints within a week are a clone."""
    device = device_queries.by_row(conn, row)
    if device is None:
        return
    trail = hinted_by_events(trail_of(device), now)
    if trail.is_clone(now):
        trail = msgspec.structs.replace(trail, hints=())
        _report_clone(conn, device, now, quarantine=quarantine)
    device_queries.change(conn, row, {"trail": msgspec.to_builtins(trail)})


def _report_clone(conn: Connection, device: Any, now: int, *, quarantine: bool) -> None:
    if quarantine and device.state == "accepted":
        devices.move_to(conn, device, "quarantined", now)
    note(conn, device, "security.clone", f"two devices sign as {key_words(device.key_sha256)}", now)


def note(
    conn: Connection, device: Any, reason: str, detail: str, now: int, *, daily: bool = False
) -> None:
    """Write a security event of the server's own about a device; `daily`: the first of a day only."""
    # a device numbers its events from 1: a number below is nobody else's
    seq = -2 * (now - now % 86_400) - 2 if daily else -2 * now - 1
    if identity_rows.has_event(conn, device.row, seq):
        return
    body = {
        "device_id": device.id,
        "seq": seq,
        "at": now,
        "kind": "security",
        "reason": reason,
        "detail": detail,
    }
    text = codec.encode(body).decode()
    row = EventRow(
        device.tenant, device.row, seq, now, now, "security", None, 0, reason, text, None
    )
    hot.put_events(conn, [row])
    hot.add_daily(conn, device.tenant, now // 86_400, device.product, [(f"reason:{reason}", 1)])
    changes.bump(conn, "device", str(device.row), now)
