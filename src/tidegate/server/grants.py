"""Grants of a way back: drafted here for a computed cohort, signed elsewhere by holders of incident keys, and taken in after a device's own checks.

The server cannot sign one. What it drafts is a proposal of exact bytes; what comes back must be those bytes, under enough signatures of the present root's
incident ring. Which devices are meant is fixed at the draft: the Merkle tree over their ids is kept as a blob (`server.granted` reads proofs from it).
"""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tidegate.core.codec import canonical
from tidegate.core.errors import PublisherError, RequestError
from tidegate.core.grant import (
    GRANT_MAX,
    GRANT_TYPE,
    VALID_MAX_S,
    Cohort,
    GrantBody,
    Leaving,
    Resume,
    Return,
    accept_grant,
    open_grant,
)
from tidegate.core.hardware import HardwareRange
from tidegate.core.keys import peek_payload
from tidegate.core.merkle import levels
from tidegate.core.metadata import RootDocument, parse_targets, product_role, root_extra
from tidegate.core.protocol import Envelope
from tidegate.core.release import ReleaseTarget
from tidegate.rollout import cohort
from tidegate.server import acts, audit, fallbacks, incidents, once, outcomes, reach
from tidegate.server.approvals import Rules
from tidegate.server.auth import Actor
from tidegate.server.fallbacks import WayBack
from tidegate.server.groups import Book
from tidegate.server.services import Services
from tidegate.server.store import Connection, changes, grant_rows, release_queries
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
#: A grant is drafted for this long unless somebody asks for less or more, in seconds.
VALID_S: Final = 14 * 86_400
#: Updates that may still bring a device to the build that is left, or have, without its being known yet.
_ON_THE_WAY: Final = (*sorted(outcomes.AFTER), "lost")


class GrantAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. `to` a release (empty = the newest good one below); `cohort` as in a fallback; `everybody`: for all devices, without a list.

    `valid_s` 0 = the usual time.
    """

    to: str = ""
    cohort: str = "exposed"
    everybody: bool = False
    valid_s: int = 0
    reason: str = ""


class GrantDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A draft: the envelope without signatures, and whom it would bring back."""

    envelope: Envelope
    way: WayBack


class GrantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A grant, as an incident shows it. `rollout` is the one that carries it out; empty = none does yet."""

    serial: int
    epoch: int
    state: str
    product: str
    leaves: str
    to: str
    devices: int
    everybody: bool
    signatures: int
    expires_at: int
    created_at: int
    created_by: str
    accepted_at: int | None
    accepted_by: str | None
    rollout: str


class _Cohort(msgspec.Struct, frozen=True, kw_only=True):
    """Who would be brought back."""

    ids: tuple[str, ...]
    way: WayBack


def draft(services: Services, incident: str, ask: GrantAsk, actor: Actor, now: int) -> GrantDraft:
    """Compute the affected cohort and write down the grant that would bring it back, unsigned.

    Args:
        services: the server's parts.
        incident: name of the incident (untrusted).
        ask: untrusted.
        actor: who asks.
        now: unix seconds.

    Raises:
        RequestError: `request.forbidden`, `request.not_found`, `request.invalid`, `request.confirmation_needed`: no reason; `request.conflict`: nobody would
            go back, or the release to go back to is not a good one. PublisherError: `meta.no_root`.
    """
    actor.require("rollout.fallback")
    if not ask.reason.strip():
        raise RequestError(
            "request.confirmation_needed", "a grant needs a reason: it is signed with it"
        )
    found = services.store.read(lambda conn: _cohort(conn, incident, ask, now))
    tree = [] if ask.everybody else levels(found.ids)
    blob = hashlib.sha256(b"".join(tree)).hexdigest() if tree else None
    if blob is not None:
        services.blobs.put(blob, iter(tree))

    def work(conn: Connection) -> GrantDraft:
        root = services.repository.root(conn)
        if root is None:
            raise PublisherError("meta.no_root", "no root of trust is published yet")
        body = _body(conn, root, incident, ask, found, tree[-1].hex() if tree else None, actor, now)
        payload = canonical(body)
        if len(payload) > GRANT_MAX:
            raise RequestError("request.invalid", "more images than one grant can name")
        envelope = Envelope(base64.b64encode(payload).decode(), GRANT_TYPE, ())
        _remember(conn, incident, body, payload, envelope, found, blob, actor, now)
        return GrantDraft(envelope=envelope, way=found.way)

    return services.store.write(once.once(work)).result()


def submit(
    services: Services,
    conn: Connection,
    incident: str,
    envelope: Envelope,
    actor: Actor,
    reason: str,
    rules: Rules,
    now: int,
) -> acts.Outcome:
    """Take in a signed grant (untrusted), checked as a device would, and order its devices back. The same again changes nothing.

    Args:
        services: the server's parts.
        conn: of a unit of work on the writer.
        incident: name of the incident that it was drafted for (untrusted).
        envelope: untrusted.
        actor: who hands it in.
        reason: why the devices are ordered back.
        rules: when a second person has to approve.
        now: unix seconds.

    Raises:
        PublisherError: the code with which devices would refuse it; `meta.no_root`.
        RequestError: as `fallbacks.order`; `request.not_found`: it was not drafted here.
    """
    actor.require("rollout.fallback")
    row = _drafted(conn, incident, envelope)
    root = services.repository.root(conn)
    role = product_role(str(row["product"]))
    document = release_queries.newest_document(conn, role)
    if root is None or document is None:
        raise PublisherError("meta.no_root", f"no root, or no {role}, is published")
    body = open_grant(envelope, root)
    accept_grant(body, root=root, document=parse_targets(document.body, role), now=now)
    way = msgspec.convert(row["way"], type=WayBack)
    if row["state"] != "accepted":
        values = {
            "state": "accepted",
            "envelope": msgspec.to_builtins(envelope),
            "accepted_at": now,
            "accepted_by": actor.name,
        }
        grant_rows.change(conn, int(row["id"]), values)
        text = (
            f"grant {body.serial} is signed by {len(envelope.signatures)} holders of incident keys"
        )
        _tell(conn, row, text, actor.name, now)
    way = msgspec.structs.replace(way, grant=int(row["id"]))
    return fallbacks.order(conn, way, actor, reason or body.reason, rules, now)


def of_incident(conn: Connection, incident: str) -> list[GrantFacts]:
    """Return an incident's grants, newest first.

    Raises:
        RequestError: `request.not_found`.
    """
    found = grant_rows.of_incident(conn, int(incidents.row_of(conn, incident)["id"]))
    return [_facts(conn, row) for row in found]


def envelope_of(conn: Connection, incident: str, serial: int) -> Envelope:
    """Return a grant of an incident as it stands: a draft without signatures, or what was accepted.

    Raises:
        RequestError: `request.not_found`.
    """
    for row in grant_rows.of_incident(conn, int(incidents.row_of(conn, incident)["id"])):
        if row["serial"] == serial:
            return msgspec.convert(row["envelope"], type=Envelope)
    raise RequestError("request.not_found", f"{incident} has no grant {serial}")


# --- the draft --------------------------------------------------------------------------------------------------------


def _cohort(conn: Connection, incident: str, ask: GrantAsk, now: int) -> _Cohort:
    row = _halted(conn, incident)
    release = _destination(conn, row, ask.to)
    wanted = reach.targets(conn, int(release["id"]))
    digests = {one.install.sha256 for one in wanted}
    audience = fallbacks.audience_of(row, ask.cohort)
    if ask.everybody and ask.cohort != "exposed":
        raise RequestError("request.invalid", "either everybody or a cohort")
    ids: list[str] = []
    counts = {"resident": 0, "elsewhere": 0, "refused": 0}
    variants: dict[str, int] = {}
    for device in _affected(conn, row, audience, now):
        where = fallbacks.standing(device, digests, int(release["security_version"]))
        if where != "refused" and reach.unsuited(wanted, device, fallback=True) is not None:
            where = "refused"
        counts[where] += 1
        if where != "refused":
            ids.append(str(device["id"]))
            variant = str(device["variant"])
            variants[variant] = variants.get(variant, 0) + 1
    if not ids:
        raise RequestError(
            "request.conflict", f"no device of this cohort could go back to {release['name']}"
        )
    way = WayBack(
        rollout=str(row["name"]),
        to=str(release["name"]),
        counter=int(release["counter"]),
        audience=audience,
        variants=dict(sorted(variants.items())),
        warnings=_warnings(counts),
        already=device_rows.running_count(conn, str(row["product"]), int(release["counter"])),
        **counts,
    )
    return _Cohort(ids=tuple(ids), way=way)


def _halted(conn: Connection, incident: str) -> Row:
    """Return the rollout that an incident is about."""
    found = incidents.row_of(conn, incident)
    row = rows.rollout_by_id(conn, int(found["rollout_id"])) if found["rollout_id"] else None
    if row is None or row["kind"] != "install":
        raise RequestError("request.conflict", f"{incident} is about no rollout to go back from")
    return row


def _destination(conn: Connection, row: Row, to: str) -> Row:
    counter = int(row["release_counter"])
    if to:
        release = acts.release_of(conn, to)
    else:
        lower = [
            one
            for one in release_queries.releases_of(conn, str(row["product"]))
            if one.state == "live" and one.counter < counter
        ]
        if not lower:
            raise RequestError(
                "request.conflict", f"no live release is older than {row['release']}"
            )
        release = acts.release_of(conn, max(lower, key=lambda one: one.counter).name)
    if release["product"] != row["product"] or release["counter"] >= counter:
        raise RequestError(
            "request.conflict", f"{release['name']} is no way back from {row['release']}"
        )
    if release["state"] != "live":
        raise RequestError("request.conflict", f"{release['name']} was recalled")
    return release


def _affected(conn: Connection, row: Row, audience: str, now: int) -> Iterator[Row]:
    """Yield the devices of an audience; those on their way to the build that is left count as if they ran it already."""
    matches = cohort.parse(audience).matches
    book = Book(conn)
    coming = grant_rows.past_return(conn, int(row["id"]), _ON_THE_WAY)
    for device in device_rows.devices(conn, states=("accepted",), product=str(row["product"])):
        attrs = book.attributes(device, now)
        if int(device["row"]) in coming:
            attrs = {**attrs, "counter": int(row["release_counter"])}
        if matches(attrs):
            yield device


def _warnings(counts: dict[str, int]) -> tuple[str, ...]:
    found = []
    if counts["elsewhere"]:
        found.append(f"{counts['elsewhere']:,} devices have to download it")
    if counts["refused"]:
        found.append(
            f"{counts['refused']:,} devices would refuse it (floor, hardware, channel): they stay"
        )
    return tuple(found)


def _body(
    conn: Connection,
    root: RootDocument,
    incident: str,
    ask: GrantAsk,
    found: _Cohort,
    merkle_root: str | None,
    actor: Actor,
    now: int,
) -> GrantBody:
    row = _halted(conn, incident)
    extra = root_extra(root)
    ring = extra.authorities.incident
    longest = min(ring.max_validity_s, VALID_MAX_S)
    valid_s = ask.valid_s or min(VALID_S, longest)
    if not 0 < valid_s <= longest:
        raise RequestError(
            "request.invalid", f"valid_s: 1 to {longest} s, as root says of the incident ring"
        )
    release = acts.release_of(conn, found.way.to)
    back = rows.artifacts(conn, int(release["id"]))
    epoch = extra.authorities.epoch
    product = str(row["product"])
    ranges: list[HardwareRange] = []
    for one in back:
        target = msgspec.convert(one["target"], type=ReleaseTarget)
        ranges += [each for each in target.hardware if each not in ranges]
    left = {one.install.sha256 for one in reach.targets(conn, int(row["release_id"]))}
    counter = int(row["release_counter"])
    return GrantBody(
        tenant=extra.tenant,
        product=product,
        epoch=epoch,
        # Serials follow the clock, so that a server restored from a backup does not give one out twice.
        serial=max(grant_rows.last_serial(conn, product, epoch) + 1, now),
        incident=incident,
        reason=ask.reason.strip()[:512],
        hardware=tuple(ranges),
        cohort=Cohort(all=True)
        if merkle_root is None
        else Cohort(merkle_root=merkle_root, count=len(set(found.ids))),
        leaving=tuple(Leaving(release_counter=counter, sha256=one) for one in sorted(left)),
        to=tuple(
            Return(
                path=one["path"],
                length=one["length"],
                sha256=one["sha256"],
                release_counter=int(release["counter"]),
                security_version=msgspec.convert(
                    one["target"], type=ReleaseTarget
                ).security_version,
            )
            for one in back
        ),
        resume=Resume(min_counter=counter + 1),
        issued=now,
        expires=now + valid_s,
        asked_by=actor.name[:64],
    )


def _remember(
    conn: Connection,
    incident: str,
    body: GrantBody,
    payload: bytes,
    envelope: Envelope,
    found: _Cohort,
    blob: str | None,
    actor: Actor,
    now: int,
) -> None:
    row = _halted(conn, incident)
    made: Row = {
        "product": body.product,
        "incident_id": incidents.row_of(conn, incident)["id"],
        "rollout_id": row["id"],
        "release_id": acts.release_of(conn, found.way.to)["id"],
        "epoch": body.epoch,
        "serial": body.serial,
        "state": "draft",
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
        "envelope": msgspec.to_builtins(envelope),
        "cohort_sha256": blob,
        "cohort_count": len(set(found.ids)),
        "way": msgspec.to_builtins(found.way),
        "expires_at": body.expires,
        "created_at": now,
        "created_by": actor.name,
    }
    grant_rows.add(conn, made)
    whom = "all devices" if body.cohort.all else f"{body.cohort.count:,} devices"
    text = f"grant {body.serial} is drafted: back to {found.way.to} for {whom}: {body.reason}"
    _tell(conn, {**made, "incident": incident}, text, actor.name, now)


def _tell(conn: Connection, row: Row, text: str, by: str, now: int) -> None:
    """Write what became of a grant into its incident and into the log."""
    name = str(row["incident"])
    incidents.write_event(conn, name, text, by, now)
    detail = {"serial": row["serial"], "payload_sha256": row["payload_sha256"], "text": text}
    audit.record(conn, now, by, "incident.grant", name, detail)
    changes.bump(conn, "incident", name, now)


def _drafted(conn: Connection, incident: str, envelope: Envelope) -> Row:
    digest = hashlib.sha256(peek_payload(envelope)).hexdigest()
    row = grant_rows.by_payload(conn, digest)
    if row is None or row["incident"] != incident:
        raise RequestError(
            "request.not_found",
            f"no grant of this content was drafted for {incident[:40]}",
            hint="draft it here first: tidegate incident grant draft",
        )
    return row


def _facts(conn: Connection, row: Row) -> GrantFacts:
    envelope = msgspec.convert(row["envelope"], type=Envelope)
    return GrantFacts(
        leaves=str(acts.row_of(conn, str(row["rollout"]))["release"]),
        to=str(row["release"]),
        devices=int(row["cohort_count"]),
        everybody=row["cohort_sha256"] is None,
        signatures=len(envelope.signatures),
        rollout=grant_rows.child_of(conn, int(row["id"])),
        **{
            name: row[name]
            for name in (
                "serial", "epoch", "state", "product", "expires_at", "created_at", "created_by",
                "accepted_at", "accepted_by",
            )
        },
    )  # fmt: skip
