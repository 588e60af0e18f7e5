"""A server in process, and devices that speak the protocol to it: real parts on a clock that the test turns."""

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec
from sqlalchemy import insert, update
from tests import stores

from tidegate.core import codec, keys
from tidegate.core.authority import Mandate, ProductExtra, RootExtra
from tidegate.core.hardware import Hardware, HardwareRange
from tidegate.core.keys import Signer
from tidegate.core.mandate import with_mandates
from tidegate.core.metadata import (
    RoleKeys,
    SignedTarget,
    authorities,
    make_product,
    make_root,
    make_targets,
    sign,
)
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    ENROL_TYPE,
    EVENT_TYPE,
    PERMIT_TYPE,
    REKEY_TYPE,
    SESSION_TYPE,
    SIGNED_KINDS,
    AssignmentAnswer,
    AssignmentBody,
    AssignmentRequest,
    DeliveryPolicy,
    DeviceState,
    EnrolBody,
    EnrolRequest,
    EventBody,
    EventItem,
    EventsAnswer,
    EventsRequest,
    PermitAnswer,
    PermitBody,
    PermitRequest,
    PollAnswer,
    RekeyBody,
    RekeyRequest,
    SessionBody,
    SessionRequest,
    SlotState,
    session_ref,
)
from tidegate.core.release import (
    Component,
    FallbackTo,
    Install,
    PayloadRef,
    ReleaseTarget,
    release_sha256,
)
from tidegate.rollout.model import Deadlines, Policy, RingProgress, RingSpec
from tidegate.server.app import App, create_app
from tidegate.server.config import Settings
from tidegate.server.live import Live
from tidegate.server.metrics import Metrics
from tidegate.server.store import Connection, changes, hot, release_queries, tables
from tidegate.server.store.scope import tenant_of
from tidegate.server.store.sqlite import DATABASE_NAME, open_store

T = TypeVar("T")
START = 1_800_000_000
YEAR = 365 * 86_400


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def as_(self, kind: type[T]) -> T:
        assert self.status == 200, self.body
        return msgspec.json.decode(self.body, type=kind)

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


async def ask(
    app: Any,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    client: str | None = None,
) -> Answer:
    status, got, pieces = 0, {}, []
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await asyncio.sleep(3600)
        asked = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, got
        if message["type"] == "http.response.start":
            status = message["status"]
            got = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            pieces.append(message.get("body", b""))

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http", "method": method, "path": path, "headers": raw, "query_string": b"",
        "client": (client, 1) if client else None, "raw_path": path.encode(),
    }  # fmt: skip
    await app(scope, receive, send)
    return Answer(status, got, b"".join(pieces))


@functools.cache
def _migrated() -> bytes:
    """Return an empty database whose schema is current: migrating once is enough for many tests."""
    with tempfile.TemporaryDirectory() as folder:
        open_store(Path(folder)).close()
        return (Path(folder) / DATABASE_NAME).read_bytes()


