"""Is this server well? Looks at configuration, data directory, keys, metadata, bytes and the running process.

It changes nothing, but for a probe that it writes into an object store, reads and deletes again: permissions are known by trying.
"""

import functools
import hashlib
import http.client
import os
import resource
import shutil
import ssl
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast

import msgspec

from tidegate.core.amounts import format_duration, format_size
from tidegate.core.calendar import Entry
from tidegate.core.errors import TidegateError, TransferError
from tidegate.core.metadata import parse_root, root_extra
from tidegate.core.release import ReleaseTarget
from tidegate.rollout.model import RingProgress
from tidegate.server import backup, cells, copies, online, quotas, tenants, tls
from tidegate.server.blobs import Blobs, open_blobs
from tidegate.server.calendar import calendar, one_signer
from tidegate.server.config import Settings
from tidegate.server.config_values import split_listen
from tidegate.server.readiness import Answer
from tidegate.server.store import (
    Connection,
    blob_rows,
    cell_rows,
    device_queries,
    metric_rows,
    opening,
    release_queries,
    rollout_rows,
)
from tidegate.server.store.migrations import HEAD, schema_version
from tidegate.server.tokens import SKEW_S

#: Less free space than this is warned of, in bytes.
SPACE_MIN: Final = 1 << 30
_DAY_S: Final = 86_400
#: A message that is owed for longer, a planner that has not looked for longer, a certificate that lapses sooner, fewer open files, are warned of.
_OWED_S: Final = 3_600
_PLANNED_S: Final = 600
_CERTIFICATE_S: Final = 21 * _DAY_S
_FILES_MIN: Final = 4_096
_ROLLOUTS_MAX: Final = 200
Level = Literal["ok", "warning", "failed"]

