"""Devices over REST: look, ask why, let in, hold, tag, revoke."""

import asyncio
from typing import Final

from litestar import Controller, get, post, put
from litestar.params import FromPath, JSONBody

from tidegate.core.errors import RequestError
from tidegate.server import audit, devices, inquiry, why
from tidegate.server.api.desk import (
    PERMISSION,
    ApiRequest,
    Cursor,
    DeskDep,
    InState,
    Limit,
    Matching,
    Text,
    cursor_of,
    position_of,
)
from tidegate.server.api.wire import Because, Devices, Events, Tags, Updates
from tidegate.server.facts import DeviceRecord, Why
from tidegate.server.store import Connection

#: Verb → the state that it leads to, and the states that it may be given in.
_STATES: Final = {
    "accept": ("accepted", frozenset({"pending", "rejected", "quarantined"})),
    "reject": ("rejected", frozenset({"pending"})),
    "revoke": ("revoked", frozenset({"pending", "accepted", "rejected", "quarantined"})),
}


class DeviceRoutes(Controller):
    """Everything about devices."""

    path = "/devices"
    tags = ("devices",)

    @get("/", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def list_devices(
        self,
        desk: DeskDep,
        matching: Matching = "",
        group: Text = "",
        in_state: InState = "",
        cursor: Cursor = "",
        limit: Limit = 50,
    ) -> Devices:
        """List devices that match a query. `state` is the state of enrolment (accepted, pending, …); the query's own `state` is the update's."""
        after = position_of(cursor)
        asked = matching
        if group:
            asked = f"group:{group}" + (f" and ({matching})" if matching else "")
        items, more = desk.read(
            lambda conn: inquiry.devices(
                conn, desk.now, query=asked, state=in_state, after=after, limit=limit
            )
        )
        return Devices(items=items, next=cursor_of(more))

    @get("/{name:str}", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def show(self, desk: DeskDep, name: FromPath[str]) -> DeviceRecord:
        """Return a device."""
        return desk.read(lambda conn: inquiry.device(conn, name, desk.now))

    @get("/{name:str}/why", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def why(self, desk: DeskDep, name: FromPath[str]) -> Why:
        """Say why a device is, or is not, updating."""
        return desk.read(lambda conn: why.tell(conn, name, desk.now))

    @get("/{name:str}/updates", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def updates(self, desk: DeskDep, name: FromPath[str]) -> Updates:
        """Return every update of a device, newest first."""
        return Updates(items=desk.read(lambda conn: inquiry.updates_of(conn, name)))

    @get("/{name:str}/log", opt={PERMISSION: "fleet.read"}, sync_to_thread=True)
    def log(
        self, desk: DeskDep, name: FromPath[str], cursor: Cursor = "", limit: Limit = 100
    ) -> Events:
        """Return what a device reported, newest first."""
        before = position_of(cursor)
        items, more = desk.read(
            lambda conn: inquiry.events_of(conn, name, before=before, limit=limit)
        )
        return Events(items=items, next=cursor_of(more))

    @post(
        ["/{name:str}/accept", "/{name:str}/reject", "/{name:str}/revoke"],
        opt={PERMISSION: "device.manage"},
        status_code=200,
    )
    async def enrolment(
        self, request: ApiRequest, desk: DeskDep, name: FromPath[str], data: JSONBody[Because]
    ) -> DeviceRecord:
        """Accept, reject or revoke a device. Doing it again changes nothing."""
        verb = request.url.path.rstrip("/").rpartition("/")[2]
        target, allowed = _STATES[verb]

        def work(conn: Connection) -> None:
            row = inquiry.device_row(conn, name)
            if row["state"] == target:
                return
            if row["state"] not in allowed:
                raise RequestError(
                    "request.conflict", f"cannot {verb} a device that is {row['state']}"
                )
            devices.set_state(conn, int(row["row"]), target, desk.now)
            _record(conn, desk.now, request, f"device.{verb}", name, data.reason)

        await asyncio.to_thread(desk.write, work)
        return await asyncio.to_thread(desk.read, lambda conn: inquiry.device(conn, name, desk.now))

    @post(
        ["/{name:str}/hold", "/{name:str}/unhold"],
        opt={PERMISSION: "device.manage"},
        status_code=200,
    )
    async def hold(
        self, request: ApiRequest, desk: DeskDep, name: FromPath[str], data: JSONBody[Because]
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

        await asyncio.to_thread(desk.write, work)
        return await asyncio.to_thread(desk.read, lambda conn: inquiry.device(conn, name, desk.now))

    @put("/{name:str}/tags", opt={PERMISSION: "device.manage"}, sync_to_thread=True)
    def tags_of(
        self, request: ApiRequest, desk: DeskDep, name: FromPath[str], data: JSONBody[Tags]
    ) -> DeviceRecord:
        """Replace a device's tags."""

        def work(conn: Connection) -> None:
            row = inquiry.device_row(conn, name)
            devices.set_tags(conn, int(row["row"]), data.tags, desk.now)
            _record(conn, desk.now, request, "device.tag", name, ", ".join(data.tags))

        desk.write(work)
        return desk.read(lambda conn: inquiry.device(conn, name, desk.now))


def _record(
    conn: Connection, now: int, request: ApiRequest, action: str, thing: str, reason: str
) -> None:
    audit.record(conn, now, request.user.name, action, thing, {"reason": reason})