@dataclass
class Rig:
    folder: Path
    now: float = START
    app: App = field(init=False)
    random: Random = field(default_factory=lambda: Random(1))
    offline: dict[str, Signer] = field(default_factory=dict)
    address: str | None = None
    #: Whether another server may be opened on the same folder.
    shared: bool = False
    #: Further settings.
    more: dict[str, Any] = field(default_factory=dict)
    #: Of its database; None = as the test's store has it.
    url: str | None = None

    def __post_init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.url = stores.url_of(self.folder) if self.url is None else self.url
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700)
            if not self.url:
                (self.folder / DATABASE_NAME).write_bytes(_migrated())
        self.start()

    def start(self) -> None:
        settings = Settings(
            data_dir=self.folder,
            durable=False,
            shared=self.shared,
            database_url=self.url or "",
            **self.more,
        )
        self.app = create_app(settings, clock=lambda: self.now, randomness=self.random.randbytes)

    @property
    def door(self) -> Any:
        """What devices' requests come to."""
        return self.app

    def restart(self) -> None:
        self.app.close()
        self.start()

    def close(self) -> None:
        self.app.close()
        self.loop.close()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) else codec.encode(body) if body is not None else b""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.loop.run_until_complete(ask(self.app, method, path, named, raw, self.address))

    def scrape(self, now: float | None = None) -> str:
        """Return what `/metrics` shows."""
        readiness = self.app.readiness
        made = Metrics(self.app.services, Live(self.app.store), readiness)
        return made.render(int(self.now if now is None else now)).decode()

    def write(self, work: Any) -> Any:
        return self.app.store.write(work).result(60)

    def read(self, work: Any) -> Any:
        return self.app.store.read(work)

    def signer(self, name: str) -> Signer:
        if name not in self.offline:
            self.offline[name] = Signer.from_seed(self.random.randbytes(32))
        return self.offline[name]

    # --- what operators and publishers do ---

    def publish_trust(self, products: tuple[str, ...] = ("gw1",)) -> None:
        root, targets = self.signed_trust(products)
        repository, now = self.app.services.repository, int(self.now)
        self.write(lambda conn: repository.publish_root(conn, root, now))
        self.write(lambda conn: repository.publish_targets(conn, targets, now))

    def signed_trust(
        self, products: tuple[str, ...] = ("gw1",), version: int = 1
    ) -> tuple[bytes, bytes]:
        """Return root and targets as their holders sign them."""
        online = self.app.services.keys

        def role(*signers: Signer) -> RoleKeys:
            return RoleKeys(tuple(one.public for one in signers), 1)

        extra = RootExtra(
            authorities=authorities(
                epoch=1,
                director=role(online.director),
                incident=role(self.signer("incident")),
                audit=role(online.audit),
                director_max_s=7 * 86_400,
                incident_max_s=30 * 86_400,
            )
        )
        roles = {
            "root": role(self.signer("root")),
            "targets": role(self.signer("targets")),
            "snapshot": role(online.snapshot),
            "timestamp": role(online.timestamp),
        }
        expires = int(self.now) + YEAR
        root = make_root(version=version, expires_at=expires, roles=roles, extra=extra)
        targets = make_targets(
            version=version,
            expires_at=expires,
            products={name: role(self.signer(f"product/{name}")) for name in products},
            one_signer=products,
        )
        return sign(root, self.signer("root")), sign(targets, self.signer("targets"))

    def release(
        self,
        counter: int,
        *,
        product: str = "gw1",
        fallback_to: tuple[int, ...] = (),
        rev_max: int = 9,
        mandate: Mandate | None = None,
        payload: bytes = b"",
        **says: Any,
    ) -> ReleaseTarget:
        """Publish a release: what decisions need of one. Without `payload` its bytes are not there."""
        digest = hashlib.sha256(payload or f"{product} {counter}".encode()).hexdigest()
        length = len(payload) or 4096
        if payload:
            self.app.services.blobs.put(digest, iter([payload]))
        version = f"1.{counter}.0"
        target = ReleaseTarget(
            product=product,
            version=version,
            release_counter=counter,
            security_version=1,
            channels=("stable",),
            hardware=(HardwareRange(product, 1, rev_max),),
            install=Install(size=4096, sha256=digest),
            payloads=(PayloadRef(kind="full", sha256=digest, length=length, index_sha256=digest),),
            fallback_to=tuple(
                FallbackTo(counter=one, expires=int(self.now) + YEAR) for one in fallback_to
            ),
        )
        target = msgspec.structs.replace(target, **says)
        path = f"{product}/{version}/rootfs"

        def work(conn: Connection) -> None:
            before = [
                SignedTarget(
                    row[0], row[1], row[2], msgspec.json.decode(row[3], type=ReleaseTarget)
                )
                for one in release_queries.releases_of(conn, product)
                for row in hot_artifacts(conn, one.id)
            ]
            body = make_product(
                version=len(before) + 1,
                expires_at=int(self.now) + YEAR,
                targets=[*before, SignedTarget(path, length, digest, target)],
                extra=with_mandates(ProductExtra(), [mandate] if mandate else []),
            )
            signed = sign(body, self.signer(f"product/{product}"))
            self.app.services.repository.publish_product(conn, product, signed, int(self.now))
            release_id = release_queries.add_release(
                conn,
                {
                    "name": target.name, "product": product, "version": version,
                    "counter": counter, "security_version": 1,
                    "release_sha256": release_sha256([digest]), "channels": ["stable"],
                    "kind": "feature", "state": "live", "published_at": int(self.now),
                    "published_by": "test", "signers": [],
                    "mandate": msgspec.json.encode(mandate).decode() if mandate else None,
                },
            )  # fmt: skip
            release_queries.add_artifact(
                conn,
                {
                    "release_id": release_id, "path": path, "component": "rootfs",
                    "install_sha256": digest, "install_size": 4096, "length": length,
                    "sha256": digest, "target": msgspec.to_builtins(target),
                },
            )  # fmt: skip
            changes.bump(conn, "release", target.name, int(self.now))

        self.write(work)
        return target

    def rollout(
        self, target: ReleaseTarget, *, name: str = "", state: str = "active", share: int = 10_000,
        kind: str = "install", parent: int | None = None, audience: str = "", room: int | None = None,
        policy: Policy | None = None,
    ) -> int:  # fmt: skip
        policy = policy or Policy(
            rings=(RingSpec(name="fleet", audience=audience, shares=(share,)),),
            deadlines=Deadlines(return_s=100, confirm_s=200),
        )
        rings = [RingProgress(state="open", step=0, opened_at=int(self.now)) for _ in policy.rings]

        def work(conn: Connection) -> int:
            release = release_queries.release_by_counter(
                conn, target.product, target.release_counter
            )
            assert release is not None
            made = conn.execute(
                insert(tables.rollout).values(
                    name=name or f"r-{target.name}", kind=kind, parent_id=parent,
                    release_id=release.id, product=target.product, state=state,
                    policy=msgspec.to_builtins(policy), rings=msgspec.to_builtins(rings),
                    isolated=[], approvals=[], delivery=msgspec.to_builtins(DeliveryPolicy()),
                    because=[], room=room, created_at=int(self.now), created_by="test",
                    started_at=int(self.now),
                )
            ).inserted_primary_key  # fmt: skip
            assert made is not None
            changes.bump(conn, "rollout", str(made[0]), int(self.now))
            return int(made[0])

        return int(self.write(work))

    def set_rollout(self, rollout_id: int, **values: Any) -> None:
        def work(conn: Connection) -> None:
            conn.execute(
                update(tables.rollout).where(tables.rollout.c.id == rollout_id).values(**values)
            )
            hot.raise_gate_epoch(conn, tenant_of(conn))
            changes.bump(conn, "rollout", str(rollout_id), int(self.now))

        self.write(work)

    def claim(self, token: str = "claim-1", *, count: int = 100, **values: Any) -> str:
        digest = hashlib.sha256(token.encode()).hexdigest()

        def work(conn: Connection) -> None:
            row = {
                "name": token, "token_sha256": digest, "product": "gw1", "max_count": count,
                "expires_at": int(self.now) + YEAR, "created_at": int(self.now), "created_by": "test",
            } | values  # fmt: skip
            conn.execute(insert(tables.claim).values(**row))

        self.write(work)
        return token

    def device(
        self, device_id: str = "d1", *, rev: int = 1, join: bool = True, **says: Any
    ) -> "Device":
        made = Device(self, device_id, rev)
        if join:
            token = "claim-1"
            with contextlib.suppress(Exception):
                self.claim(token)
            assert made.enrol(token, **says).status == 200
            made.log_in()
        return made

    def tallies(self, rollout_id: int) -> dict[str, int]:
        found: dict[str, int] = {}
        for _, _, name, value in self.read(lambda conn: hot.tallies(conn, rollout_id)):
            if value:
                found[name] = found.get(name, 0) + value
        return found