#: How long the running server may take to say how it is: it asks its database and its store for five seconds each.
ASK_S: Final = 15


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one thing. `fix` says what to do; empty where all is well."""

    name: str
    level: Level
    text: str
    fix: str = ""


class Scene(NamedTuple):
    """What is looked at, and when (unix seconds)."""

    conn: Connection
    folder: Path
    now: int
    settings: Settings


def examine(settings: Settings, now: int) -> list[Check]:
    """Look at everything. What cannot be looked at is a failed check, never an error.

    Args:
        settings: of the server.
        now: unix seconds.
    """
    folder = Path(settings.data_dir)
    found = [_directory(folder)]
    if not opening.is_there(folder, settings.database_url):
        return [
            *found,
            Check(name="database", level="warning", text="none yet; `tidegate serve` makes it"),
        ]
    found += _guarded("keys", lambda: _keys(folder))
    try:
        with opening.looking(folder, settings.database_address, settings.tenant) as conn:
            scene = Scene(conn, folder, now, settings)
            for name, look in _LOOKS.items():
                found += _guarded(name, functools.partial(look, scene))
    except TidegateError as error:
        found.append(Check(name="database", level="failed", text=error.detail, fix=error.hint))
    return [
        *found,
        *_guarded("open files", _files),
        *_guarded("tls", lambda: _certificate(settings, now)),
        *_guarded("server", lambda: _process(settings)),
    ]


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except (TidegateError, OSError, ValueError) as error:
        hint = error.hint if isinstance(error, TidegateError) else ""
        return [Check(name=name, level="failed", text=str(error), fix=hint)]


def _directory(folder: Path) -> Check:
    if not folder.is_dir():
        return Check(
            name="data", level="failed", text=f"{folder} is not there", fix="tidegate serve"
        )
    mode = stat.S_IMODE(folder.stat().st_mode)
    free = shutil.disk_usage(folder).free
    text = f"{folder}, mode {mode:04o}, {format_size(free)} free"
    if mode & 0o077:
        return Check(name="data", level="failed", text=text, fix=f"chmod 700 {folder}")
    if free < SPACE_MIN:
        return Check(name="data", level="warning", text=text, fix="free disk space")
    return Check(name="data", level="ok", text=text)


def _keys(folder: Path) -> Iterator[Check]:
    names = [*(f"{role}.key" for role in online.ROLES), online.SECRET_NAME]
    paths = [folder / online.FOLDER / name for name in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        text = f"{', '.join(missing)} missing"
        yield Check(name="keys", level="failed", text=text, fix="restore them from the backup")
        return
    loose = [path.name for path in paths if path.stat().st_mode & 0o077]
    if loose:
        text = f"{', '.join(loose)} can be read by others"
        yield Check(name="keys", level="failed", text=text, fix=f"chmod 600 {paths[0].parent}/*")
        return
    yield Check(name="keys", level="ok", text=f"{', '.join(online.ROLES)}, mode 0600")


def _database(scene: Scene) -> Iterator[Check]:
    version = schema_version(scene.conn)
    if version != HEAD:
        text = f"schema {version}, this Tidegate knows {HEAD}"
        level: Level = "warning" if version is not None and version < HEAD else "failed"
        fix = "start the matching Tidegate, or tidegate db upgrade"
        yield Check(name="database", level=level, text=text, fix=fix)
        return
    name, size, wrong = opening.condition(scene.conn, scene.folder)
    if wrong:
        fix = "keep the file as it is and restore a backup"
        if scene.settings.database_url:
            fix = "turn it on in the settings of the database server, and look whether all is there"
        yield Check(name="database", level="failed", text=wrong[:200], fix=fix)
        return
    yield Check(
        name="database", level="ok", text=f"{name}, schema {version}, {format_size(size)}, whole"
    )


def _metadata(scene: Scene) -> Iterator[Check]:
    root = release_queries.newest_document(scene.conn, "root")
    if root is None:
        fix = "tidegate root begin, or tidegate init --lab to try things out"
        yield Check(name="root", level="warning", text="no root of trust yet", fix=fix)
        return
    document = parse_root(root.body)
    threshold = document.signed.roles["root"].threshold
    lab = ", a laboratory's" if root_extra(document).lab else ""
    text = f"version {root.version}, {threshold} of {len(document.signed.roles['root'].keyids)} keys{lab}"
    for one in calendar(scene.conn, scene.now):
        if one.role == "root":
            yield _due(one, text)
        else:
            yield _due(one, f"version {one.version}")
    loud = one_signer(scene.conn)
    if loud:
        fix = f"tidegate product keys {loud[0]} --add KEY --needs 2 --previous targets.json"
        text = f"ONE person can release {', '.join(loud)} to every device"
        yield Check(name="two people", level="warning", text=text, fix=fix)


def _due(one: Entry, text: str) -> Check:
    """Turn a line of the calendar into a check."""
    if one.level == "expired":
        day = datetime.fromtimestamp(one.expires_at, UTC).date().isoformat()
        text = f"{text}, expired on {day}"
    else:
        text = f"{text}, expires in {format_duration(one.expires_in_s)}"
    if one.level == "late":
        text = f"{text}, and should have been renewed at half of its time"
    level: Level = {"ok": "ok", "expired": "failed"}.get(one.level, "warning")  # type: ignore[assignment]
    return Check(name=one.role, level=level, text=text, fix=one.fix if level != "ok" else "")


def _clock(scene: Scene) -> Iterator[Check]:
    newest = max((row.created_at for row in release_queries.documents(scene.conn, 1)), default=0)
    if scene.now < newest:
        behind = format_duration(newest - scene.now)
        text = f"{behind} behind the newest metadata"
        yield Check(name="clock", level="failed", text=text, fix="set the clock right")
        return
    off = opening.ahead_s(scene.conn)
    if abs(off) > SKEW_S:
        way = "ahead of" if off > 0 else "behind"
        text = f"{format_duration(abs(off))} {way} the database's clock"
        yield Check(name="clock", level="failed", text=text, fix="set both clocks by NTP")
        return
    shown = datetime.fromtimestamp(scene.now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    yield Check(name="clock", level="ok", text=f"{shown}, after everything that was signed")


def _blobs(scene: Scene) -> Iterator[Check]:
    blobs = open_blobs(scene.settings.blobs, scene.folder)
    if blobs.remote:
        yield _tried(blobs)
    missing = count = total = 0
    for release_id in release_queries.live_ids(scene.conn):
        for _, _, _, text in rollout_rows.artifacts(scene.conn, release_id):
            for part in msgspec.json.decode(text, type=ReleaseTarget).pieces:
                count += 1
                size = blobs.size(part.full.sha256)
                missing += size != part.full.length
                total += size or 0
    if missing:
        text = f"{missing} of {count} payloads are missing or of another size"
        yield Check(name="blobs", level="failed", text=text, fix="publish their bundles again")
        return
    yield Check(name="blobs", level="ok", text=f"{count} payloads, {format_size(total)}")


def _tried(blobs: Blobs) -> Check:
    """Write a probe, read all of it and a range, and delete it.

    Raises:
        TidegateError: `blobs.*`: what did not work.
    """
    probe = b"tidegate doctor " + os.urandom(4096)
    name = hashlib.sha256(probe).hexdigest()
    try:
        blobs.put(name, [probe])
        blob = blobs.open(name)
        if blob is None:
            raise TransferError("blobs.untrue", "what was written is not there")
        found = blob.read_at(100, 50), blob.read_at(0, len(probe))
        blob.close()
        if found != (probe[100:150], probe):
            raise TransferError("blobs.untrue", "read: other bytes than were written")
    finally:
        blobs.delete(name)
    if blobs.size(name) is not None:
        raise TransferError("blobs.untrue", "what was deleted is still there")
    return Check(name="object store", level="ok", text="put, ranged get and delete work")


def _copies(scene: Scene) -> Iterator[Check]:
    place = copies.copies_of(scene.settings)
    if place is None:
        return
    newest, late = copies.behind(scene.conn, place, scene.now)
    text = f"the newest checkpoint at {scene.settings.audit_copy} is of {newest:,} rows"
    if late:
        fix = "look into the server's log; tidegate explain blobs.refused"
        yield Check(name="audit copy", level="failed", text=f"{text}, {late:,} behind", fix=fix)
        return
    yield Check(name="audit copy", level="ok", text=text)


def _fleet(scene: Scene) -> Iterator[Check]:
    states: dict[str, int] = {}
    heard = 0
    for columns in device_queries.everything(scene.conn):
        device = dict(zip(device_queries.FLEET_COLUMNS, columns, strict=True))
        states[device["state"]] = states.get(device["state"], 0) + 1
        heard += device["state"] == "accepted" and device["last_seen"] > scene.now - _DAY_S
    clones = states.get("quarantined", 0)
    text = f"{heard} of {states.get('accepted', 0)} devices heard in 24 h, {states.get('pending', 0)} waiting"
    if clones:
        fix = "tidegate device list --state quarantined"
        yield Check(name="fleet", level="warning", text=f"{text}, {clones} in quarantine", fix=fix)
        return
    yield Check(name="fleet", level="ok", text=text)


def _backup(scene: Scene) -> Iterator[Check]:
    """Say when the last backup was taken; before anything is published there is nothing to lose."""
    if scene.settings.database_url or not release_queries.live_ids(scene.conn):
        return  # PostgreSQL's own backups are not seen from here
    last, fix = backup.last_of(scene.folder), "tidegate backup --to FOLDER"
    if last is None:
        text = "none was taken yet"
        yield Check(name="backup", level="warning", text=text, fix=fix)
        return
    age_s = max(0, scene.now - last.at)
    late = age_s > scene.settings.backup_warn_after_s
    text = f"the last one is {format_duration(age_s)} old, at {last.to}"
    yield Check(
        name="backup", level="warning" if late else "ok", text=text, fix=fix if late else ""
    )


def _orphans(scene: Scene) -> Iterator[Check]:
    """Look for blobs of the folder that nothing names: left behind by a publication that was cut off, or by something else."""
    folder = scene.folder / "blobs"
    if scene.settings.blobs_url or not folder.is_dir():
        return
    named = blob_rows.named(scene.conn)
    lost = [one for one in folder.glob("[0-9a-f][0-9a-f]/*") if one.name not in named]
    if lost:
        size = format_size(sum(one.stat().st_size for one in lost))
        text = f"{len(lost)} blobs ({size}) are named by nothing, {lost[0].name[:12]} for one"
        fix = "nothing asks for them: remove them when no publication is under way"
        yield Check(name="orphans", level="warning", text=text, fix=fix)


def _messages(scene: Scene) -> Iterator[Check]:
    counts, oldest = metric_rows.owed(scene.conn, ("webhook", "mail"))
    by = {"waiting": 0, "retrying": 0, "dead": 0}
    for (_, state), count in counts.items():
        by[state] += count
    text = f"{by['waiting'] + by['retrying']} messages are owed, {by['dead']} were given up"
    late = bool(oldest) and scene.now - oldest > _OWED_S
    if by["dead"] or late:
        yield Check(name="messages", level="warning", text=text, fix="tidegate notify list")
        return
    yield Check(name="messages", level="ok", text=text)


def _rollouts(scene: Scene) -> Iterator[Check]:
    """Say where rings stand, and whether anybody looks at them."""
    rings: dict[str, int] = {}
    for row in metric_rows.shown_rollouts(scene.conn, _ROLLOUTS_MAX):
        if row["state"] == "active":
            for one in msgspec.convert(row["rings"], tuple[RingProgress, ...]):
                rings[one.state] = rings.get(one.state, 0) + 1
    shown = ", ".join(f"{count} {state}" for state, count in sorted(rings.items()))
    text = f"rings of active rollouts: {shown or 'none'}"
    until = metric_rows.leases(scene.conn).get("reconciler", 0)
    if rings and until < scene.now - _PLANNED_S:
        fix = "tidegate serve; where it runs, look for `a tick failed` in its log"
        text = f"{text}; nobody has planned for {format_duration(scene.now - until)}"
        yield Check(name="rollouts", level="failed", text=text, fix=fix)
        return
    yield Check(name="rollouts", level="ok", text=text)


def _files() -> Iterator[Check]:
    """Look at this process's limit of open files: a server that is started in the same way has the same."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"at most {limit} open files, a connection each"
    if limit < _FILES_MIN:
        fix = "LimitNOFILE= in the unit, or ulimit -n 65536"
        yield Check(name="open files", level="warning", text=text, fix=fix)
        return
    yield Check(name="open files", level="ok", text=text)


