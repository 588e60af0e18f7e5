"""A control plane of one file, with real keys and real documents, and a device on the simulator's ports: what the agent's tests run against."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

import msgspec
from tests.crash.releases import BLOCK, DAY, HARDWARE, SLOT_SIZE, Release, make_release, signer

from tidegate.agent.checkup.examiner import InPlace
from tidegate.agent.ports import HealthProbe, PowerCut, Reading, Response, Transport
from tidegate.agent.runner import Ports, Runner
from tidegate.agent.settings import Settings
from tidegate.core import codec
from tidegate.core.authority import Mandate, ProductExtra, ProductFloor, RootExtra
from tidegate.core.errors import TransferError
from tidegate.core.keys import (
    PublicKey,
    Signer,
    device_key_sha256,
    open_document,
    peek_payload,
    public_key,
    sign_document,
)
from tidegate.core.mandate import with_mandates
from tidegate.core.metadata import (
    RoleKeys,
    authorities,
    file_name,
    make_product,
    make_root,
    make_snapshot,
    make_targets,
    make_timestamp,
    parse_snapshot,
    parse_targets,
    sign,
)
from tidegate.core.protocol import (
    ASSIGNMENT_TYPE,
    ENROL_TYPE,
    EVENT_TYPE,
    PERMIT_TYPE,
    PERMIT_VALID_S,
    SESSION_TYPE,
    SIGNED_KINDS,
    TIME_TYPE,
    AssignedTarget,
    AssignmentAnswer,
    AssignmentBody,
    AssignmentRequest,
    AuditNews,
    DeliveryPolicy,
    EnrolAnswer,
    EnrolBody,
    EnrolRequest,
    Envelope,
    EventBody,
    EventsAnswer,
    EventsRequest,
    NonceAnswer,
    PermitAnswer,
    PermitBody,
    PermitRequest,
    PollAnswer,
    Problem,
    RepoBinding,
    SessionAnswer,
    SessionBody,
    SessionRequest,
    TimeAnswer,
    TimeBody,
    TimeRequest,
)
from tidegate.core.release import (
    HealthCheck,
    Running,
)
from tidegate.sim.board import Catalogue, Image, SimBoard
from tidegate.sim.clock import DeviceClock, VirtualTimeline
from tidegate.sim.faults import Behaviour, Truth


class Answer:
    """`agent.ports.Response` of bytes."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = {"content-length": str(len(body)), **(headers or {})}
        self._body = body
        self._at = 0

    def read(self, count: int) -> bytes:
        """Read on."""
        piece = self._body[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def close(self) -> None:
        """Nothing to give back."""


@dataclass(frozen=True)
class Order:
    """What the one device is to do."""

    action: str
    release: Release | None = None
    update: str | None = None
    attempt: int = 1
    allow_refused: bool = False
    policy: DeliveryPolicy = field(default_factory=DeliveryPolicy)


@dataclass
class Plane:
    """The control plane: answers requests, remembers what it heard."""

    clock: VirtualTimeline
    releases: tuple[Release, ...]
    floor: int = 100
    order: Order | None = None
    halted: bool = False
    director: Signer = field(default_factory=lambda: signer("director"))
    product: Signer = field(default_factory=lambda: signer("product"))
    device_key: PublicKey | None = None
    acked: int = 0
    events: dict[int, EventBody] = field(default_factory=dict)
    permits: dict[str, str] = field(default_factory=dict)
    orders: int = 0
    requests: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    down: bool = False
    #: It opens no session for anybody.
    closed: bool = False
    #: So many answers with a payload end after so many bytes.
    short_bodies: int = 0
    short_at: int = 0
    gate_epoch: int = 1
    incident: RoleKeys = field(default_factory=lambda: RoleKeys((signer("incident").public,), 1))
    epoch: int = 1
    version: int = 1
    strict_fallback: bool = False
    roots: dict[int, bytes] = field(default_factory=dict)
    mandates: tuple[Mandate, ...] = ()
    #: The director's clock runs ahead of everybody else's by so many seconds.
    skew_s: int = 0
    #: What is shown of the operators' log; None = an older server.
    audit: Callable[[AssignmentRequest], AuditNews | msgspec.UnsetType] | None = None
    #: The director that root names; `director` is who signs.
    named: PublicKey = field(default_factory=lambda: signer("director").public)

    def __post_init__(self) -> None:
        """Publish."""
        self.publish()

    # --- the repository -----------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Sign and serve every document. A higher `version` is a newer root and repository, where a ceremony changed something."""
        now = int(self.clock.wall())
        far = now + 300 * DAY

        def role(name: str) -> RoleKeys:
            return RoleKeys((signer(name).public,), 1)

        extra = RootExtra(
            strict_fallback=self.strict_fallback,
            authorities=authorities(
                epoch=self.epoch,
                director=RoleKeys((self.named,), 1),
                incident=self.incident,
                audit=role("audit"),
                director_max_s=7 * DAY,
                incident_max_s=30 * DAY,
            ),
        )
        roles = {one: role(one) for one in ("root", "targets", "snapshot", "timestamp")}
        version = self.version
        root = make_root(version=version, expires_at=far, roles=roles, extra=extra)
        self.roots[version] = sign(root, signer("root"))
        self.root = self.roots[1]
        targets = make_targets(version=1, expires_at=far, products={"gw1": role("product")})
        targets = sign(targets, signer("targets"))
        floors = (ProductFloor(model="gw1", security_floor=self.floor),)
        product = make_product(
            version=version,
            expires_at=far,
            targets=[one.target for one in self.releases],
            extra=with_mandates(ProductExtra(product_floor=floors), self.mandates),
        )
        product = sign(product, self.product)
        documents = {
            "targets": parse_targets(targets).info,
            "product/gw1": parse_targets(product, "product/gw1").info,
        }
        snapshot = make_snapshot(
            version=version, expires_at=far, issued_at=now, documents=documents
        )
        snapshot = sign(snapshot, signer("snapshot"))
        info = parse_snapshot(snapshot).info
        timestamp = make_timestamp(version=version, expires_at=far, issued_at=now, snapshot=info)
        self.files = {
            "timestamp.json": sign(timestamp, signer("timestamp")),
            **{file_name("root", number): body for number, body in self.roots.items()},
            file_name("snapshot", version): snapshot,
            file_name("targets", 1): targets,
            file_name("product/gw1", version): product,
        }
        held = (body for one in self.releases for body in (one.container, *one.containers))
        self.blobs = {hashlib.sha256(body).hexdigest(): body for body in held}

    def rotate_root(self, times: int, epoch: int = 1) -> None:
        """Hold ceremonies: each signs a next root, which names the director's key of now."""
        self.epoch, self.named = epoch, self.director.public
        for _ in range(times):
            self.version += 1
            self.publish()

    # --- requests -----------------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Response:
        """Answer one request."""
        if self.down:
            raise TransferError("download.refused", "nobody there")
        self.requests.append(path)
        headers = headers or {}
        if path.startswith("/d/v1/repo/"):
            found = self.files.get(path.removeprefix("/d/v1/repo/"))
            return _problem(404) if found is None else Answer(200, found)
        if path.startswith("/d/v1/blobs/"):
            return self._blob(path.rpartition("/")[2], headers)
        name = path.removeprefix("/d/v1/")
        if name in ("poll", "assignment", "time", "permit", "events") and (
            headers.get("authorization") != "Bearer token"
        ):
            return _problem(401, "session.expired")
        if self.closed and name == "session":
            return _problem(401, "session.expired")
        return Answer(200, codec.encode(getattr(self, f"_{name}")(body or b"")))

    def _blob(self, sha256: str, headers: Mapping[str, str]) -> Response:
        body = self.blobs.get(sha256)
        if body is None:
            return _problem(404)
        wanted = headers.get("range", "")
        first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        told = {"etag": f'"{sha256[:8]}"', "content-length": str(len(body) - first)}
        if wanted:
            told["content-range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        end = len(body)
        if self.short_bodies:
            self.short_bodies -= 1
            end = min(end, first + self.short_at)
        return Answer(206 if wanted else 200, body[first:end], told)

    def _enrol(self, body: bytes) -> EnrolAnswer:
        request = codec.decode(body, EnrolRequest)
        claimed = msgspec.json.decode(peek_payload(request.envelope), type=EnrolBody)
        key = public_key(claimed.keytype, claimed.public_key)
        open_document(request.envelope, ENROL_TYPE, EnrolBody, {key.keyid: key})
        self.device_key = key
        return EnrolAnswer(device_id=claimed.device_id, state="accepted")

    def _nonce(self, body: bytes) -> NonceAnswer:
        return NonceAnswer(nonce="0" * 32, valid_s=60)

    def _session(self, body: bytes) -> SessionAnswer:
        request = codec.decode(body, SessionRequest)
        assert self.device_key is not None
        key = self.device_key
        open_document(request.envelope, SESSION_TYPE, SessionBody, {key.keyid: key})
        return SessionAnswer(token="token", expires_in_s=DAY, acked_seq=self.acked)

    def _poll(self, body: bytes) -> PollAnswer:
        return PollAnswer(work=self.order is not None, poll_after_s=60, gate_epoch=self.gate_epoch)

    def _assignment(self, body: bytes) -> AssignmentAnswer:
        request = codec.decode(body, AssignmentRequest)
        order = self.order or Order("none")
        assert self.device_key is not None
        now = int(self.clock.wall()) + self.skew_s
        self.orders += 1
        target = None
        if order.release is not None:
            signed = order.release.target
            fields = ("product", "release_counter", "security_version", "hardware", "channels")
            same = {one: getattr(signed.release, one) for one in fields}
            target = AssignedTarget(
                path=signed.path, length=signed.length, sha256=signed.sha256, **same
            )
        signed_body = AssignmentBody(
            device_id="dev-1",
            epoch=self.epoch,
            device_key=device_key_sha256(self.device_key.keytype, self.device_key.public),
            seq=self.orders,
            issued=now,
            expires=now + DAY,
            nonce=request.nonce,
            action=order.action,  # type: ignore[arg-type]
            update=order.update,
            attempt=order.attempt,
            target=target,
            allow_refused=order.allow_refused,
            repo=RepoBinding(root_min=1, timestamp_min=1, snapshot_min=1),
            policy=order.policy,
        )
        news = msgspec.UNSET if self.audit is None else self.audit(request)
        return AssignmentAnswer(envelope=self.assign(signed_body), audit=news)

    def assign(self, body: AssignmentBody) -> Envelope:
        """Sign an assignment; what a thief overrides."""
        return sign_document(body, ASSIGNMENT_TYPE, self.director)

    def _time(self, body: bytes) -> TimeAnswer:
        nonce = codec.decode(body, TimeRequest).nonce
        now = int(self.clock.wall()) + self.skew_s
        body_ = TimeBody(device_id="dev-1", nonce=nonce, time=now)
        return TimeAnswer(envelope=sign_document(body_, TIME_TYPE, self.director))

    def _permit(self, body: bytes) -> PermitAnswer:
        request = codec.decode(body, PermitRequest)
        if self.halted:
            return PermitAnswer(because="the rollout is halted", retry_after_s=60)
        permit = self.permits.setdefault(request.nonce, f"permit-{len(self.permits) + 1}")
        signed_body = PermitBody(
            device_id="dev-1",
            permit=permit,
            update=request.update,
            attempt=request.attempt,
            slot_sha256=request.slot_sha256,
            gate_epoch=self.gate_epoch,
            nonce=request.nonce,
            issued=int(self.clock.wall()),
            valid_s=request.ahead_s or PERMIT_VALID_S,
        )
        return PermitAnswer(envelope=sign_document(signed_body, PERMIT_TYPE, self.director))

    def _events(self, body: bytes) -> EventsAnswer:
        assert self.device_key is not None
        key = self.device_key
        for item in codec.decode(body, EventsRequest).events:
            if item.envelope is not None:
                event = open_document(item.envelope, EVENT_TYPE, EventBody, {key.keyid: key})
            else:
                assert item.body is not None
                event = item.body
                assert event.kind not in SIGNED_KINDS
            known = self.events.setdefault(event.seq, event)
            assert known.kind == event.kind, "a sequence number was used twice"
            self.acked = max(self.acked, event.seq)
        return EventsAnswer(acked_seq=self.acked)

    def kinds(self) -> list[str]:
        """Return what was reported, in order, without heartbeats."""
        ordered = sorted(self.events.items())
        return [event.kind for _, event in ordered if event.kind != "heartbeat"]

    def outcomes(self) -> list[tuple[str, str | None]]:
        """Return (kind, reason) of what ended an update."""
        ends = ("confirmed", "failed", "reverted", "declined")
        ordered = sorted(self.events.items())
        return [(event.kind, event.reason) for _, event in ordered if event.kind in ends]


def _problem(status: int, code: str = "request.not_found") -> Answer:
    problem = Problem(type=f"urn:tidegate:error:{code}", title=code, status=status, code=code)
    return Answer(status, codec.encode(problem))


class AbruptBoard(SimBoard):
    """A board whose restart does not return: what was not durable by then is lost."""

    def reboot(self) -> None:
        """Go down at once."""
        super().reboot()
        raise PowerCut


class Probe:
    """A service that runs as the simulator's truth says."""

    def __init__(self, board: SimBoard) -> None:
        self._board = board

    def check(self, now: float) -> tuple[bool, str]:
        """Look at the truth."""
        return self._board.behaviour().service, "core"


class Errors:
    """The board's own count."""

    def __init__(self, board: SimBoard) -> None:
        self._board = board

    def read(self, last: Reading | None) -> Reading:
        """Errors since this boot."""
        return Reading(count=self._board.errors_total())


@dataclass
class Device:
    """One device under test: the real machine, runner and worker on simulated ports; restarted from its disk as often as it takes."""

    plane: Plane
    board: SimBoard
    clock: DeviceClock
    settings: Settings
    runner: Runner | None = None
    restarts: int = 0
    #: Opens the way to a mirror's origin.
    connect: Callable[[str], Transport] | None = None

    def start(self) -> None:
        """Switch on."""
        self.board.start()
        assert not self.board.dead
        self.restarts += 1
        board = self.board

        def probe(check: HealthCheck) -> tuple[str, HealthProbe]:
            return f"health.{check.kind.removesuffix('s')}", Probe(board)

        ports = Ports(
            clock=self.clock,
            storage=board.storage,
            board=board,
            transport=self.plane,
            examiner=InPlace(probe),
            errors=Errors(board),
            connect=self.connect,
        )
        self.runner = Runner(ports, self.settings)

    def run(self, limit_s: float = 3600.0, *, ticks: int = 20_000) -> Iterator[Runner]:
        """Run until `limit_s` of simulated time have passed; yield after every tick."""
        timeline = self.plane.clock
        end = timeline.at() + limit_s
        for _ in range(ticks):
            if timeline.at() >= end:
                return
            try:
                if self.runner is None:
                    self.start()
                assert self.runner is not None
                pause = self.runner.tick()
            except PowerCut:
                self.runner = None
                continue
            if self.board.wants_reboot:
                self.runner = None
                continue
            yield self.runner
            timeline.wait_until(max(self.clock.at(), timeline.at() + min(pause, limit_s)))
            self.clock.wake()
        raise AssertionError("the device never came to rest")

    def settle(self, limit_s: float = 3600.0) -> None:
        """Run until nothing is under way and everything was told."""
        for runner in self.run(limit_s):
            state = runner.state
            done = type(state.phase).__name__ == "Idle" and not state.outbox
            if done and self.plane.order is None and not runner.busy and state.next_seq > 1:
                return

    @property
    def runs(self) -> int:
        """Return the counter of the image that really runs."""
        assert self.board.image is not None
        return self.board.image.counter


def make_device(
    *counters: int | Release,
    seed: int = 1,
    behaviours: dict[int, Behaviour] | None = None,
    beside: Mapping[str, bytes] | None = None,
    **settings: object,
) -> Device:
    """Make a device that runs the first release, and a plane that knows all of them; `beside` are images of components beside its slots."""
    timeline = VirtualTimeline()
    random = Random(seed)
    releases = tuple(one if isinstance(one, Release) else make_release(one) for one in counters)
    catalogue = Catalogue()
    for one in releases:
        release = one.target.release
        catalogue.add(
            Image(
                release.release_counter,
                release.version,
                release.install.sha256,
                release.install.size,
            )
        )
    truth = Truth({(counter, "*"): what for counter, what in (behaviours or {}).items()})
    clock = DeviceClock(timeline, random)
    board = AbruptBoard(
        variant=HARDWARE.variant,
        clock=clock,
        random=random,
        catalogue=catalogue,
        truth=truth,
        slot_size=SLOT_SIZE,
    )
    board.load(releases[0].image)
    for name, image in (beside or {}).items():
        board.add_component(name, image, SLOT_SIZE)
    plane = Plane(timeline, releases)
    first = releases[0].target.release
    given = {
        "device_id": "dev-1",
        "product": "gw1",
        "hardware": HARDWARE,
        "anchor": plane.root,
        "installed": Running(
            release_counter=first.release_counter,
            security_version=first.security_version,
            sha256=first.install.sha256,
            version=first.version,
        ),
        "sync_bytes": 4 * BLOCK,
        "beside": tuple(beside or ()),
        **settings,
    }
    return Device(plane, board, clock, Settings(**given))  # type: ignore[arg-type]
