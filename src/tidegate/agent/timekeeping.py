"""What time it is, on a device whose clock proves nothing.

Three sources, from weak to strong (`docs/reference/metadata.md`, *Time on a device*):

* the **floor**: it cannot be earlier than what was signed already. Two numbers: `offline` from offline keys alone (build time of the confirmed image, issue
  of a grant), which never goes down; `online` from the online keys (director, timestamp), which a thief of those could push to 2099, and which is forgotten
  when a root ceremony raises `authorities.epoch`;
* the system's **clock**, if something vouches for it and it is not below the floor;
* a **nonce**: the director signed the time, or an order, over a number that this device made just now.

Two questions, two answers. `Reading.now` is the reference for expiry: the signed time where there is one. `Reading.offline_now` is for what must not come
too early (the rollout mandate) or stay too long (a way back): no online key can move it.

The decisions are pure functions over `Floors`; `TimeStore` keeps those, `Timekeeper` asks. Imported by the worker only.
"""

from typing import Final, Literal

import msgspec

from tidegate.agent.journal import seal, unseal
from tidegate.agent.net import api
from tidegate.agent.ports import Proof, ProvenClock, Storage, World
from tidegate.agent.settings import Settings
from tidegate.agent.state import State
from tidegate.core.director import open_time
from tidegate.core.errors import RequestError
from tidegate.core.metadata import RootDocument, root_extra
from tidegate.core.protocol import TimeAnswer, TimeRequest

#: Clocks that differ by less are taken as equal, in seconds.
SLACK_S: Final = 300
#: The floor of the online keys is written when it has risen by this, in seconds: a flash lives longer.
WRITE_S: Final = 600

COPIES: Final = ("tuf.time.0", "tuf.time.1")

Source = Literal["clock", "floor", "nonce"]
_replace = msgspec.structs.replace


