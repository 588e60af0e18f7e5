"""The cells of a server: an application of its own for each tenant beside the default one, opened and closed as the default tenant's database says.

What a cell shares with the server are bounds and intervals; what names people, receivers or products it has from a `tidegate.toml` in its own folder, or not at
all. One that cannot be opened is broken alone: it is tried again, and the others go on. Not decided here: which tenant a request is for (`front`), and which
tenants there are (`tenants`).
"""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from tidegate.core.errors import BusyError, ConfigError, RequestError, TidegateError
from tidegate.server import config, online, tenants
from tidegate.server.app import App
from tidegate.server.config import Settings
from tidegate.server.limits import RateLimit
from tidegate.server.store import Change, opening
from tidegate.server.store.scope import DEFAULT
from tidegate.server.store.shared import RESYNC
from tidegate.server.tenants import CHANGED, Tenant

#: Requests of people that may come at once, in seconds of their quota.
_BURST_S: Final = 10
#: What a tenant has from its own file or not at all: nothing of this is the default tenant's to give.
_OWN: Final[dict[str, object]] = {
    "webhooks": (),
    "mails": (),
    "oidc": None,
    "ingest": (),
    "caps": {},
    "gate_attributes": (),
    "status_public": False,
    "external_url": "",
}
#: What is said once for the whole server, and not in a tenant's file.
_SERVERS: Final = (
    "data_dir", "database_url", "database_password_file", "shared", "listen", "tls", "tls_cert", "tls_key",
    "trusted_proxies", "connections_per_address", "blobs_url", "blobs_endpoint", "blobs_public_endpoint",
    "blobs_region", "blobs_addressing", "blobs_ca_file", "accel_prefix", "accel_tenants", "log_level", "log_format", "tenants_strict",
)  # fmt: skip
_log = logging.getLogger("tidegate.tenants")

#: Opens the application of a tenant.
Open = Callable[[Settings], App]


class Cell:
    """A tenant as it stands, and its application where it is open."""

    def __init__(self, tenant: Tenant) -> None:
        """It is not open yet."""
        self.app: App | None = None
        self.wrong = ""
        self.take(tenant)

    def take(self, tenant: Tenant) -> None:
        """Have the tenant as it is said to be now; quotas and a suspension count at once."""
        self.tenant = tenant
        rate = tenant.quotas.requests_per_s
        self._rate = RateLimit(per_s=rate, burst=rate * _BURST_S) if rate else None
        if self.app is not None:
            self.app.store.scope.quotas = tenant.quotas

    def require_open(self) -> App:
        """Return the application.

        Raises:
            BusyError: `tenant.suspended`, `tenant.unavailable`.
        """
        name = self.tenant.name
        if not self.tenant.is_open:
            raise BusyError("tenant.suspended", f"the tenant {name} is not served at present")
        if self.app is None:
            raise BusyError("tenant.unavailable", f"the tenant {name} cannot be served just now")
        return self.app

    def require_rate(self, now: float) -> None:
        """Count a request of somebody who is no device.

        Raises:
            RequestError: `quota.requests`.
        """
        if self._rate is not None and not self._rate.take("", now):
            raise RequestError("quota.requests", "this tenant asks more often than it may")


