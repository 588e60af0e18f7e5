"""The thief: what was on the server's disk, and a server of his own that real agents talk to in its place.

He answers every request as he likes. What he holds is read from a copy of the data directory; a row of the table that steals less leaves him fewer keys.
"""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from tests.attack.works import DAY, signer

from tidegate.core import codec
from tidegate.core.keys import Signer, peek_payload, sign_document
from tidegate.core.metadata import (
    MetaInfo,
    SignedTarget,
    make_snapshot,
    make_timestamp,
    parse_root,
    parse_snapshot,
    parse_targets,
    parse_timestamp,
    root_extra,
    sign,
    signed_targets,
)
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    PERMIT_TYPE,
    TIME_TYPE,
    AssignedTarget,
    AssignmentAnswer,
    AssignmentBody,
    AssignmentRequest,
    EnrolAnswer,
    Envelope,
    EventBody,
    EventsAnswer,
    EventsRequest,
    NonceAnswer,
    PermitAnswer,
    PermitBody,
    PermitRequest,
    PollAnswer,
    RepoBinding,
    SessionAnswer,
    TimeAnswer,
    TimeBody,
    TimeRequest,
)
from tidegate.server.online import OnlineKeys, open_keys

#: The largest number that metadata may bear.
HIGHEST = (1 << 53) - 1


@dataclass(frozen=True)
class Loot:
    """A copy of a server's data directory.

    Attributes:
        keys: every online key and the secret behind device sessions.
        documents: newest document of each role.
        roots: every root, in order.
        devices: public key digest of each device, by id.
        named: each version of a product role, by product and the newest counter in it.
    """

    data: Path
    keys: OnlineKeys
    documents: dict[str, bytes]
    roots: tuple[bytes, ...]
    devices: dict[str, str]
    named: dict[tuple[str, int], bytes]


def loot(data: Path) -> Loot:
    """Take everything from a copied data directory."""
    with closing(sqlite3.connect(data / "tidegate.db")) as raw:
        rows = raw.execute("SELECT role, body FROM repository ORDER BY version").fetchall()
        devices = dict(raw.execute("SELECT id, key_sha256 FROM device").fetchall())
    return Loot(
        data=data,
        keys=open_keys(data, lambda _: b""),
        documents={role: body for role, body in rows},  # noqa: C416 - the last one stays
        roots=tuple(body for role, body in rows if role == "root"),
        devices=devices,
        named={
            (role.removeprefix("product/"), _newest(body, role)): body
            for role, body in rows
            if role.startswith("product/")
        },
    )


def _newest(body: bytes, role: str) -> int:
    found = signed_targets(parse_targets(body, role)).values()
    return max(one.release.release_counter for one in found)


#: What is said to a device (by its id) instead of an honest assignment.
Lie = Callable[[AssignmentRequest, str], Envelope]


