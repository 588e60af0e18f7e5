"""Devices over REST: look, ask why, let in, hold, tag, revoke."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from litestar import Controller, Response, delete, get, post, put
from litestar.params import JSONBody

from tidegate.core import words
from tidegate.core.errors import RequestError
from tidegate.server import audit, device_logs, devices, identity, inquiry, preauthorized, why
from tidegate.server.api import sorting
from tidegate.server.api.desk import (
    ABOUT,
    LISTED,
    PERMISSION,
    WHOLE,
    ApiRequest,
    Desk,
    DeskDep,
    InState,
    Matching,
    Name,
    Number,
    Text,
)
from tidegate.server.api.paging import Cursor, Limit, cursor_of, position_of
from tidegate.server.api.sorting import SORT, Sort
from tidegate.server.api.tags import MATCH, require_match, tag_of
from tidegate.server.api.wire import (
    Because,
    Devices,
    Events,
    FactoryList,
    LetIn,
    Logs,
    Preauthorized,
    Swap,
    Tags,
    Updates,
)
from tidegate.server.device_logs import LogFacts, LogText
from tidegate.server.facts import DeviceRecord, Why
from tidegate.server.preauthorized import Imported
from tidegate.server.store import Connection

#: Verb → the state that it leads to.
_STATES: Final = {
    "reject": "rejected",
    "revoke": "revoked",
    "decommission": "decommissioned",
}


class DeviceRoutes(Controller):
    """Everything about devices."""

    path = "/devices"
    tags = ("devices",)

    @get(
        "/",
        opt={PERMISSION: "fleet.read", ABOUT: LISTED, SORT: sorting.DEVICES},
        sync_to_thread=True,
    )
    def list_devices(
        self,
        request: ApiRequest,
        desk: DeskDep,
        matching: Matching = "",
        group: Text = "",
        in_state: InState = "",
        sort: Sort = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Devices:
        """List devices that match a query.

        By enrolment, unless `sort` says otherwise. `state` is the state of enrolment (accepted, pending, …); the query's own is the update's.
        """
        order = sorting.DEVICES.order(sort, cursor)
        asked = matching
        if group:
            asked = f"group:{group}" + (f" and ({matching})" if matching else "")
        items, more = desk.read(
            lambda conn: inquiry.devices(
                conn,
                desk.now,
                query=asked,
                state=in_state,
                order=order,
                limit=limit,
                sight=request.user.sight,
            )
        )
        return Devices(items=items, next=sorting.DEVICES.cursor(sort, more))

    @get("/{name:str}", opt={PERMISSION: "fleet.read", ABOUT: "device"}, sync_to_thread=True)
    def show(self, desk: DeskDep, name: Name) -> Response[DeviceRecord]:
        """Return a device."""
        found = desk.read(lambda conn: inquiry.device(conn, name, desk.now))
        return Response(found, headers={"ETag": device_tag(found)})

    @get("/{name:str}/why", opt={PERMISSION: "fleet.read", ABOUT: "device"}, sync_to_thread=True)
    def why(self, desk: DeskDep, name: Name) -> Why:
        """Say why a device is, or is not, updating."""
        return desk.read(
            lambda conn: why.tell(conn, name, desk.now, why.bounds_of(desk.services.settings))
        )

    @get(
        "/{name:str}/updates", opt={PERMISSION: "fleet.read", ABOUT: "device"}, sync_to_thread=True
    )
    def updates(self, desk: DeskDep, name: Name) -> Updates:
        """Return every update of a device, newest first."""
        return Updates(items=desk.read(lambda conn: inquiry.updates_of(conn, name)))

    @get(
        "/{name:str}/log",
        opt={PERMISSION: "fleet.read", ABOUT: "device", SORT: sorting.REPORTS},
        sync_to_thread=True,
    )
    def log(
        self, desk: DeskDep, name: Name, sort: Sort = "", cursor: Cursor = "", limit: Limit = 100
    ) -> Events:
        """Return what a device reported, newest first."""
        order = sorting.REPORTS.order(sort, cursor)
        items, more = desk.read(
            lambda conn: inquiry.events_of(conn, name, order=order, limit=limit)
        )
        return Events(items=items, next=sorting.REPORTS.cursor(sort, more))

    @get("/{name:str}/logs", opt={PERMISSION: "fleet.read", ABOUT: "device"}, sync_to_thread=True)
    def logs(self, desk: DeskDep, name: Name) -> Logs:
        """List the logs that were asked of a device after failures, newest first. At most five that came are kept."""

        def work(conn: Connection) -> list[LogFacts]:
            return device_logs.of_device(conn, int(inquiry.device_row(conn, name)["row"]))

        return Logs(items=desk.read(work))

    @get(
        "/{name:str}/logs/{number:int}",
        opt={PERMISSION: "fleet.read", ABOUT: "device"},
        sync_to_thread=True,
    )
    def log_text(self, desk: DeskDep, name: Name, number: Number) -> LogText:
        """Return a log that a device sent: its own words, without control characters and what looked like a secret."""

        def work(conn: Connection) -> LogText:
            return device_logs.show(conn, int(inquiry.device_row(conn, name)["row"]), number)

        return desk.read(work)

    @post(
        "/{name:str}/accept",
        opt={PERMISSION: "device.manage", ABOUT: "device", MATCH: True},
        status_code=200,
    )
    async def accept(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[LetIn]
    ) -> DeviceRecord:
        """Let a device in that asks to join. With a fingerprint, only the device that shows it."""

        def work(conn: Connection) -> None:
            row = inquiry.device_row(conn, name)
            if data.fingerprint:
                _compare(row, data.fingerprint)
            if row["state"] == "accepted":
                return
            if row["state"] == "quarantined":
                raise RequestError(
                    "request.conflict",
                    "cannot accept a device that is quarantined",
                    hint="give it a new key (`tidegate device swap`), or `tidegate device clear`",
                )
            devices.set_state(conn, int(row["row"]), "accepted", desk.now)
            compared = {"fingerprint": data.fingerprint} if data.fingerprint else {}
            detail = {"reason": data.reason, **compared}
            desk.note(conn, request.user, "device.accept", name, **detail)

        return await _done(request, desk, name, work)

    @post(
        ["/{name:str}/reject", "/{name:str}/revoke", "/{name:str}/decommission"],
        opt={PERMISSION: "device.manage", ABOUT: "device", MATCH: True},
        status_code=200,
    )
    async def enrolment(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> DeviceRecord:
        """Reject, revoke or decommission a device. Doing it again changes nothing."""
        verb = request.url.path.rstrip("/").rpartition("/")[2]
        if verb == "decommission" and not data.reason.strip():
            raise RequestError("request.invalid", "reason: it cannot be undone")

        def work(conn: Connection) -> None:
            row = inquiry.device_row(conn, name)
            if row["state"] == _STATES[verb]:
                return
            if verb == "reject" and row["state"] != "pending":
                raise RequestError(
                    "request.conflict", f"cannot reject a device that is {row['state']}"
                )
            devices.set_state(conn, int(row["row"]), _STATES[verb], desk.now)
            _record(conn, desk.now, request, f"device.{verb}", name, data.reason)

        return await _done(request, desk, name, work)

    @post(
        "/{name:str}/swap",
        opt={PERMISSION: "device.manage", ABOUT: "device", MATCH: True},
        status_code=200,
    )
    async def swap(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Swap]
    ) -> DeviceRecord:
        """Approve a new key for a device by its fingerprint: its board was swapped, or it is to leave quarantine or revocation."""

        def work(conn: Connection) -> None:
            row = inquiry.device_row(conn, name)
            beginning = words.key_beginning(data.fingerprint)
            identity.promise_key(conn, row, beginning, request.user.name, desk.now)

        return await _done(request, desk, name, work)

    @post(
        ["/{name:str}/rekey", "/{name:str}/clear"],
        opt={PERMISSION: "device.manage", ABOUT: "device", MATCH: True},
        status_code=200,
    )
    async def key(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> DeviceRecord:
        """`rekey`: have a device make itself a new key. `clear`: let it out of quarantine with the key that it has; takes a reason."""
        verb = request.url.path.rstrip("/").rpartition("/")[2]
        if verb == "clear" and not data.reason.strip():
            raise RequestError(
                "request.invalid", "reason: say how it is known that there is one device"
            )

        def work(conn: Connection) -> None:
            row = inquiry.device_row(conn, name)
            act = identity.order_rekey if verb == "rekey" else identity.clear
            act(conn, row, request.user.name, data.reason, desk.now)

        return await _done(request, desk, name, work)

    @post(
        ["/{name:str}/hold", "/{name:str}/unhold"],
        opt={PERMISSION: "device.manage", ABOUT: "device", MATCH: True},
        status_code=200,
    )
    async def hold(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> DeviceRecord:
        """Keep a device as it is, or let it go on."""
        verb = request.url.path.rstrip("/").rpartition("/")[2]

        def work(conn: Connection) -> None:
            row = inquiry.device_row(conn, name)
            if verb == "hold":
                devices.hold(conn, int(row["row"]), request.user.name, desk.now)
            elif row["held_by"] == "device":
                raise RequestError("request.conflict", "it is held on the device; let it go there")
            else:
                devices.unhold(conn, int(row["row"]), desk.now)
            _record(conn, desk.now, request, f"device.{verb}", name, data.reason)

        return await _done(request, desk, name, work)

    @put(
        "/{name:str}/tags",
        opt={PERMISSION: "device.manage", ABOUT: "device", MATCH: True},
        sync_to_thread=True,
    )
    def tags_of(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Tags]
    ) -> DeviceRecord:
        """Replace a device's tags."""

        def work(conn: Connection) -> None:
            row = inquiry.device_row(conn, name)
            devices.set_tags(conn, int(row["row"]), data.tags, desk.now)
            _record(conn, desk.now, request, "device.tag", name, ", ".join(data.tags))

        return desk.write(_changing(request, desk, name, work))