class Cells:
    """Every cell of a server. Safe to call from any thread."""

    def __init__(self, app: App, opener: Open) -> None:
        """Follow which tenants there are, in the database of the default tenant's application. Nothing is opened before `arrange`."""
        self._app = app
        self._open = opener
        self._guard = threading.Lock()
        self._arranging = threading.Lock()
        self._cells: dict[str, Cell] = {}
        self._fresh: list[App] = []
        self._leaving: list[App] = []
        #: By host. Replaced, never changed.
        self.hosts: Mapping[str, Cell] = {}
        self.wake: Callable[[], None] = lambda: None
        self.read()
        app.store.subscribe(self._hear)
        app.services.cells = self

    @property
    def all(self) -> list[Cell]:
        """Return every cell, by name."""
        return [self._cells[name] for name in sorted(self._cells)]

    def of_name(self, name: str) -> Cell | None:
        """Return the cell of a tenant, or None."""
        return self._cells.get(name)

    def _hear(self, changed: tuple[Change, ...]) -> None:
        """Before whoever changed a tenant is answered: whom it suspends, nobody gets past any more."""
        if any(one.kind in {CHANGED, RESYNC.kind} for one in changed):
            self.read()
            self.wake()

    def read(self) -> None:
        """Read which tenants there are, and how they stand."""
        with self._guard:
            found = {one.name: one for one in self._app.store.read(tenants.listed)}
            cells: dict[str, Cell] = {}
            for name, tenant in found.items():
                known = self._cells.get(name)
                # a number tells one tenant from another that later has its name
                if known is not None and known.tenant.number == tenant.number:
                    known.take(tenant)
                    cells[name] = known
                else:
                    cells[name] = Cell(tenant)
            gone = [one for name, one in self._cells.items() if cells.get(name) is not one]
            self._leaving += [one.app for one in gone if one.app is not None]
            self._cells = cells
            self.hosts = {one.tenant.host: one for one in cells.values()}

    def arrange(self) -> None:
        """Open what should be open, and let go of what should not; `moved` has both."""
        with self._arranging:
            for cell in self.all:
                if cell.tenant.is_open and cell.app is None:
                    self._try(cell)
                elif not cell.tenant.is_open and cell.app is not None:
                    self._leaving.append(cell.app)
                    cell.app = None

    def moved(self) -> tuple[list[App], list[App]]:
        """Return the applications that were opened since this was last asked, and those that are to be stopped."""
        with self._arranging:
            opened, self._fresh = self._fresh, []
            closed, self._leaving = self._leaving, []
        return [one for one in opened if one not in closed], closed

    def _try(self, cell: Cell) -> None:
        tenant = cell.tenant
        try:
            settings = settings_of(self._app.services.settings, tenant.name, tenant.number)
            _prepare(settings)
            made = self._open(settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other tenants go on
            said = str(error) if isinstance(error, TidegateError) else type(error).__name__
            if said != cell.wrong:
                _log.exception("the tenant %s cannot be opened", tenant.name)
            cell.wrong = said
            return
        cell.app, cell.wrong = made, ""
        self._fresh.append(made)
        cell.take(cell.tenant)

    def close(self) -> None:
        """Close every cell. Safe to repeat."""
        with self._arranging:
            for cell in self.all:
                app, cell.app = cell.app, None
                if app is not None:
                    app.close()


def _prepare(settings: Settings) -> None:
    """Make the schema of a tenant where it has none; one that is older is left to `tidegate db upgrade`."""
    folder, url, tenant = Path(settings.data_dir), settings.database_address, settings.tenant
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if url and opening.schema(folder, url, tenant) is None:
        opening.upgrade(folder, url, tenant)


def data_left(server: Settings, name: str) -> bool:
    """Say whether there is data of a tenant of this name already.

    Raises:
        BusyError, ConfigError: `data.*`.
    """
    folder = tenants.folder_of(Path(server.data_dir), name)
    if opening.is_there(folder, "") or (folder / online.FOLDER).exists():
        return True
    url = server.database_address
    return bool(url) and opening.schema(folder, url, name) is not None


def settings_of(server: Settings, name: str, number: int = 0) -> Settings:
    """Return the settings of a tenant: those of the server, in a place of its own, with what its own file says.

    Args:
        server: of the default tenant.
        name: of the tenant; the default one's are the server's.
        number: of the tenant.

    Raises:
        ConfigError: `config.*`: what is wrong in its file.
    """
    if name == DEFAULT:
        return server
    folder = tenants.folder_of(Path(server.data_dir), name)
    blobs = f"{server.blobs_url.rstrip('/')}/{tenants.FOLDER}/{name}" if server.blobs_url else ""
    copies = f"{server.audit_copy.rstrip('/')}/{tenants.FOLDER}/{name}" if server.audit_copy else ""
    by_nginx = server.artifacts == "accel"
    placed = msgspec.structs.replace(
        server,
        **{
            **_OWN,
            "tenant": name,
            "tenant_number": number,
            "data_dir": folder,
            "blobs_url": blobs,
            "audit_copy": copies,
            # nginx knows the folder of payloads of the default tenant, and that of others where it was told so
            "artifacts": "stream" if by_nginx and not server.accel_tenants else server.artifacts,
            "accel_prefix": f"{server.accel_tenants.rstrip('/')}/{name}",
        },
    )
    path = folder / config.SEARCHED[0]
    if not path.is_file():
        return placed
    values = config.values_of(path)
    foreign = sorted(one for one in values if one in _SERVERS)
    if foreign:
        keys = {field: f"[{table}] {key}" for (table, key), (field, _) in config.KEYS.items()}
        named = ", ".join(keys.get(one, one) for one in foreign)
        raise ConfigError("config.invalid", f"{path}: {named} belongs into the server's own file")
    return msgspec.structs.replace(placed, **values)