class Floors(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept. Times in unix seconds.

    Attributes:
        offline: no earlier than this, by offline keys; never goes down.
        online: no earlier than this, by the online keys of `epoch`.
        epoch: `authorities.epoch` of the root that those keys stood in.
        boot_id: the boot in which a time was proved by a nonce last.
        stepped: the system's clock was set to a time that an online key signed, and nothing has synchronised it since.
    """

    offline: int = 0
    online: int = 0
    epoch: int = 0
    boot_id: str = ""
    stepped: bool = False

    @property
    def floor(self) -> int:
        """Return the time that it is at least."""
        return max(self.offline, self.online)


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The time, as well as it is known.

    Attributes:
        now: reference for expiry, unix seconds.
        source: where it comes from.
        trusted: False when only the floor is known: then nothing may be called fresh.
        offline_now: the best time that no online key could have pushed forward.
    """

    now: int
    source: Source
    trusted: bool
    offline_now: int


# --- decisions, pure ----------------------------------------------------------------------------------------------------


def read(floors: Floors, clock: int, proof: Proof, signed: int | None = None) -> Reading:
    """Decide what time it is.

    Args:
        floors: what is kept.
        clock: the system's clock, unix seconds.
        proof: what vouches for it.
        signed: the time by an answer to a nonce made just now; None without one.
    """
    offline_now = clock if _believed(floors, clock, proof) else floors.offline
    if signed is not None:
        # Never below the floor: time was there already, whatever the director says now.
        at = max(signed, floors.floor)
        return Reading(now=at, source="nonce", trusted=True, offline_now=offline_now)
    if proof != "none" and clock >= floors.floor:
        return Reading(now=clock, source="clock", trusted=True, offline_now=offline_now)
    return Reading(now=floors.floor, source="floor", trusted=False, offline_now=offline_now)


def _believed(floors: Floors, clock: int, proof: Proof) -> bool:
    """Say whether the clock stands, and no online key moved it."""
    if clock < floors.offline or proof == "none":
        return False
    # What we set it to may have been carried into the battery-backed clock.
    return proof == "synced" or not floors.stepped


def raise_offline(floors: Floors, at: int) -> Floors:
    """Take a time that an offline key signed."""
    return _replace(floors, offline=max(floors.offline, at))


def raise_online(floors: Floors, at: int) -> Floors:
    """Take a time that an online key of the present epoch signed."""
    return _replace(floors, online=max(floors.online, at))


def at_epoch(floors: Floors, epoch: int) -> Floors:
    """Forget what online keys said before root replaced them."""
    if epoch <= floors.epoch:
        return floors
    return _replace(floors, online=0, epoch=epoch, boot_id="")


def of_image(floors: Floors, state: State) -> Floors:
    """Take the build time of the running image, once it is confirmed: one on trial has not earned that yet."""
    record = state.slots.get(state.current)
    if record is None or record.state != "confirmed" or record.release is None:
        return floors
    return raise_offline(floors, record.release.built_at)


def complaint(clock: int, proof: Proof, signed: int, floor: int) -> str:
    """Say in words what is wrong with the clocks, or "". A clock that nobody vouches for may be behind: that is how it starts."""
    ahead = clock - signed
    if ahead > SLACK_S or (proof != "none" and ahead < -SLACK_S):
        way = "ahead of" if ahead > 0 else "behind"
        return f"this clock ({proof}) is {abs(ahead)} s {way} the signed time"
    if signed < floor - SLACK_S:
        return f"the signed time is {floor - signed} s behind what was signed before"
    return ""


# --- keeping ------------------------------------------------------------------------------------------------------------


class TimeStore:
    """The floors, durable in two checksummed copies; both are written, so that losing one loses nothing.

    Args:
        storage: small durable files.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._generation = 0

    def read(self) -> tuple[Floors, bool]:
        """Return what is kept, and whether all copies of it were damaged."""
        present = 0
        best: Floors | None = None
        for name in COPIES:
            body = self._storage.read(name)
            if body is None:
                continue
            present += 1
            opened = unseal(body)
            floors = None if opened is None else _decode(opened[1])
            if opened is not None and floors is not None and opened[0] > self._generation:
                self._generation, best = opened[0], floors
        return best or Floors(), best is None and present > 0

    def write(self, floors: Floors) -> None:
        """Make the floors durable."""
        self._generation += 1
        sealed = seal(self._generation, msgspec.json.encode(floors))
        for name in COPIES:
            self._storage.write(name, sealed)


def _decode(body: bytes) -> Floors | None:
    try:
        return msgspec.json.decode(body, type=Floors)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


# --- asking -------------------------------------------------------------------------------------------------------------


class Timekeeper:
    """The time of one device during one job.

    Attributes:
        floors: what is known now; durable after `keep`.
        damaged: what was kept could not be read.

    Args:
        world: its ports.
        settings: what it was told.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        self._world = world
        self._settings = settings
        self._store = TimeStore(world.storage)
        self._kept, self.damaged = self._store.read()
        self.floors = self._kept
        self._signed: tuple[int, float] | None = None
        self._before = self.floors.floor

    @property
    def proof(self) -> Proof:
        """Return what vouches for the system's clock."""
        clock = self._world.clock
        return clock.proof() if isinstance(clock, ProvenClock) else "none"

    def reading(self) -> Reading:
        """Return the time, as well as it is known now."""
        signed = None
        if self._signed is not None:
            at, mono = self._signed
            signed = at + max(0, int(self._world.clock.monotonic() - mono))
        return read(self.floors, self._clock(), self.proof, signed)

    def know(self, state: State, root: RootDocument) -> None:
        """Take what the device's own state and the believed root say about time."""
        self.floors = of_image(at_epoch(self.floors, root_extra(root).authorities.epoch), state)
        if self.proof == "synced":
            self.floors = _replace(self.floors, stepped=False)
        self._before = self.floors.floor

    def must_ask(self, state: State) -> bool:
        """Say whether a signed time is due before anything is believed: the clock is not trusted, the first contact of this boot, or damaged state."""
        first = self.floors.boot_id != state.boot_id or not state.boot_id
        return first or self.damaged or state.damaged or not self.reading().trusted

    def ask(self, root: RootDocument, token: str | None) -> None:
        """Ask the director for the time, with a nonce.

        Raises:
            PublisherError: `sig.*`: an answer that is not the director's, or not to this question.
            TransferError, TokenError: the link, or the session.
        """
        world = self._world
        nonce = world.clock.random_bytes(16).hex()
        mono = world.clock.monotonic()
        answer = api.post(
            world.transport,
            "/d/v1/time",
            TimeRequest(nonce=nonce),
            TimeAnswer,
            clock=world.clock,
            token=token,
        )
        device_id = self._settings.device_id
        at = open_time(answer.envelope, root, device_id=device_id, nonce=nonce)
        self.told(at, mono)

    def ask_if_served(self, root: RootDocument, token: str | None) -> None:
        """Ask for the time where the server answers that; the order that comes next is bound to a nonce as well.

        Raises:
            PublisherError, TransferError, TokenError: as `ask`.
        """
        try:
            self.ask(root, token)
        except api.TokenError:
            raise
        except RequestError:
            return

    def told(self, at: int, mono: float) -> None:
        """Take a time that the director signed over a nonce made at `mono` on the monotonic clock."""
        if self._signed is not None:
            before, since = self._signed
            at = max(at, before + max(0, int(mono - since)))
        self._signed = (at, mono)
        self.floors = raise_online(self.floors, at)

    def proved(self, state: State) -> str:
        """Note that this boot has a proved time; return what is wrong with the clock, in words, or ""."""
        if self._signed is None:
            return ""
        self.floors = _replace(self.floors, boot_id=state.boot_id)
        return complaint(self._clock(), self.proof, self._signed[0], self._before)

    def issued(self, *, online: int = 0, offline: int = 0) -> None:
        """Take when verified documents were made, by their own word."""
        self.floors = raise_offline(raise_online(self.floors, online), offline)

    def keep(self) -> None:
        """Make durable what is worth a write."""
        now, kept = self.floors, self._kept
        small = now.online - kept.online < WRITE_S and now.online >= kept.online
        if now == kept or (small and _replace(now, online=kept.online) == kept):
            return
        self._store.write(now)
        self._kept = now

    def step(self, state: State) -> None:
        """Set the system's clock, if that is wanted and it is wrong: TLS and other programs read it as well."""
        self.floors = of_image(self.floors, state)
        word, clock = self._settings.clock_step, self._world.clock
        if word == "never" or not isinstance(clock, ProvenClock):
            return
        if word == "signed" and self._signed is not None:
            now = self.reading().now
            if abs(now - self._clock()) > SLACK_S:
                # Said before it is done: after a cut in between, the clock is believed less than it could be.
                self.floors = _replace(self.floors, stepped=True)
                self.keep()
                clock.set(now)
        elif self._clock() < self.floors.offline:
            clock.set(self.floors.offline)

    def _clock(self) -> int:
        return max(0, int(self._world.clock.now()))
