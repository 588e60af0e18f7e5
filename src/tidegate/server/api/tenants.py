"""Tenants over REST, for whoever owns the server: in its default tenant alone, and nowhere else is there anything of this."""

from typing import Annotated, Any, Final, Literal

import msgspec
from litestar import Controller, get, patch, post
from litestar.params import JSONBody
from msgspec import Meta

from tidegate.core.errors import BusyError, RequestError
from tidegate.server import purging, quotas, tenants
from tidegate.server.actors import Grant
from tidegate.server.api.desk import (
    ABOUT,
    PERMISSION,
    REFUSALS,
    WHOLE,
    ApiRequest,
    Desk,
    DeskDep,
    DryRun,
    Name,
)
from tidegate.server.api.wire import Reason
from tidegate.server.auth import Auth
from tidegate.server.cells import Cell, Cells, data_left
from tidegate.server.purging import PurgePlan
from tidegate.server.store import Connection, device_queries
from tidegate.server.store.scope import Quotas
from tidegate.server.tenants import Tenant

Bound = Annotated[int, Meta(ge=0, le=1 << 53)]
_MANAGE: Final = {PERMISSION: "tenant.manage", ABOUT: WHOLE}


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant takes now. `events_today` is counted where there is a quota of them."""

    devices: int
    stored_bytes: int
    events_today: int


class TenantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant, as the API gives it.

    Attributes:
        name: of the tenant.
        number: in its devices' tokens.
        host: where it is asked for.
        state: `broken`: it should be served and cannot be; `wrong` says why.
        wrong: see there; empty = nothing.
        created_at, suspended_at, removed_at: unix seconds.
        created_by: who made it.
        quotas: what it may take, 0 = no bound.
        usage: what it takes; None = it is not open here.
    """

    name: str
    number: int
    host: str
    state: Literal["open", "suspended", "removed", "broken"]
    wrong: str
    created_at: int
    created_by: str
    suspended_at: int | None
    removed_at: int | None
    quotas: Quotas
    usage: Usage | None


class TenantList(msgspec.Struct, frozen=True, kw_only=True):
    """Every tenant beside the default one, by name."""

    items: list[TenantFacts]


class NewTenant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant that is to be made. Quotas that are not named are no bound."""

    name: Annotated[str, Meta(min_length=1, max_length=tenants.NAME_MAX)]
    host: Annotated[str, Meta(min_length=1, max_length=253)]
    devices_max: Bound = 0
    stored_max: Bound = 0
    uploads_max: Bound = 0
    events_per_day: Bound = 0
    requests_per_s: Bound = 0


class TenantChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to change; what is not named stays."""

    host: Annotated[str, Meta(min_length=1, max_length=253)] | None = None
    devices_max: Bound | None = None
    stored_max: Bound | None = None
    uploads_max: Bound | None = None
    events_per_day: Bound | None = None
    requests_per_s: Bound | None = None


class Purge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a tenant's data is destroyed, and the `plan_sha256` of what `dry_run=true` told."""

    reason: Reason = ""
    confirm: Annotated[str, Meta(max_length=64)] = ""


class MadeTenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant that was made, with its first account: the password and the token are in this answer, and nowhere else."""

    tenant: TenantFacts
    account: str
    password: str
    token: str


class TenantRoutes(Controller):
    """Tenants beside the default one."""

    path = "/tenants"
    tags = ("tenants",)

    @get("/", opt={**_MANAGE, REFUSALS: (404,)}, sync_to_thread=True)
    def list_tenants(self, desk: DeskDep) -> TenantList:
        """List tenants by name, removed ones too."""
        _cells(desk)
        return TenantList(items=[_facts(desk, one) for one in desk.read(tenants.listed)])

    @post("/", opt=_MANAGE, sync_to_thread=True, status_code=201)
    def add(self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewTenant]) -> MadeTenant:
        """Make a tenant with a database, keys and a first account of its own, and serve it at once."""
        cells = _cells(desk)
        settings, plain = desk.services.settings, msgspec.structs.asdict(data)
        name, host = plain.pop("name"), plain.pop("host")
        desk.read(lambda conn: tenants.require_new(conn, tenants.check_name(name), host))
        if data_left(settings, name):
            raise RequestError(
                "request.conflict", f"there is data of an earlier tenant {name}: move it away first"
            )
        by, now = request.user.name, desk.now
        made = desk.write(
            lambda conn: tenants.add(conn, name, host, Quotas(**plain), by, settings, now)
        )
        app = _open(cells, name)
        auth = Auth(app.store, token_bytes=app.services.randomness)
        password = auth.first_account(now) or ""
        token = auth.local_token(now, "")
        return MadeTenant(
            tenant=_facts(desk, made), account="admin", password=password, token=token
        )

    @get("/{name:str}", opt=_MANAGE, sync_to_thread=True)
    def show(self, desk: DeskDep, name: Name) -> TenantFacts:
        """Return a tenant: how it stands, its quotas, and what it takes of them."""
        _cells(desk)
        return _facts(desk, desk.read(lambda conn: tenants.of_name(conn, name)))

    @patch("/{name:str}", opt=_MANAGE, sync_to_thread=True)
    def edit(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[TenantChange]
    ) -> TenantFacts:
        """Give a tenant another host, or other quotas; they count at once."""
        _cells(desk)
        changed, settings = msgspec.structs.asdict(data), desk.services.settings
        by, now = request.user.name, desk.now
        return _facts(
            desk, desk.write(lambda conn: tenants.edit(conn, name, changed, by, settings, now))
        )

    @post("/{name:str}/suspend", opt=_MANAGE, sync_to_thread=True, status_code=200)
    def suspend(self, request: ApiRequest, desk: DeskDep, name: Name) -> TenantFacts:
        """Let nobody of a tenant in any more. Nothing is lost: devices come again by themselves."""
        return _act(desk, request, name, tenants.suspend)

    @post("/{name:str}/resume", opt=_MANAGE, sync_to_thread=True, status_code=200)
    def resume(self, request: ApiRequest, desk: DeskDep, name: Name) -> TenantFacts:
        """Serve a tenant again that was suspended."""
        return _act(desk, request, name, tenants.resume)

    @post("/{name:str}/remove", opt=_MANAGE, sync_to_thread=True, status_code=200)
    def remove(self, request: ApiRequest, desk: DeskDep, name: Name) -> TenantFacts:
        """Give up a tenant that is suspended. Its data is kept until it is purged."""
        return _act(desk, request, name, tenants.remove)

    @post("/{name:str}/restore", opt=_MANAGE, sync_to_thread=True, status_code=200)
    def restore(self, request: ApiRequest, desk: DeskDep, name: Name) -> TenantFacts:
        """Have a tenant back that was removed, suspended as it was."""
        return _act(desk, request, name, tenants.restore)

    @post("/{name:str}/purge", opt=_MANAGE, sync_to_thread=True, status_code=200)
    def purge(
        self,
        request: ApiRequest,
        desk: DeskDep,
        name: Name,
        data: JSONBody[Purge],
        dry_run: DryRun = False,
    ) -> PurgePlan:
        """Destroy what is left of a tenant that was removed: payloads, database, keys. It cannot be had back.

        The answer says what is lost, and the proof of its log that stays. `dry_run` tells it beforehand; `confirm` is its `plan_sha256`.
        Where there are two owners it takes the consent of the other. A purge that broke off is done again.
        """
        _cells(desk)
        settings = desk.services.settings
        tenant = desk.read(lambda conn: tenants.of_name(conn, name))
        plan = purging.foresee(settings, tenant)
        if dry_run:
            return plan
        if not data.reason.strip():
            raise RequestError("request.invalid", "reason: it cannot be undone")
        purging.require_confirmed(plan, data.confirm)
        by, now = request.user.name, desk.now
        spend = desk.accounts.require_consent(
            "purge", f"{name} {plan.plan_sha256[:24]}", (Grant("owner"),), request.user, now
        )

        def begin(conn: Connection) -> None:
            spend(conn)
            purging.begin(conn, plan, by, data.reason, now)

        desk.services.store.write(begin, urgent=True).result()
        purging.destroy(settings, tenant)
        desk.services.store.write(
            lambda conn: purging.finish(conn, tenant, by, now), urgent=True
        ).result()
        return plan


def _cells(desk: Desk) -> Cells:
    """Return the cells of this server.

    Raises:
        RequestError: `request.not_found`: this is a tenant's own API, or of no process that serves tenants.
    """
    found = desk.services.cells
    if not isinstance(found, Cells):
        raise RequestError("request.not_found", "tenants are managed at the server's own address")
    return found


def _act(desk: Desk, request: ApiRequest, name: str, act: Any) -> TenantFacts:
    _cells(desk)
    by, now = request.user.name, desk.now
    return _facts(desk, desk.write(lambda conn: act(conn, name, by, now)))


def _open(cells: Cells, name: str) -> Any:
    """Return the application of a tenant that was just made.

    Raises:
        BusyError: `tenant.unavailable`: it is noted and will be tried again; why it cannot be opened.
    """
    cells.arrange()
    cells.wake()
    cell = cells.of_name(name)
    if cell is None or cell.app is None:
        wrong = cell.wrong if cell is not None else ""
        raise BusyError("tenant.unavailable", f"{name} is noted, and cannot be opened yet: {wrong}")
    return cell.app


def _facts(desk: Desk, tenant: Tenant) -> TenantFacts:
    cell = _cells(desk).of_name(tenant.name)
    plain = {one: getattr(tenant, one) for one in Tenant.__struct_fields__}
    wrong = cell.wrong if cell is not None and tenant.is_open else ""
    return TenantFacts(
        **plain, state=_state(tenant, wrong), wrong=wrong, usage=_usage(cell, desk.now)
    )


def _state(tenant: Tenant, wrong: str) -> Literal["open", "suspended", "removed", "broken"]:
    if tenant.removed_at is not None:
        return "removed"
    if tenant.suspended_at is not None:
        return "suspended"
    return "broken" if wrong else "open"


def _usage(cell: Cell | None, now: int) -> Usage | None:
    if cell is None or cell.app is None:
        return None

    def work(conn: Connection) -> Usage:
        return Usage(
            devices=device_queries.accepted(conn),
            stored_bytes=quotas.stored_bytes(conn),
            events_today=quotas.events_today(conn, now),
        )

    return cell.app.store.read(work)