class FactoryRoutes(Controller):
    """Devices that the factory announced."""

    path = "/preauthorized"
    tags = ("devices",)

    @get("/", opt={PERMISSION: "fleet.read", ABOUT: WHOLE}, sync_to_thread=True)
    def list_entries(self, desk: DeskDep, cursor: Cursor = "", limit: Limit = 100) -> Preauthorized:
        """List the devices that the factory announced, in the order in which they came."""
        after = position_of(cursor)
        items, more = desk.read(lambda conn: preauthorized.listed(conn, after=after, limit=limit))
        return Preauthorized(items=items, next=cursor_of(more))

    @post(
        "/", opt={PERMISSION: "device.manage", ABOUT: WHOLE}, sync_to_thread=True, status_code=200
    )
    def take(self, request: ApiRequest, desk: DeskDep, data: JSONBody[FactoryList]) -> Imported:
        """Add devices to the factory's list. Each entry stands or falls by itself; sending it again changes nothing."""
        return desk.write(
            lambda conn: preauthorized.take(
                conn, data.entries, request.user, desk.services.repository.products(conn), desk.now
            )
        )

    @delete("/{key:str}", opt={PERMISSION: "device.manage", ABOUT: WHOLE}, sync_to_thread=True)
    def drop(self, request: ApiRequest, desk: DeskDep, key: Name) -> None:
        """Take a device that has not come yet off the list, by the digest of its key."""
        if not desk.write(lambda conn: preauthorized.drop(conn, key, request.user, desk.now)):
            raise RequestError("request.not_found", "no unused entry with this key")


