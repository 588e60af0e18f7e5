"""Which devices run a component below a version: parts of releases joined with what is installed.

A part is found by its name, by the source package that it was built from, or by its package URL; versions are compared as its packaging world compares them.
What a release without a bill of materials holds is unknown, and it is said how many devices run one.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tidegate.core.errors import PublisherError, RequestError
from tidegate.core.supply import purl, versions
from tidegate.server.reckoning import Installed, fits, ranges_of
from tidegate.server.store import Connection
from tidegate.server.store import supply as rows

Row = dict[str, Any]
#: Rows of devices looked at for one page.
_BATCH: Final = 500
_SCAN_MAX: Final = 20_000
NAME_MAX: Final = 300


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for.

    Attributes:
        name: of a part, in any case, or a package URL, of which a version is taken as that version exactly.
        below: only versions older than this; empty for all. A part without a version counts as older.
        product, release: only there.
        products: what is seen; None = everything.
    """

    name: str
    below: str = ""
    product: str = ""
    release: str = ""
    products: frozenset[str] | None = None


class PartFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a release. `devices` have it installed now; `sure` is False where the bill of materials gives no version."""

    name: str
    version: str
    purl: str
    type: str
    release: str
    component: str
    devices: int
    sure: bool


class GroupFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Devices of one variant and ring that run it, and when the first and the last of them confirmed it (unix seconds; 0 = factory image)."""

    variant: str
    ring: str
    devices: int
    first_at: int
    last_at: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. `devices` have at least one of the parts; `unknown` run a release whose parts nobody told."""

    devices: int
    unknown: int
    parts: tuple[PartFacts, ...]
    parts_in_all: int
    groups: tuple[GroupFacts, ...]
    near: tuple[str, ...] = ()


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A device that runs it. `since` is when it confirmed the release, unix seconds; 0 = factory image."""

    id: str
    product: str
    variant: str
    site: str
    ring: str
    release: str
    part: str
    version: str
    since: int
    last_seen: int


def find(conn: Connection, wanted: Wanted, *, skip: int = 0, limit: int = 50) -> tuple[Found, int]:
    """Return what is found, with one page of the parts, and where the next page begins (0 = there is none).

    Raises:
        RequestError: `request.invalid`.
    """
    matches = _matching(conn, wanted)
    installed = Installed(conn)
    page = matches[skip : skip + limit]
    found = Found(
        devices=installed.devices(matches),
        unknown=_unknown(conn, installed, wanted),
        parts=tuple(_part(one, installed) for one in page),
        parts_in_all=len(matches),
        groups=_groups(conn, matches),
        near=() if matches else _near(conn, wanted),
    )
    after = skip + len(page)
    return found, after if after < len(matches) else 0


def devices(
    conn: Connection,
    wanted: Wanted,
    *,
    after: int = 0,
    limit: int = 50,
    variant: str = "",
    ring: str | None = None,
    until: int = 0,
) -> tuple[list[DeviceFacts], int]:
    """Return devices that run it, by row number, and the cursor of the next page (0 = there is none).

    Raises:
        RequestError: `request.invalid`.
    """
    matches: dict[tuple[str, int], list[Row]] = {}
    for one in _matching(conn, wanted):
        matches.setdefault((one["product"], one["counter"]), []).append(one)
    made: list[DeviceFacts] = []
    looked = 0
    while len(made) <= limit and looked < _SCAN_MAX:
        found = rows.devices_running(
            conn, list(matches), after=after, limit=_BATCH, variant=variant, ring=ring, until=until
        )
        looked += len(found)
        for row in found:
            here = _installed_on(row, matches[row["product"], row["counter"]])
            if here is not None:
                if len(made) == limit:
                    return made, after
                made.append(_device(row, here))
            after = int(row["row"])
        if len(found) < _BATCH:
            return made, 0
    return made, after


def of_device(conn: Connection, device_id: str, wanted: Wanted) -> list[PartFacts]:
    """Return the matching parts of what one device runs.

    Raises:
        RequestError: `device.unknown`, `request.invalid`.
    """
    device = rows.device_row(conn, device_id)
    if device is None:
        raise RequestError("device.unknown", f"no device {device_id[:64]}")
    return [
        _part(one, Installed(conn))
        for one in _matching(conn, wanted)
        if (one["product"], one["counter"]) == (device["product"], device["counter"])
        and fits(ranges_of(one["target"]), device["variant"])
    ]