def hot_artifacts(conn: Connection, release_id: int) -> list[tuple[str, int, str, str]]:
    from tidegate.server.store import rollout_rows

    return rollout_rows.artifacts(conn, release_id)


@dataclass
class Device:
    rig: Rig
    id: str
    rev: int = 1
    token: str = ""
    seq: int = 0
    counter: int = 0
    sha256: str | None = None
    other: SlotState | None = None
    refuses: tuple[str, ...] = ()
    waiting: str = ""
    held: bool = False
    floor: int = 0
    boot_id: str = "boot-1"
    #: Of the session before, as agents tell it; None: as one that does not.
    previous: str | None = None

    def __post_init__(self) -> None:
        self.key = Signer.from_seed(hashlib.sha256(self.id.encode()).digest())

    @property
    def hardware(self) -> Hardware:
        return Hardware("gw1", self.rev, f"serial-{self.id}")

    def enrol(self, claim: str | None, **changed: Any) -> Answer:
        body = EnrolBody(
            device_id=self.id,
            public_key=self.key.public.public,
            product="gw1",
            hardware=self.hardware,
            attributes={"site": "north"},
        )
        body = msgspec.structs.replace(body, **changed)
        envelope = keys.sign_document(body, ENROL_TYPE, self.key)
        return self.rig.ask("POST", "/d/v1/enrol", EnrolRequest(envelope=envelope, claim=claim))

    def session(self) -> Answer:
        nonce = json.loads(self.rig.ask("POST", "/d/v1/nonce").body)["nonce"]
        body = SessionBody(
            device_id=self.id,
            nonce=nonce,
            boot_id=self.boot_id,
            agent="1.0.0",
            previous=self.previous,
        )
        envelope = keys.sign_document(body, SESSION_TYPE, self.key)
        return self.rig.ask("POST", "/d/v1/session", SessionRequest(envelope=envelope))

    def log_in(self) -> None:
        answer = self.session()
        assert answer.status == 200, answer.body
        found = json.loads(answer.body)
        self.token, self.seq = found["token"], max(self.seq, found["acked_seq"])
        if self.previous is not None:
            self.previous = session_ref(self.token)

    def rekey(self, new: Signer, *, signers: tuple[Signer, ...] = (), **changed: Any) -> Answer:
        """Ask for a new key, signed by the old and the new one unless told otherwise."""
        nonce = json.loads(self.rig.ask("POST", "/d/v1/nonce").body)["nonce"]
        body = RekeyBody(
            device_id=self.id,
            nonce=nonce,
            old_key=self.key.public.identity,
            public_key=new.public.public,
        )
        body = msgspec.structs.replace(body, **changed)
        first, *others = signers or (self.key, new)
        envelope = keys.sign_document(body, REKEY_TYPE, first)
        for one in others:
            envelope = keys.add_signature(envelope, one)
        return self.rig.ask("POST", "/d/v1/rekey", RekeyRequest(envelope=envelope))

    def copied(self) -> "Device":
        """Return a second device with all that this one has: its key, its state, its token."""
        made = dataclasses.replace(self)
        made.key = self.key
        return made

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        return self.rig.ask(method, path, body, authorization=f"Bearer {self.token}", **headers)

    def poll(self) -> PollAnswer:
        return self.ask("GET", "/d/v1/poll").as_(PollAnswer)

    def assignment(
        self, *, offline_now: int = 0, components: dict[str, Component] | None = None
    ) -> AssignmentBody:
        slots = {
            "A": SlotState(
                state="confirmed",
                release_counter=self.counter,
                security_version=1,
                sha256=self.sha256,
            )
        }
        slots["B"] = self.other or SlotState(state="empty")
        state = DeviceState(
            hardware=self.hardware, channel="stable", agent="1.0.0", boot_id=self.boot_id,
            running="A", slots=slots, refuses=self.refuses, held=self.held, waiting=self.waiting,
            offline_now=offline_now, components=components or {}, security_floor=self.floor,
        )  # fmt: skip
        request = AssignmentRequest(nonce=self.rig.random.randbytes(16).hex(), state=state)
        answer = self.ask("POST", "/d/v1/assignment", request).as_(AssignmentAnswer)
        director = self.rig.app.services.keys.director.public
        body = keys.open_document(
            answer.envelope, ASSIGNMENT_TYPE, AssignmentBody, {director.keyid: director}
        )
        assert body.nonce == request.nonce
        assert body.device_id == self.id
        return body

    def permit(
        self, body: AssignmentBody, *, sha256: str = "", nonce: str = "", ahead_s: int = 0
    ) -> PermitAnswer:
        assert body.target is not None
        request = PermitRequest(
            nonce=nonce or self.rig.random.randbytes(16).hex(),
            update=body.update or "",
            attempt=body.attempt,
            slot_sha256=sha256 or body.target.sha256,
            release_counter=body.target.release_counter,
            ahead_s=ahead_s,
        )
        return self.ask("POST", "/d/v1/permit", request).as_(PermitAnswer)

    def open_permit(self, answer: PermitAnswer) -> PermitBody:
        director = self.rig.app.services.keys.director.public
        assert answer.envelope is not None, answer.because
        return keys.open_document(
            answer.envelope, PERMIT_TYPE, PermitBody, {director.keyid: director}
        )

    def event(self, kind: str, body: AssignmentBody | None = None, **values: Any) -> EventItem:
        self.seq += 1
        made = EventBody(
            device_id=self.id, seq=self.seq, at=int(self.rig.now), kind=kind,  # type: ignore[arg-type]
            boot_id=self.boot_id, update=body.update if body else None,
            attempt=body.attempt if body else 0, variant=self.hardware.variant,
        )  # fmt: skip
        made = msgspec.structs.replace(made, **values)
        if kind in SIGNED_KINDS:
            return EventItem(envelope=keys.sign_document(made, EVENT_TYPE, self.key))
        return EventItem(body=made)

    def report(self, *items: EventItem) -> EventsAnswer:
        return self.ask("POST", "/d/v1/events", EventsRequest(events=items)).as_(EventsAnswer)

    def tell(self, kind: str, body: AssignmentBody | None = None, **values: Any) -> EventsAnswer:
        return self.report(self.event(kind, body, **values))

    def run(self, body: AssignmentBody) -> None:
        """Go the whole way with an assignment, to confirmed."""
        assert body.target is not None
        self.tell("downloading", body)
        self.tell("staged", body, bytes=4096)
        assert self.permit(body).envelope is not None
        self.tell("rebooting", body)
        self.tell("verifying", body)
        self.confirm(body)

    def confirm(self, body: AssignmentBody) -> None:
        assert body.target is not None
        self.other = SlotState(
            state="confirmed", release_counter=self.counter, security_version=1, sha256=self.sha256
        )
        self.counter, self.sha256 = body.target.release_counter, body.target.sha256
        self.tell(
            "confirmed", body, running_counter=self.counter, running_sha256=self.sha256,
            running_version=f"1.{self.counter}.0",
        )  # fmt: skip


@contextlib.contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    made = Rig(folder)
    try:
        yield made
    finally:
        made.close()
