"""Server settings: `tidegate.toml`, its drop-ins, the environment, then options; later wins. Every mistake is listed at once, with the nearest known key.

No file at all is a working configuration. Secrets have no inline form.
"""

import functools
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from tidegate.core.amounts import parse_duration, parse_share, parse_size
from tidegate.core.errors import ConfigError, PublisherError, RequestError
from tidegate.core.keys import PublicKey, public_key, public_key_from_pem
from tidegate.core.nearest import did_you_mean
from tidegate.core.release import Channel
from tidegate.core.supply.policy import IngestRule, Need, Pattern
from tidegate.rollout import presets
from tidegate.server import address
from tidegate.server import config_values as read
from tidegate.server.actors import read_grants
from tidegate.server.blobs import Where
from tidegate.server.people.limits import Oidc

SEARCHED: Final = ("tidegate.toml", "/etc/tidegate/tidegate.toml")


class Webhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[webhook]]`: where to call when something happens, signed by the Standard Webhooks scheme.

    Attributes:
        name: of the channel.
        url: http or https; redirects are not followed.
        events: which; empty = all.
        secret_file: what signs, `whsec_BASE64` or other text of at least 24 bytes; with several lines each signs, so that one can be changed for another.
    """

    name: str
    url: str
    events: tuple[str, ...] = ()
    secret_file: str = ""


class Mail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[mail]]`: whom to write to when something happens.

    Attributes:
        name: of the channel.
        host: of the mail server.
        port: 0 = by the security: 587, 465 or 25.
        security: `starttls`, `tls` (from the first byte on), or `none`: for a mail server on this machine.
        sender: the address that it comes from (`from`).
        to: whom to write to.
        user: to sign in at the mail server; empty = without.
        password_file: its password.
        ca_file: authorities to believe instead of the system's.
        events: which; empty = all.
    """

    name: str
    host: str
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: str = msgspec.field(name="from")
    to: Annotated[tuple[str, ...], Meta(min_length=1, max_length=50)]
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    events: tuple[str, ...] = ()


class Ingest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[ingest]]`: what a channel demands of a release's origin (`core.supply.policy`). `signers` are files of public keys."""

    product: Annotated[str, Meta(min_length=1, max_length=64)] = "*"
    channels: Annotated[tuple[Channel, ...], Meta(min_length=1)] = ("stable",)
    needs: tuple[Need, ...] = ()
    builders: tuple[Pattern, ...] = ()
    sources: tuple[Pattern, ...] = ()
    signers: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set, with its default. Durations in seconds, sizes in bytes, shares in basis points.

    Attributes:
        data_dir: database, blobs, online keys; mode 0700; one server at a time.
        database_url: a PostgreSQL server that holds what is known, in place of a file in `data_dir`; empty = the file. Secret, as it may hold a password.
        database_password_file: of that server's password.
        shared: several processes serve this directory, all with this set, each on a port of its own.
        listen: host:port; port 0 takes a free one.
        external_url: what devices and browsers use, where it differs.
        tls: make an own certificate authority for a local network and use it.
        tls_cert, tls_key: files of a certificate and its key instead.
        trusted_proxies: networks of the proxies whose `X-Forwarded-For` and `-Proto` are believed; none = nobody's.
        connections_per_address: most connections that one address may hold, but for those proxies; a site behind one address is one. 0 = no bound.
        body_max, upload_max: most bytes of a request body, and of an uploaded bundle.
        poll_interval_s, poll_spread_bp: told to devices, and how much it may differ between them.
        poll_wait_max_s, poll_waiters_max: how long a device that stays connected may wait for news, and how many may at a time in this process; 0 = nobody.
        events_queue: pieces of work that may wait for the writer before events are refused with 503; the rest goes by it, too (`server.load`).
        events_rate, events_burst: events a second that one device may send for ever, and at once.
        joining_rate, joining_burst: requests without a token that one address may send, a second and at once: as many devices as share it come back together.
        joining_failed_rate, joining_failed_burst: how many of them may be wrong (a forged signature, a claim that is none).
        tick_s: how often the planner looks at every rollout, beside at once after bad news.
        approval_above_devices, approval_above_bp: a second person from here on.
        enrol: ways in: `claim`, `approval`.
        session_s: life of a device's token.
        clones: `quarantine` or `report`.
        timestamp_s, snapshot_s: expiry of the online roles; renewed at half.
        accounts_session_s: life of a person's session.
        approval_accounts: whether making, widening and taking over accounts takes two people, where there are two.
        accounts_fresh_s: how long ago who is signed in may have shown who they are, to widen something or let people act; none = as long as a session lives.
        accounts_local: whether people sign in with a password here.
        oidc: `[oidc]`, sign-in by an OpenID provider; see `people.limits.Oidc`.
        second_factor: roles whose holders need a second factor.
        token_default_s, token_max_s: life of an API token for which nobody says one, and the longest; 0 = no bound.
        status_public: show `/status` (also `.json` and `.atom`) to everybody, without a sign-in: what was published of incidents, and nothing else.
        status_title: its heading.
        webhooks: see `Webhook`.
        mails: see `Mail`.
        ingest: see `Ingest`; keys read.
        caps: `[cap]`, devices that may be on their way at once, over all rollouts, among those that share an attribute; see `server.caps`.
        gate_attributes: devices' own attributes (`attr.NAME`) that the evidence gate tells apart, beside variant, region, connection and release.
        blobs_url: `s3://BUCKET/PREFIX`; empty = a folder of the data directory.
        blobs_endpoint, blobs_public_endpoint: addresses of an S3-compatible store, for this server, and for devices where it differs; empty = Amazon's.
        blobs_region, blobs_addressing, blobs_ca_file: of the store; `auto`, `path` or `virtual`; a PEM file of the authorities to be trusted.
        artifacts: how devices get payloads: `stream` by us, `redirect` to the store, `accel` by the nginx in front of us.
        link_s: how long a device, or whoever uploads, may use a link into the store.
        accel_prefix: nginx' internal location of the folder of blobs.
        accel_tenants: its location of the folders of other tenants' blobs, one below the other by name; empty = their payloads go through us.
        uploads_quota: most bytes of files that are on their way here, of a tenant.
        uploads_life_s: an upload that nobody goes on with is forgotten after this.
        uploads_direct: have publishers put their files right into the store, where it can be had.
        egress_rate, egress_site_rate: bytes a second at which downloads may begin, of all devices and of each site; none = no bound.
        egress_device_rate: bytes a second that one device is sent, over all its connections (by nginx: of each; links into a store know no pace).
        keep_events_s, keep_details_s, keep_messages_s, keep_samples_s: how long each is kept (`server.retention`); 0 = for ever.
        logs_per_reason: of how many devices a log is asked for, of each rollout and reason of a failure; 0 = of none.
        otel_endpoint: where an OpenTelemetry collector takes OTLP over HTTP; empty = no traces (`server.spans`).
        backup_warn_after_s: a last backup that is older is warned of (`tidegate doctor`).
        tenants_strict: refuse requests for a host that is neither the server's own nor a tenant's, in place of taking them for the default tenant.
        tenant, tenant_number: whose settings these are (`cells.settings_of`); no keys of a file.
        audit_copy: a folder, or `s3://BUCKET/PREFIX`, to which each signed head of the audit log is copied (`server.copies`); empty = nowhere.
        audit_copy_endpoint: of its store, where it is not that of `[blobs]`.
        audit_copy_keep_s: how long an object lock keeps each copy in a bucket; none = as the bucket has it.
        log_level, log_format: as in `logging`; `text`, or `json`: one object a line.
    """

    data_dir: Path = Path("tidegate-data")
    database_url: str = ""
    database_password_file: str = ""
    shared: bool = False
    listen: str = "127.0.0.1:8440"
    external_url: str = ""
    tls: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    trusted_proxies: tuple[str, ...] = ()
    connections_per_address: int = 4_096
    body_max: int = 1 << 20
    upload_max: int = 20 << 30
    poll_interval_s: int = 300
    poll_spread_bp: int = 1_000
    poll_wait_max_s: int = 55
    poll_waiters_max: int = 15_000
    events_queue: int = 8_192
    events_rate: int = 2
    events_burst: int = 10_000
    joining_rate: int = 200
    joining_burst: int = 2_000
    joining_failed_rate: int = 2
    joining_failed_burst: int = 200
    tick_s: int = 60
    approval_above_devices: int = 10_000
    approval_above_bp: int = 1_000
    approval_expires_s: int = 86_400
    approval_accounts: bool = True
    enrol: tuple[str, ...] = ("claim", "approval")
    session_s: int = 86_400
    clones: str = "quarantine"
    timestamp_s: int = 2 * 86_400
    snapshot_s: int = 14 * 86_400
    accounts_session_s: int = 12 * 3_600
    accounts_fresh_s: int = 0
    accounts_local: bool = True
    oidc: Oidc | None = None
    second_factor: tuple[str, ...] = ()
    token_default_s: int = 90 * 86_400
    token_max_s: int = 366 * 86_400
    status_public: bool = False
    status_title: str = "Firmware updates"
    webhooks: tuple[Webhook, ...] = ()
    mails: tuple[Mail, ...] = ()
    ingest: tuple[IngestRule, ...] = ()
    caps: dict[str, int] = {}
    blobs_url: str = ""
    blobs_endpoint: str = ""
    blobs_public_endpoint: str = ""
    blobs_region: str = ""
    blobs_addressing: str = "auto"
    blobs_ca_file: str = ""
    artifacts: str = "stream"
    link_s: int = 300
    accel_prefix: str = "/_tidegate_blobs/"
    accel_tenants: str = ""
    uploads_quota: int = 64 << 30
    uploads_life_s: int = 86_400
    uploads_direct: bool = False
    egress_rate: int = 0
    egress_site_rate: int = 0
    egress_device_rate: int = 0
    gate_attributes: tuple[str, ...] = ()
    keep_events_s: int = 400 * 86_400
    keep_details_s: int = 400 * 86_400
    keep_messages_s: int = 90 * 86_400
    keep_samples_s: int = 35 * 86_400
    logs_per_reason: int = 20
    otel_endpoint: str = ""
    backup_warn_after_s: int = 2 * 86_400
    audit_copy: str = ""
    audit_copy_endpoint: str = ""
    audit_copy_keep_s: int = 0
    log_level: str = "info"
    log_format: str = "text"
    durable: bool = True
    tenant: str = "default"
    tenant_number: int = 0
    tenants_strict: bool = False

    @property
    def blobs(self) -> Where:
        """Return where blobs are kept."""
        return Where(
            url=self.blobs_url,
            endpoint=self.blobs_endpoint,
            public_endpoint=self.blobs_public_endpoint,
            region=self.blobs_region,
            addressing=self.blobs_addressing,
            ca_file=self.blobs_ca_file,
        )

    @property
    def database_address(self) -> str:
        """Return where the database server is, with its password; secret. Empty = there is none.

        Raises:
            ConfigError: `config.unreadable`.
        """
        return address.with_password(self.database_url, self.database_password_file)


#: Every key: (table, key) → (field of `Settings`, how it is read).
KEYS: Final[Mapping[tuple[str, str], tuple[str, read.Reader]]] = {
    ("data", "dir"): ("data_dir", read.folder),
    ("data", "shared"): ("shared", read.yes),
    ("database", "url"): ("database_url", address.read),
    ("database", "password_file"): ("database_password_file", read.word),
    ("http", "listen"): ("listen", read.listen),
    ("http", "external_url"): ("external_url", read.word),
    ("http", "tls_cert"): ("tls_cert", read.word),
    ("http", "tls_key"): ("tls_key", read.word),
    ("http", "trusted_proxies"): ("trusted_proxies", read.networks),
    ("http", "connections_per_address"): ("connections_per_address", read.number),
    ("http", "body_max"): ("body_max", parse_size),
    ("http", "upload_max"): ("upload_max", parse_size),
    ("poll", "interval"): ("poll_interval_s", parse_duration),
    ("poll", "spread"): ("poll_spread_bp", parse_share),
    ("poll", "wait_max"): ("poll_wait_max_s", parse_duration),
    ("poll", "waiters_max"): ("poll_waiters_max", read.number),
    ("events", "queue"): ("events_queue", read.number),
    ("events", "rate"): ("events_rate", read.number),
    ("events", "burst"): ("events_burst", read.number),
    ("joining", "rate"): ("joining_rate", read.number),
    ("joining", "burst"): ("joining_burst", read.number),
    ("joining", "failed_rate"): ("joining_failed_rate", read.number),
    ("joining", "failed_burst"): ("joining_failed_burst", read.number),
    ("plan", "tick"): ("tick_s", parse_duration),
    ("approval", "above_devices"): ("approval_above_devices", read.number),
    ("approval", "above_share"): ("approval_above_bp", parse_share),
    ("approval", "expires"): ("approval_expires_s", parse_duration),
    ("approval", "accounts"): ("approval_accounts", read.yes),
    ("device", "enrol"): ("enrol", read.choices("claim", "approval")),
    ("device", "session"): ("session_s", parse_duration),
    ("device", "clones"): ("clones", read.choice("quarantine", "report")),
    ("metadata", "timestamp"): ("timestamp_s", parse_duration),
    ("metadata", "snapshot"): ("snapshot_s", parse_duration),
    ("accounts", "session"): ("accounts_session_s", parse_duration),
    ("blobs", "url"): ("blobs_url", read.word),
    ("blobs", "endpoint"): ("blobs_endpoint", read.word),
    ("blobs", "public_endpoint"): ("blobs_public_endpoint", read.word),
    ("blobs", "region"): ("blobs_region", read.word),
    ("blobs", "addressing"): ("blobs_addressing", read.choice("auto", "path", "virtual")),
    ("blobs", "ca_file"): ("blobs_ca_file", read.word),
    ("delivery", "artifacts"): ("artifacts", read.choice("stream", "redirect", "accel")),
    ("delivery", "link_life"): ("link_s", parse_duration),
    ("delivery", "accel_prefix"): ("accel_prefix", read.word),
    ("delivery", "accel_tenants"): ("accel_tenants", read.word),
    ("uploads", "quota"): ("uploads_quota", parse_size),
    ("uploads", "life"): ("uploads_life_s", parse_duration),
    ("uploads", "direct"): ("uploads_direct", read.yes),
    ("accounts", "fresh"): ("accounts_fresh_s", read.life),
    ("accounts", "local"): ("accounts_local", read.yes),
    ("accounts", "second_factor"): ("second_factor", read.roles),
    ("accounts", "token_default"): ("token_default_s", read.life),
    ("accounts", "token_max"): ("token_max_s", read.life),
    ("egress", "rate"): ("egress_rate", read.rate),
    ("egress", "site_rate"): ("egress_site_rate", read.rate),
    ("egress", "device_rate"): ("egress_device_rate", read.rate),
    ("gate", "attributes"): ("gate_attributes", read.attributes),
    ("audit", "copy"): ("audit_copy", read.word),
    ("audit", "copy_endpoint"): ("audit_copy_endpoint", read.word),
    ("audit", "copy_keep"): ("audit_copy_keep_s", read.life),
    ("status", "public"): ("status_public", read.yes),
    ("status", "title"): ("status_title", read.word),
    ("retention", "events"): ("keep_events_s", read.lasting),
    ("retention", "details"): ("keep_details_s", read.lasting),
    ("retention", "messages"): ("keep_messages_s", read.lasting),
    ("retention", "samples"): ("keep_samples_s", read.lasting),
    ("device_logs", "per_reason"): ("logs_per_reason", read.number),
    ("otel", "endpoint"): ("otel_endpoint", read.word),
    ("backup", "warn_after"): ("backup_warn_after_s", parse_duration),
    ("tenants", "strict"): ("tenants_strict", read.yes),
    ("log", "format"): ("log_format", read.choice("text", "json")),
    ("log", "level"): ("log_level", read.choice("debug", "info", "warning", "error")),
}


def load(
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings from file, drop-ins, environment and options.

    Args:
        path: of the file; None searches `TIDEGATE_CONFIG`, then `SEARCHED`, and none there is fine.
        environ: environment variables; `TIDEGATE_HTTP_LISTEN` is `[http] listen`.
        options: fields of `Settings` from the command line; None values are left out.

    Raises:
        ConfigError: `config.*`; the message lists every mistake.
    """
    environ = os.environ if environ is None else environ
    found = _find(path, environ)
    drop_ins = sorted(found.with_name(f"{found.name}.d").glob("*.toml")) if found else []
    values = _read([found, *drop_ins] if found else [], environ)
    values |= {name: value for name, value in (options or {}).items() if value is not None}
    return Settings(**values)