@dataclass
class Thief:
    """A server of the thief's own. Start it with `open`, end it with `close`.

    Attributes:
        keys: the online keys that he has; forged ones where he has none.
        files: documents by the name under which they are served, percent-decoded.
        blobs: payload containers by digest, beside those in the stolen folder.
        lie: makes the answer to the next questions; None = nothing for anybody.
        events: what devices told him.
        asked: how many questions (what to do, what time it is) he answered since the present lie.
    """

    taken: Loot
    keys: OnlineKeys
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    lie: Lie | None = None
    events: list[EventBody] = field(default_factory=list)
    asked: int = 0
    permits: int = 0
    seq: int = 0
    downloads: list[str] = field(default_factory=list)
    refuse_permits: bool = False
    time_lie_s: int = 0
    #: Whose signature is under what is said of the time and of leave to activate: his own director key, or an honest one that he passes on.
    voice: Signer | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._acked = 0
        self.version = int(time.time()) // 60 + 10
        self.documents = dict(self.taken.documents)
        for number, body in enumerate(self.taken.roots, 1):
            self.files[f"{number}.root.json"] = body
        self.serve_documents(self.taken.documents)

    # --- what he publishes ---

    def serve_documents(self, documents: dict[str, bytes]) -> None:
        """Serve documents as they are: an honest server's, or his own."""
        for role, body in documents.items():
            if role == "root":
                continue
            if role == "timestamp":
                self.files["timestamp.json"] = body
                continue
            parsed = parse_snapshot(body) if role == "snapshot" else parse_targets(body, role)
            self.files[f"{parsed.version}.{role}.json"] = body

    def publish(
        self,
        *,
        version: int = 0,
        says: dict[str, int] | None = None,
        issued: int = 0,
        expires: int = 0,
        **roles: bytes,
    ) -> None:
        """Sign snapshot and timestamp around documents of his choice, with the keys that he has.

        Args:
            version: of both; 0 = the next.
            says: versions to write into the snapshot instead of the documents' own.
            issued, expires: of both; 0 = the truth.
            roles: bodies by role, `product/` written as `product_`.
        """
        self.version = version or self.version + 1
        named = {name.replace("product_", "product/"): body for name, body in roles.items()}
        self.documents |= named
        issued = issued or int(time.time())
        expires = expires or int(time.time()) + 90 * DAY
        infos = {}
        for role, body in self.documents.items():
            if role in {"root", "snapshot", "timestamp"}:
                continue
            info = parse_targets(body, role).info
            said = (says or {}).get(role, info.version)
            infos[role] = MetaInfo(said, info.length, info.sha256)
            self.files[f"{said}.{role}.json"] = body
        snapshot = sign(
            make_snapshot(
                version=self.version, expires_at=expires, issued_at=issued, documents=infos
            ),
            self.keys.snapshot,
        )
        timestamp = sign(
            make_timestamp(
                version=self.version,
                expires_at=expires,
                issued_at=issued,
                snapshot=parse_snapshot(snapshot).info,
            ),
            self.keys.timestamp,
        )
        self.documents |= {"snapshot": snapshot, "timestamp": timestamp}
        self.files[f"{self.version}.snapshot.json"] = snapshot
        self.files["timestamp.json"] = timestamp

    # --- what he orders ---

    def order(
        self,
        action: str,
        image: SignedTarget | None = None,
        update: str = "u-1",
        *,
        director: Signer | None = None,
        **changes: Any,
    ) -> None:
        """Give every device that asks this order from now on, signed by the stolen director key (or another)."""
        repo = RepoBinding(
            root_min=1,
            timestamp_min=parse_timestamp(self.documents["timestamp"]).version,
            snapshot_min=parse_snapshot(self.documents["snapshot"]).version,
        )
        if "repo" in changes:
            repo = changes.pop("repo")
        epoch = root_extra(parse_root(self.taken.roots[-1])).authorities.epoch

        self.voice = director or self.keys.director

        def lie(request: AssignmentRequest, device_id: str) -> Envelope:
            now = int(time.time())
            # An honest director counts milliseconds; a thief goes on from there.
            self.seq = max(self.seq + 1, now * 1000)
            body = AssignmentBody(
                device_id=device_id,
                device_key=self.taken.devices[device_id],
                epoch=epoch,
                seq=self.seq,
                issued=now,
                expires=now + DAY,
                nonce=request.nonce,
                action=action,  # type: ignore[arg-type]
                update=update if image is not None else None,
                rollout="r-1",
                target=None if image is None else assigned(image),
                repo=repo,
                poll_after_s=1,
            )
            return sign_document(
                msgspec.structs.replace(body, **changes),
                ASSIGNMENT_TYPE,
                director or self.keys.director,
            )

        self._set(lie)

    def say(self, envelope: Envelope) -> None:
        """Give every device that asks this very envelope."""
        self._set(lambda _request, _device: envelope)

    def _set(self, lie: Lie | None) -> None:
        with self._lock:
            self.lie, self.asked = lie, 0

    def rest(self) -> None:
        """Have nothing for anybody."""
        self._set(None)

    # --- what he hears ---

    def ends(self, update: str) -> list[tuple[str, str | None]]:
        """Return (kind, reason) of the ends of an update that devices told."""
        wanted = {"failed", "declined", "confirmed", "reverted"}
        return [
            (e.kind, e.reason) for e in list(self.events) if e.update == update and e.kind in wanted
        ]

    def alarms(self) -> set[str]:
        """Return the reasons of the security events."""
        return {str(e.reason) for e in list(self.events) if e.kind == "security"}

    # --- the server ---

    def open(self) -> str:
        """Listen on a free port of the loopback interface; return the URL."""
        thief = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                who = (self.headers.get("authorization") or "").removeprefix("Bearer ")
                with thief._lock:
                    status, answer = thief._answer(self.path, body, who)
                first = 0
                wanted = self.headers.get("range", "")
                if status == 200 and wanted.startswith("bytes="):
                    first = int(wanted.removeprefix("bytes=").partition("-")[0])
                    status = 206
                self.send_response(status)
                if status == 206:
                    span = f"bytes {first}-{len(answer) - 1}/{len(answer)}"
                    self.send_header("content-range", span)
                piece = answer[first:]
                self.send_header("content-length", str(len(piece)))
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(piece)

            do_GET = do_POST = _serve  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._http.server_address[1])
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, path: str, body: bytes, who: str) -> tuple[int, bytes]:
        name = path.removeprefix("/d/v1/")
        if name.startswith("repo/"):
            found = self.files.get(name.removeprefix("repo/").replace("%2F", "/"))
            return (200, found) if found is not None else (404, b'{"code":"request.not_found"}')
        if name.startswith("blobs/"):
            return self._blob(name.removeprefix("blobs/"))
        return 200, codec.encode(getattr(self, f"_{name.partition('/')[0]}")(body, who))

    def _blob(self, sha256: str) -> tuple[int, bytes]:
        self.downloads.append(sha256)
        if sha256 in self.blobs:
            return 200, self.blobs[sha256]
        path = self.taken.data / "blobs" / sha256[:2] / sha256
        return (200, path.read_bytes()) if path.is_file() else (404, b"{}")

    @property
    def _voice(self) -> Signer:
        return self.voice or self.keys.director

    def _nonce(self, _body: bytes, _who: str) -> NonceAnswer:
        return NonceAnswer(nonce="0" * 32, valid_s=60)

    def _enrol(self, _body: bytes, who: str) -> EnrolAnswer:
        return EnrolAnswer(device_id=who, state="accepted")

    def _session(self, body: bytes, _who: str) -> SessionAnswer:
        # Whoever holds the session secret can be anybody's server: he takes every device's word for its name.
        plain = msgspec.json.decode(body)
        claimed = msgspec.json.decode(
            peek_payload(msgspec.convert(plain["envelope"], type=Envelope))
        )
        return SessionAnswer(token=str(claimed["device_id"]), expires_in_s=DAY, acked_seq=0)

    def _poll(self, _body: bytes, _who: str) -> PollAnswer:
        return PollAnswer(work=self.lie is not None, poll_after_s=1, gate_epoch=1)

    def _assignment(self, body: bytes, who: str) -> AssignmentAnswer:
        request = codec.decode(body, AssignmentRequest)
        self.asked += 1
        if self.lie is None:
            now = int(time.time())
            self.seq = max(self.seq + 1, now * 1000)
            nothing = AssignmentBody(
                device_id=who, device_key=self.taken.devices[who], seq=self.seq, issued=now,
                expires=now + DAY, nonce=request.nonce, action="none",
            )  # fmt: skip
            return AssignmentAnswer(envelope=sign_document(nothing, ASSIGNMENT_TYPE, self._voice))
        return AssignmentAnswer(envelope=self.lie(request, who))

    def _permit(self, body: bytes, who: str) -> PermitAnswer:
        request = codec.decode(body, PermitRequest)
        if self.refuse_permits:
            return PermitAnswer(because="no", retry_after_s=1)
        self.permits += 1
        permit = PermitBody(
            device_id=who, permit=f"p-{self.permits}", update=request.update,
            attempt=request.attempt, slot_sha256=request.slot_sha256, gate_epoch=1,
            nonce=request.nonce, issued=int(time.time()),
        )  # fmt: skip
        return PermitAnswer(envelope=sign_document(permit, PERMIT_TYPE, self._voice))

    def _events(self, body: bytes, _who: str) -> EventsAnswer:
        most = 0
        for item in codec.decode(body, EventsRequest).events:
            event = item.body
            if item.envelope is not None:
                event = msgspec.json.decode(peek_payload(item.envelope), type=EventBody)
            assert event is not None
            self.events.append(event)
            most = max(most, event.seq)
        return EventsAnswer(acked_seq=most)

    def _time(self, body: bytes, who: str) -> TimeAnswer:
        request = codec.decode(body, TimeRequest)
        self.asked += 1
        told = TimeBody(device_id=who, nonce=request.nonce, time=int(time.time()) + self.time_lie_s)
        return TimeAnswer(envelope=sign_document(told, TIME_TYPE, self._voice))


def assigned(target: SignedTarget) -> AssignedTarget:
    """Name an image in the product role's own words."""
    fields = ("product", "release_counter", "security_version", "hardware", "channels")
    same = {one: getattr(target.release, one) for one in fields}
    return AssignedTarget(path=target.path, length=target.length, sha256=target.sha256, **same)


def without(keys: OnlineKeys, *roles: str) -> OnlineKeys:
    """Return keys in which those of some roles are the thief's own, because he could not take the real ones."""

    def have(role: str) -> Signer:
        real: Signer = getattr(keys, role)
        return signer(f"forged {role}") if role in roles else real

    return OnlineKeys(
        snapshot=have("snapshot"),
        timestamp=have("timestamp"),
        director=have("director"),
        audit=have("audit"),
        secret=keys.secret,
    )