def _matching(conn: Connection, wanted: Wanted) -> list[Row]:
    """Return the parts that are looked for, each with the artifact that it is in."""
    name = wanted.name.strip()
    if not name or len(name) > NAME_MAX or len(wanted.below) > NAME_MAX:
        raise RequestError("request.invalid", f"name: 1 to {NAME_MAX} characters are wanted")
    version = ""
    key = ""
    if name.lower().startswith("pkg:"):
        try:
            package = purl.parse(name)
        except PublisherError as error:
            raise RequestError("request.invalid", f"name: {error.detail}") from error
        key, version, name = package.key, package.version, ""
    found = rows.parts_called(
        conn, name=name.lower(), key=key, product=wanted.product, release=wanted.release
    )
    return [
        one
        for one in found
        if _is_seen(one["product"], wanted) and _is_wanted(one, version, wanted.below)
    ]


def _near(conn: Connection, wanted: Wanted) -> tuple[str, ...]:
    """Return names that are near; they are kept for all products together, so only who sees all is told."""
    if wanted.products is not None:
        return ()
    return tuple(rows.parts_near(conn, wanted.name.lower()[:NAME_MAX]))


def _is_seen(product: str, wanted: Wanted) -> bool:
    return wanted.products is None or product in wanted.products


def _is_wanted(row: Mapping[str, Any], version: str, limit: str) -> bool:
    order = versions.order_of(row["type"])
    if version and versions.compare(order, row["version"], version) != 0:
        return False
    return not limit or not row["version"] or versions.below(order, row["version"], limit)


def _part(row: Row, installed: Installed) -> PartFacts:
    return PartFacts(
        name=row["name"],
        version=row["version"],
        purl=row["purl"],
        type=row["type"],
        release=row["release"],
        component=row["component"],
        devices=installed.devices([row]),
        sure=bool(row["version"]),
    )


def _unknown(conn: Connection, installed: Installed, wanted: Wanted) -> int:
    """Count devices that run a release without a bill of materials, factory images among them."""
    told = rows.covered(conn)
    return sum(
        count
        for (product, counter), count in installed.releases().items()
        if (product, counter) not in told
        and wanted.product in {"", product}
        and _is_seen(product, wanted)
    )


def _groups(conn: Connection, matches: list[Row]) -> tuple[GroupFacts, ...]:
    made_for: dict[tuple[str, int], list[Any]] = {}
    for one in matches:
        made_for.setdefault((one["product"], one["counter"]), []).append(ranges_of(one["target"]))
    sums: dict[tuple[str, str], GroupFacts] = {}
    for row in rows.running(conn, list(made_for)):
        if not any(fits(one, row["variant"]) for one in made_for[row["product"], row["counter"]]):
            continue
        name = (row["variant"], row["ring"])
        before = sums.get(name)
        sums[name] = GroupFacts(
            variant=row["variant"],
            ring=row["ring"],
            devices=row["devices"] + (before.devices if before else 0),
            first_at=min(row["first_at"], before.first_at if before else row["first_at"]),
            last_at=max(row["last_at"], before.last_at if before else row["last_at"]),
        )
    return tuple(sums[name] for name in sorted(sums))


def _installed_on(device: Row, parts: list[Row]) -> Row | None:
    """Return the first of the parts that a device has: the one in its slot, or one made for its hardware."""
    mine = [one for one in parts if fits(ranges_of(one["target"]), device["variant"])]
    in_slot = [one for one in mine if one["install_sha256"] == device["running_sha256"]]
    return next(iter(in_slot or mine), None)


def _device(row: Row, part: Row) -> DeviceFacts:
    return DeviceFacts(
        id=row["id"],
        product=row["product"],
        variant=row["variant"],
        site=row["site"],
        ring=row["ring"],
        release=part["release"],
        part=part["name"],
        version=part["version"],
        since=row["confirmed_at"],
        last_seen=row["last_seen"],
    )