def values_of(path: Path) -> dict[str, Any]:
    """Return what one file says, by field of `Settings`; no drop-ins, no environment. Raises like `load`."""
    return _read([path], {})


def _read(files: Iterable[Path], environ: Mapping[str, str]) -> dict[str, Any]:
    mistakes: list[ConfigError] = []
    values: dict[str, Any] = {}
    for file in files:
        _read_tables(_parse(file), file, values, mistakes)
    _read_environment(environ, values, mistakes)
    if mistakes:
        raise ConfigError(mistakes[0].code, "\n".join(one.detail for one in mistakes))
    return values


def _find(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is None and environ.get("TIDEGATE_CONFIG"):
        path = Path(environ["TIDEGATE_CONFIG"])
    if path is not None:
        return path
    return next((one for name in SEARCHED if (one := Path(name)).is_file()), None)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config.invalid", f"{path}: {error}") from error


def _read_tables(
    tables: Mapping[str, Any], path: Path, values: dict[str, Any], mistakes: list[ConfigError]
) -> None:
    file = path.name
    known_tables = {table for table, _ in KEYS} | {"webhook", "mail", "ingest", "cap", "oidc"}
    for table, content in tables.items():
        if table in _CHANNELS:
            _collect(mistakes, functools.partial(_set_channels, values, table, content, file))
        elif table == "ingest":
            _collect(mistakes, functools.partial(_set_ingest, values, content, path))
        elif table == "oidc":
            _collect(mistakes, functools.partial(_set_oidc, values, content, file))
        elif table == "cap" and isinstance(content, dict):
            _collect(mistakes, functools.partial(_set_caps, values, content, file))
        elif table not in known_tables or not isinstance(content, dict):
            near = did_you_mean(table, known_tables)
            mistakes.append(ConfigError("config.unknown_key", f"{file}: [{table}]{near}"))
        else:
            for key, value in content.items():
                step = functools.partial(_set, values, table, key, value, f"{file}: ")
                _collect(mistakes, step)


def _set(values: dict[str, Any], table: str, key: str, value: object, where: str) -> None:
    known = KEYS.get((table, key))
    if known is None:
        near = did_you_mean(key, [name for of, name in KEYS if of == table])
        raise ConfigError("config.unknown_key", f"{where}[{table}] {key}{near}")
    field, read = known
    values[field] = read(value, f"{where}[{table}] {key}")


def _collect(mistakes: list[ConfigError], step: Callable[[], None]) -> None:
    try:
        step()
    except ConfigError as error:
        mistakes.append(error)


def _read_environment(
    environ: Mapping[str, str], values: dict[str, Any], mistakes: list[ConfigError]
) -> None:
    for table, key in KEYS:
        name = f"TIDEGATE_{table}_{key}".upper()
        if name in environ:
            step = functools.partial(_set, values, table, key, environ[name], f"{name}: ")
            _collect(mistakes, step)


#: Tables of channels: (field of `Settings`, what a table holds).
_CHANNELS: Final[dict[str, tuple[str, Any]]] = {
    "webhook": ("webhooks", tuple[Webhook, ...]),
    "mail": ("mails", tuple[Mail, ...]),
}


def _set_channels(values: dict[str, Any], table: str, content: object, file: str) -> None:
    field, kind = _CHANNELS[table]
    try:
        values[field] = msgspec.convert(content, type=kind)
    except msgspec.ValidationError as error:
        raise ConfigError("config.invalid", f"{file}: [[{table}]]: {error}") from error


def _set_caps(values: dict[str, Any], content: dict[str, Any], file: str) -> None:
    try:
        values["caps"] = values.get("caps", {}) | presets.caps(content, f"{file}: [cap]")
    except RequestError as error:
        raise ConfigError("config.invalid", error.detail) from error


def _set_oidc(values: dict[str, Any], content: object, file: str) -> None:
    try:
        found = msgspec.convert(content, type=Oidc)
        for grants in found.groups.values():
            read_grants(grants)
    except msgspec.ValidationError as error:
        raise ConfigError("config.invalid", f"{file}: [oidc]: {error}") from error
    except RequestError as error:
        raise ConfigError("config.invalid", f"{file}: [oidc.groups]: {error.detail}") from error
    values["oidc"] = found


def _set_ingest(values: dict[str, Any], content: object, path: Path) -> None:
    try:
        found = msgspec.convert(content, type=tuple[Ingest, ...])
    except msgspec.ValidationError as error:
        raise ConfigError("config.invalid", f"{path.name}: [[ingest]]: {error}") from error
    values["ingest"] = tuple(
        IngestRule(
            product=one.product,
            channels=one.channels,
            needs=one.needs,
            builders=one.builders,
            sources=one.sources,
            signers=tuple(_signer(path.parent / name, path.name) for name in one.signers),
        )
        for one in found
    )


def _signer(path: Path, where: str) -> PublicKey:
    """Read a public key: `NAME.pub.json` as `tidegate keys new` writes it, or PEM."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.unreadable", f"{where}: [[ingest]] signers: {path}") from error
    try:
        if text.lstrip().startswith("-----BEGIN"):
            return public_key_from_pem(text)
        plain = msgspec.json.decode(text.encode())
        if isinstance(plain, dict):
            return public_key(str(plain.get("keytype")), str(plain.get("public")))
    except msgspec.DecodeError:
        pass
    except PublisherError as error:
        raise ConfigError(
            "config.invalid", f"{where}: [[ingest]] {path}: {error.detail}"
        ) from error
    raise ConfigError("config.invalid", f"{where}: [[ingest]] {path} is no public key")
