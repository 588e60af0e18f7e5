"""Permits against what the last decision leaves: one is taken from every part of the fleet that the device is in, and from its site; all or none.

A part is a stratum, by name: `variant=gw1-r7`, `region=eu, class=always`. Every variant has a row, what is not told apart shares that of `other`; other strata
have one only while there are odds against them. A site has one as soon as anything happened there; until then it has room for one.

All of it happens in the transaction of the permit, and the rows are written in that of the decision, so no permit is ever granted beyond what was decided.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, Final

import msgspec

from tidegate.rollout.evidence.strata import CLASS, OTHER, REGION, VARIANT, Scheme
from tidegate.server.store import Connection, gate_rows

#: The release that a device runs, as an attribute of the gate.
FROM: Final = "from"
#: Permits of a site of which nothing is known.
FIRST_AT_SITE: Final = 1
#: Under no attribute: sites that do not count as one place.
_CROWDED: Final = ""
_KNOWN: Final = msgspec.json.Decoder(dict[str, tuple[str, ...]])
#: Classes of connection that the gate knows; whatever else a device says of itself is `other`.
_CLASSES: Final = frozenset({"always", "daily", "weekly", "monthly"})


def values_of(
    *,
    variant: str,
    region: str,
    connectivity: str,
    release: str,
    own: Mapping[str, Any],
    attributes: tuple[str, ...],
) -> dict[str, str]:
    """Return a device's attributes as the gate tells devices apart; what it does not have is `other`.

    Args:
        variant: of its hardware.
        region: empty = none.
        connectivity: as it says.
        release: that it runs, by name.
        own: its own attributes; untrusted.
        attributes: those of its own that are looked at.
    """
    found = {
        VARIANT: variant,
        REGION: region or OTHER,
        CLASS: class_of(connectivity),
        FROM: release or OTHER,
    }
    for name in attributes:
        if name not in found:
            value = own.get(name.removeprefix("attr."))
            plain = isinstance(value, str | int | float) and value != ""
            found[name] = str(value)[:80] if plain else OTHER
    return found


def known_text(scheme: Scheme, crowded: Iterable[str]) -> str:
    """Return what a permit has to know of a scheme, as it is stored.

    Args:
        scheme: of the rollout.
        crowded: sites of so many devices that they do not count as one place.
    """
    known = {name: scheme.known[name] for name in scheme.attributes}
    return msgspec.json.encode({**known, _CROWDED: tuple(sorted(crowded))}).decode()


def crowded_of(known: str) -> tuple[str, ...]:
    """Return the sites that do not count as one place, from what is stored."""
    return _KNOWN.decode(known).get(_CROWDED, ())


def class_of(connectivity: str) -> str:
    """Return the gate's class of what a device says of its connection."""
    return connectivity if connectivity in _CLASSES else OTHER


def _values(device: Any, attributes: tuple[str, ...]) -> dict[str, str]:
    return values_of(
        variant=str(device.variant),
        region=str(device.region),
        connectivity=str(device.connectivity),
        release=f"{device.product}-{device.running_version}" if device.running_version else "",
        own=device.attributes or {},
        attributes=attributes,
    )


def parts_of(values: Mapping[str, str], known: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names of all strata that a device may be in.

    Args:
        values: of the device.
        known: values that are told apart, by attribute, in the order of the scheme.
    """
    told = [
        (name, value if (value := values.get(name, OTHER)) in apart else OTHER)
        for name, apart in known.items()
    ]
    names = [
        ", ".join(f"{name}={value}" for name, value in chosen)
        for size in (1, 2)
        for chosen in combinations(told, size)
    ]
    return tuple(names)


def take(conn: Connection, rollout_id: int, device: Any) -> str:
    """Take one permit for a device; return an empty text, or why there is none, and then nothing was taken.

    Args:
        conn: in the transaction that grants.
        rollout_id: of the rollout.
        device: its row.
    """
    found = _held(conn, rollout_id, device)
    if found is None:
        return ""
    parts, site, rows = found
    no_room = _lacking(device, parts, rows)
    if no_room:
        return no_room
    if site and not any(one.kind == gate_rows.SITE for one in rows):
        first = (site, FIRST_AT_SITE, at_site(site))
        gate_rows.set_sites(conn, device.tenant, rollout_id, [first])
        rows.append(gate_rows.Room(gate_rows.SITE, *first))
    gate_rows.add_room(conn, rollout_id, -1, [(one.kind, one.name) for one in rows])
    return ""


def lacking(conn: Connection, rollout_id: int, device: Any) -> str:
    """Return why there is no permit left for a device, or an empty text. Reads only; arguments as of `take`."""
    found = _held(conn, rollout_id, device)
    return "" if found is None else _lacking(device, found[0], found[2])


def _lacking(device: Any, parts: tuple[str, ...], rows: list[gate_rows.Room]) -> str:
    if parts[0] not in {one.name for one in rows if one.kind == gate_rows.PART}:
        return f"{device.variant}: no permit was decided for it yet"
    for one in rows:
        if one.room <= 0:
            return one.because or f"{one.name}: as many are on their way as is proved"
    return ""


def give(conn: Connection, rollout_id: int, device: Any) -> None:
    """Give one permit back to whatever it was taken from."""
    found = _held(conn, rollout_id, device)
    if found is not None:
        gate_rows.add_room(conn, rollout_id, 1, [(one.kind, one.name) for one in found[2]])


def _held(
    conn: Connection, rollout_id: int, device: Any
) -> tuple[tuple[str, ...], str, list[gate_rows.Room]] | None:
    """Return the parts that a device is in, its variant first, its site, and what is left to them; None where no evidence is weighed."""
    text = gate_rows.known(conn, rollout_id)
    if not text:
        return None
    known = _KNOWN.decode(text)
    site = "" if device.site in known.pop(_CROWDED, ()) else str(device.site)
    parts = parts_of(_values(device, tuple(known)), known)
    return parts, site, gate_rows.rooms_of(conn, rollout_id, parts, site)


def at_site(site: str, *, doubted: bool = False) -> str:
    """Say why a site has no more room."""
    if doubted:
        return f"site {site}: there is doubt about the release; five at once at the most, and none for a day after a device failed there"
    return f"site {site}: as many are on their way as are proved healthy there"