def _certificate(settings: Settings, now: int) -> Iterator[Check]:
    if not settings.tls_cert:
        return
    left = tls.expires_at(Path(settings.tls_cert)) - now
    if left <= 0:
        text, level = f"{settings.tls_cert} expired {format_duration(-left)} ago", "failed"
    else:
        text = f"{settings.tls_cert} is good for {format_duration(left)}"
        level = "warning" if left < _CERTIFICATE_S else "ok"
    fix = "" if level == "ok" else "renew it, then restart the server"
    yield Check(name="tls", level=cast("Level", level), text=text, fix=fix)


_Look = Callable[[Scene], Iterator[Check]]


def _tenants(scene: Scene) -> Iterator[Check]:
    """Look at each other tenant that is served: whether its data can be opened, and what it has left of its quotas."""
    if not cell_rows.knows_tenants(scene.conn):
        return
    for one in tenants.listed(scene.conn):
        if not one.is_open:
            text = f"{one.name} is {'removed' if one.removed_at else 'suspended'}"
            yield Check(name="tenants", level="ok", text=text)
            continue
        settings = cells.settings_of(scene.settings, one.name, one.number)
        url = scene.settings.database_address
        with opening.looking(Path(settings.data_dir), url, one.name) as conn:
            used = quotas.used(conn, one.quotas, scene.now)
        full = [
            f"{name} {have:,} of {most:,}" for name, have, most in used if have * 10 >= most * 9
        ]
        yield Check(
            name="tenants",
            level="warning" if full else "ok",
            text=f"{one.name}: {', '.join(full)}" if full else f"{one.name} at {one.host}",
            fix=f"tidegate tenant edit {one.name}, or have it take less" if full else "",
        )