async def _done(
    request: ApiRequest, desk: Desk, name: str, work: Callable[[Connection], None]
) -> DeviceRecord:
    return await asyncio.to_thread(desk.write, _changing(request, desk, name, work))


def _changing(
    request: ApiRequest, desk: Desk, name: str, work: Callable[[Connection], None]
) -> Callable[[Connection], DeviceRecord]:
    """Return `work` between a look whether the device is what the caller saw and a look at what became of it, in one transaction."""

    def both(conn: Connection) -> DeviceRecord:
        if "if-match" in request.headers:
            require_match(request, device_tag(inquiry.device(conn, name, desk.now)))
        work(conn)
        return inquiry.device(conn, name, desk.now)

    return both


def device_tag(device: DeviceRecord) -> str:
    """Return the tag of what people can edit of a device."""
    edited = (device.id, device.state, device.tags, device.held, device.held_by)
    return tag_of(*edited, device.key_sha256, device.key_promised, device.rekey)


def _compare(row: dict[str, Any], fingerprint: str) -> None:
    if not str(row["key_sha256"]).startswith(words.key_beginning(fingerprint)):
        raise RequestError(
            "request.conflict",
            "the fingerprint is not that of the key which asks",
            hint="read it from the device itself: `tidegate-agent status`",
        )


def _record(
    conn: Connection, now: int, request: ApiRequest, action: str, thing: str, reason: str
) -> None:
    audit.record(conn, now, request.user.name, action, thing, {"reason": reason})
