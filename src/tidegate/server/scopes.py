"""The one place where a permission is checked against the thing that an act is about: REST, pages, and the stream of pages pass through `check`.

Every route declares a permission (`PERMISSION`) and what it is about (`ABOUT`): a thing that its path names, the whole fleet, a
list that is narrowed to what the actor sees, or something that only its body names, which the domain checks where it has read
it. Who may not see a thing is told that there is none.
"""

from collections.abc import Mapping
from typing import Any, Final

from tidegate.core.errors import RequestError
from tidegate.rollout import query
from tidegate.server import groups
from tidegate.server.actors import FLEET, Actor, Place, Sight
from tidegate.server.store import Connection, admin_devices, admin_incidents, admin_rollouts

#: Key of a handler's `opt` that names the permission which it takes; where the path names a verb, a permission by verb. A handler without one is refused.
PERMISSION: Final = "permission"
#: Value of `PERMISSION` for handlers that anybody who is signed in may call, or that decide for themselves who is let in.
ANYBODY: Final = "anybody"
#: Key of a handler's `opt` that says what it is about: a kind of `PLACES`, or one of the following.
ABOUT: Final = "about"
#: The whole fleet: the permission is needed in everything.
WHOLE: Final = "fleet"
#: A list, or a page of several: it shows what the actor sees.
LISTED: Final = "listed"
#: What the body names: the permission is needed somewhere, and the domain checks where (`Actor.require` with a place).
INSIDE: Final = "inside"

#: Acts that reach beyond a group, whatever they are about: devices that run a release, and releases, belong to a product.
_OF_PRODUCTS: Final = frozenset({"rollout.fallback", "release.recall", "release.publish"})

Row = dict[str, Any]


def demanded(opt: Mapping[str, Any], path: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return what a route demands: permission, what it is about, and the name of that in its path (untrusted).

    Raises:
        RequestError: `request.forbidden`: it declares nothing; `request.not_found`: it has no such verb.
    """
    permission, about = opt.get(PERMISSION), str(opt.get(ABOUT, ""))
    if isinstance(permission, Mapping):
        verb = str(path.get("verb", ""))
        if verb not in permission:
            raise RequestError("request.not_found", f"there is no act {verb[:40]!r} here")
        permission = permission[verb]
    if permission is None or (permission != ANYBODY and about not in KINDS):
        raise RequestError("request.forbidden", "this route names no permission")
    return str(permission), about, str(path.get("name", path.get("number", "")))


def check(conn: Connection, actor: Actor, permission: str, about: str, name: str, now: int) -> None:
    """Refuse whoever lacks a permission on the thing that an act is about. Reads the thing only where somebody's grants do not reach everywhere.

    Raises:
        RequestError: `request.forbidden`; `request.not_found`: there is no such thing, or the actor does not see it.
    """
    actor.require(permission)
    if about in {LISTED, INSIDE} or actor.allows(permission, FLEET):
        return
    if about == WHOLE:
        actor.require(permission, FLEET)
    place = PLACES[about](conn, name, actor.sight, now)
    if place is None or not sees(actor.sight, about, place):
        raise RequestError("request.not_found", f'no {about} "{name[:64]}"')
    if about == "release" and permission == "fleet.read":
        return
    if permission in _OF_PRODUCTS:
        place = Place(product=place.product)
    actor.require(permission, place)


def sees(sight: Sight, about: str, place: Place) -> bool:
    """Say whether a thing of a kind is seen."""
    return sight.sees_release(place.product) if about == "release" else sight.sees(place)


def sees_rollout(conn: Connection, sight: Sight, name: str) -> bool:
    """Say whether a rollout is seen; read only where not everything is."""
    if sight.whole:
        return True
    place = _rollout(conn, name, sight, 0)
    return place is not None and sight.sees(place)


def sees_incident(conn: Connection, sight: Sight, name: str) -> bool:
    """Say whether an incident is seen."""
    if sight.whole:
        return True
    place = _incident(conn, name, sight, 0)
    return place is not None and sight.sees(place)


def place_of_audience(product: str, audience: str) -> Place:
    """Return where a rollout of this product to this audience stands: in the groups that hold its whole audience."""
    return Place(product=product, groups=query.confined_to(query.parse(audience), "group"))


def place_of_rollout(conn: Connection, row: Row) -> Place:
    """Return where a rollout stands. A way back stands where the rollout stands that it leads back from."""
    if row["parent_id"]:
        parent = admin_rollouts.rollout_by_id(conn, int(row["parent_id"]))
        if parent is not None:
            return place_of_rollout(conn, parent)
    return place_of_audience(str(row["product"]), str(row["audience"]))


def place_of_device(conn: Connection, row: Row, sight: Sight, now: int) -> Place:
    """Return where a device stands. Groups are looked up only where somebody's sight depends on them."""
    found = groups.Book(conn).attributes(row, now)["group"] if sight.groups else ()
    return Place(product=str(row["product"]), groups=frozenset(found))


def _rollout(conn: Connection, name: str, sight: Sight, now: int) -> Place | None:
    del sight, now
    row = admin_rollouts.rollout(conn, name)
    return place_of_rollout(conn, row) if row is not None else None


def _release(conn: Connection, name: str, sight: Sight, now: int) -> Place | None:
    del sight, now
    row = admin_rollouts.release(conn, name)
    return Place(product=str(row["product"])) if row is not None else None


def _device(conn: Connection, name: str, sight: Sight, now: int) -> Place | None:
    row = admin_devices.device(conn, name)
    return place_of_device(conn, row, sight, now) if row is not None else None


def _incident(conn: Connection, name: str, sight: Sight, now: int) -> Place | None:
    del sight, now
    row = admin_incidents.by_name(conn, name)
    if row is None:
        return None
    found = (
        admin_rollouts.rollout_by_id(conn, int(row["rollout_id"])) if row["rollout_id"] else None
    )
    return place_of_rollout(conn, found) if found is not None else FLEET


def _approval(conn: Connection, name: str, sight: Sight, now: int) -> Place | None:
    number = int(name) if name.isascii() and name.isdigit() and len(name) < 16 else 0
    row = admin_rollouts.request(conn, number)
    return _rollout(conn, str(row["rollout"]), sight, now) if row is not None else None


def _group(conn: Connection, name: str, sight: Sight, now: int) -> Place | None:
    del sight, now
    row = admin_devices.group(conn, name)
    return Place(groups=frozenset({name})) if row is not None else None


def _claim(conn: Connection, name: str, sight: Sight, now: int) -> Place | None:
    del sight, now
    row = admin_devices.claim(conn, name)
    if row is None:
        return None
    return Place(product=str(row["product"]), groups=frozenset({row["group_name"] or ""} - {""}))


#: Kind of thing → where one stands, by its name; None = there is none.
PLACES: Final = {
    "rollout": _rollout,
    "release": _release,
    "device": _device,
    "incident": _incident,
    "approval": _approval,
    "group": _group,
    "claim": _claim,
}
KINDS: Final = frozenset(PLACES) | {WHOLE, LISTED, INSIDE}