_LOOKS: Final[dict[str, _Look]] = {
    "database": _database,
    "root": _metadata,
    "clock": _clock,
    "blobs": _blobs,
    "fleet": _fleet,
    "orphans": _orphans,
    "rollouts": _rollouts,
    "messages": _messages,
    "audit copy": _copies,
    "backup": _backup,
    "tenants": _tenants,
}


def _process(settings: Settings) -> Iterator[Check]:
    """Ask the server that should be running. Who it is does not matter here: it is asked how it is, and told nothing."""
    host, port = split_listen(settings.listen)
    connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
    if settings.tls or settings.tls_cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=ASK_S, context=context)
    try:
        connection.request("GET", "/readyz?strict")
        answer = connection.getresponse()
        status, body = answer.status, answer.read(65_536)
    except (OSError, http.client.HTTPException):
        fix = "tidegate serve"
        yield Check(
            name="server", level="warning", text=f"nothing answers at {settings.listen}", fix=fix
        )
        return
    finally:
        connection.close()
    text = f"answers at {settings.listen} with {status}"
    if status == 200:
        yield Check(name="server", level="ok", text=text)
        return
    try:
        said = msgspec.json.decode(body, type=Answer)
    except msgspec.DecodeError:
        yield Check(name="server", level="failed", text=text, fix="look at its log")
        return
    wrong = "; ".join(f"{one.name}: {one.text}" for one in said.checks if one.level != "ok")
    level: Level = "warning" if said.ready else "failed"
    yield Check(name="server", level=level, text=f"{text}: {wrong}", fix="look at its log")
