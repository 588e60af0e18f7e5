"""The rehearsals: other online keys, one root key lost, the server stolen and won back. Every line of the result was tried, none is assumed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from tidegate.core.accept import role_keys
from tidegate.core.errors import TidegateError
from tidegate.core.keys import PublicKey, Signer
from tidegate.core.metadata import (
    RoleKeys,
    product_role,
    products_of,
    root_extra,
    sign,
    signed_targets,
)
from tidegate.core.verify import TrustedSet
from tidegate.publisher.ceremony import RootSpec, begin_root, called, check_root
from tidegate.sim.drill.estate import ONLINE, Estate, footprint, read_estate
from tidegate.sim.drill.mark import Mark
from tidegate.sim.drill.plane import OnlineSigners, Plane, assigned, documents_of
from tidegate.sim.drill.theft import Attempt, Reach, Theft

Part = str
PARTS: Final = ("rotate", "lost-key", "theft")
YEAR_S: Final = 365 * 86_400


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a rehearsal: whether it worked, what came of it, and how long the machine took, in milliseconds. People's time is not in it."""

    what: str
    ok: bool
    text: str
    took_ms: int


class TheftReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a thief of the whole server gets from this fleet, and how it is won back.

    Attributes:
        devices: devices that were attacked, through one device of each kind.
        kinds: how many kinds there are.
        skipped: devices of rare kinds that were not attacked.
        broken: kinds that did not believe even the honest server, and why.
        reached: devices that would install something at once that a rollout would have staged.
        freeze_until: until when devices that talk to nobody else can be kept from learning of it, unix seconds: the end of root.
        recovery: the steps back.
    """

    devices: int
    kinds: int
    skipped: int
    broken: dict[str, str]
    attempts: tuple[Attempt, ...]
    reach: tuple[Reach, ...]
    reached: int
    freeze_until: int
    recovery: tuple[Step, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was rehearsed.

    Attributes:
        scratch: whose keys were replaced by scratch keys: all of them.
        untouched: every file of the data directory is as it was before.
        changed: files that are not; a server that runs there writes meanwhile.
    """

    folder: str
    root_version: int
    products: tuple[str, ...]
    devices: int
    left_out: int
    scratch: tuple[str, ...]
    rotation: tuple[Step, ...] = ()
    lost_key: tuple[Step, ...] = ()
    theft: TheftReport | None = None
    untouched: bool = True
    changed: tuple[str, ...] = ()
    took_ms: int = 0

    @property
    def failed(self) -> bool:
        """Say whether anything did not work, or a device did what no offline key allowed."""
        steps = (*self.rotation, *self.lost_key, *(self.theft.recovery if self.theft else ()))
        breach = self.theft is not None and (
            bool(self.theft.broken) or any(one.breach for one in self.theft.attempts)
        )
        return breach or not all(one.ok for one in steps)


def rehearse(
    folder: Path,
    parts: tuple[Part, ...],
    *,
    now: int,
    randomness: Callable[[int], bytes],
    clock: Callable[[], float] = time.monotonic,
) -> Report:
    """Rehearse on a scratch copy.

    Args:
        folder: the server's data directory; only read, before and after.
        parts: of `PARTS`.
        now: unix seconds.
        randomness: unpredictable bytes.
        clock: measures, in seconds.

    Raises:
        ConfigError: `config.unreadable`, `meta.no_root`, `data.*`.
    """
    began = clock()
    before = footprint(folder)
    estate = read_estate(folder, now=now, randomness=randomness)
    drill = _Drill(estate, clock)
    rotation = drill.rotate() if "rotate" in parts else ()
    lost_key = drill.lose_each_root_key() if "lost-key" in parts else ()
    theft = drill.steal() if "theft" in parts else None
    after = footprint(folder)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    return Report(
        folder=str(folder),
        root_version=estate.root_document.version,
        products=tuple(estate.products),
        devices=sum(len(ids) for ids in estate.fleet.values()),
        left_out=estate.left_out,
        scratch=tuple(_roles(estate)),
        rotation=rotation,
        lost_key=lost_key,
        theft=theft,
        untouched=not changed,
        changed=tuple(sorted(changed)),
        took_ms=int((clock() - began) * 1000),
    )


def _roles(estate: Estate) -> list[str]:
    targets = estate.targets_document
    return [*role_keys(estate.root_document), *(product_role(p) for p in products_of(targets))]


class _Drill:
    """One rehearsal on one estate."""

    def __init__(self, estate: Estate, clock: Callable[[], float]) -> None:
        self._estate = estate
        self._clock = clock
        self._roles = role_keys(estate.root_document)

    def _step(self, what: str, work: Callable[[], str]) -> Step:
        """Do one step; what goes wrong is its result."""
        began = self._clock()
        try:
            ok, text = True, work()
        except TidegateError as error:
            ok, text = False, f"{error.code}: {error.detail}"
        took = int((self._clock() - began) * 1000)
        return Step(what=what, ok=ok, text=text, took_ms=took)

    # --- keys ---

    def _online(self) -> OnlineSigners:
        """Return the scratch keys in the place of the present online keys."""
        held = {n: self._estate.keys.holding(self._roles[n])[0] for n in ONLINE[:3]}
        return OnlineSigners(held["snapshot"], held["timestamp"], held["director"])

    def _newcomers(self) -> dict[str, Signer]:
        return {name: self._estate.keys.new() for name in ONLINE}

    def _next_root(
        self,
        changes: dict[str, RoleKeys],
        signers: tuple[Signer, ...],
        *,
        raise_epoch: bool = False,
    ) -> bytes:
        """Hold a root ceremony: the same people, but for `changes`.

        Raises:
            PublisherError: it is no root that devices would take.
        """
        estate, spec = self._estate, self._spec(changes)
        draft = begin_root(spec, previous=estate.root, now=estate.now, raise_epoch=raise_epoch)
        root = sign(draft, *signers)
        check_root(root, previous=estate.root, now=estate.now)
        return root

    def _spec(self, changes: dict[str, RoleKeys]) -> RootSpec:
        extra = root_extra(self._estate.root_document)
        return RootSpec(
            tenant=extra.tenant,
            expires_s=YEAR_S,
            roles={**self._roles, **changes},
            incident_max_s=extra.authorities.incident.max_validity_s,
            strict_fallback=extra.strict_fallback,
            lab=extra.lab,
        )

    def _holders(self) -> tuple[Signer, ...]:
        """Return as many root holders as root wants."""
        ring = self._roles["root"]
        return self._estate.keys.holding(ring)[: ring.threshold]

    # --- (a) other online keys ---

    def rotate(self) -> tuple[Step, ...]:
        """Rehearse that the server gets other online keys."""
        new = self._newcomers()
        rings = {name: RoleKeys((one.public,), 1) for name, one in new.items()}
        made: list[bytes] = []

        def ceremony() -> str:
            made.append(self._next_root(rings, self._holders()))
            threshold = self._roles["root"].threshold
            return f"signed by {threshold} of {len(self._roles['root'].keys)} root keys, checked"

        steps = [self._step("root that names other online keys", ceremony)]
        if not made:
            return tuple(steps)
        theft = Theft(self._estate, self._online(), seed=1)
        fresh = OnlineSigners(new["snapshot"], new["timestamp"], new["director"])
        marks = self._marks(theft)
        plane = self._server(fresh, made[0], version=self._estate.now // 60 + 1)
        steps.append(
            self._step("devices follow the new server", lambda: self._follow(marks, plane))
        )
        old = theft.plane()
        steps.append(
            self._step("devices no longer follow the old keys", lambda: self._deaf(marks, old))
        )
        return tuple(steps)

    # --- (b) one root key is lost ---

    def lose_each_root_key(self) -> tuple[Step, ...]:
        """Rehearse the loss of each root key in turn: can the others replace it, and can its thief do anything alone?"""
        ring = self._roles["root"]
        steps = []
        for lost in ring.keys:
            name = called(lost)
            steps.append(self._step(f"{name} is lost: the others replace it", self._replace(lost)))
            steps.append(self._step(f"{name} is stolen: it makes no root alone", self._alone(lost)))
        return tuple(steps)

    def _replace(self, lost: PublicKey) -> Callable[[], str]:
        ring = self._roles["root"]
        newcomer = self._estate.keys.new(lost.keytype)
        left = [one for one in self._estate.keys.holding(ring) if one.public != lost]
        kept = tuple(key for key in ring.keys if key != lost)
        changed = RoleKeys((*kept, newcomer.public.called(f"{called(lost)}-new")), ring.threshold)

        def work() -> str:
            signers = (*left, newcomer)
            root = self._next_root({"root": changed}, signers)
            plane = self._server(self._online(), root, version=self._estate.now // 60 + 1)
            marks = self._marks(Theft(self._estate, self._online(), seed=2))
            return f"{len(left)} of {len(ring.keys)} old keys suffice; {self._follow(marks, plane)}"

        return work

    def _alone(self, stolen: PublicKey) -> Callable[[], str]:
        ring = self._roles["root"]
        (thief,) = (one for one in self._estate.keys.holding(ring) if one.public == stolen)

        def work() -> str:
            spec = self._spec({"root": RoleKeys((thief.public,), 1)})
            draft = begin_root(spec, previous=self._estate.root, now=self._estate.now)
            device = TrustedSet(self._estate.root, now=self._estate.now)
            try:
                device.update_root(sign(draft, thief))
            except TidegateError as error:
                return f"devices refuse: {error.code}"
            raise _FellError("ONE root key makes a root that every device takes")

        return work

    # --- (c) the server is stolen ---

    def steal(self) -> TheftReport:
        """Rehearse the theft of the whole server, and the way back."""
        theft = Theft(self._estate, self._online(), seed=3)
        theft.run()
        recovery = self._recover(theft)
        return TheftReport(
            devices=sum(len(ids) for ids in self._estate.fleet.values()) - theft.skipped,
            kinds=len(self._estate.fleet),
            skipped=theft.skipped,
            broken=theft.broken,
            attempts=theft.attempts(),
            reach=theft.reach(),
            reached=theft.reached,
            freeze_until=self._estate.root_document.expires_at,
            recovery=recovery,
        )

    def _recover(self, theft: Theft) -> tuple[Step, ...]:
        """Win the fleet back from a thief who ran versions and numbers far ahead on every device."""
        thief = theft.plane()
        thief.version += 10_000_000
        thief.seq += 1_000_000_000
        thief.publish()
        steps = [self._step("before: the thief runs far ahead", lambda: self._misled(theft, thief))]
        new: dict[str, Signer] = {}

        def rebuild() -> str:
            new.update(self._newcomers())
            return ", ".join(new)

        steps.append(self._step("new server, new online keys", rebuild))
        rings = {name: RoleKeys((one.public,), 1) for name, one in new.items()}
        made: list[bytes] = []

        def ceremony() -> str:
            made.append(self._next_root(rings, self._holders(), raise_epoch=True))
            epoch = root_extra(self._estate.root_document).authorities.epoch
            return f"epoch {epoch} -> {epoch + 1}; checked by the code that devices run"

        steps.append(self._step("root ceremony with a raised epoch", ceremony))
        if not made:
            return tuple(steps)
        fresh = OnlineSigners(new["snapshot"], new["timestamp"], new["director"])
        honest = self._server(fresh, made[0], version=thief.version + 1)
        steps.append(
            self._step("devices follow the new server", lambda: self._follow(theft.marks, honest))
        )
        steps.append(
            self._step("devices are deaf to the thief", lambda: self._deaf(theft.marks, thief))
        )
        return tuple(steps)

    # --- what devices make of it ---

    def _server(self, keys: OnlineSigners, root: bytes, *, version: int) -> Plane:
        newest = {name: bodies[-1] for name, bodies in self._estate.products.items()}
        documents = documents_of(self._estate.targets, newest)
        return Plane(keys, [self._estate.root, root], documents, version, self._estate.now)

    def _marks(self, theft: Theft) -> list[Mark]:
        """Return one device of each kind."""
        return list(theft.meet())

    def _misled(self, theft: Theft, thief: Plane) -> str:
        for mark in theft.marks:
            mark.forget()
            self._order_newest(mark, thief)
            mark.asks(thief)
            mark.remember()
        return f"{len(theft.marks)} kinds of devices have seen his versions"

    def _follow(self, marks: list[Mark], plane: Plane) -> str:
        """Have every kind ask, and remember.

        Raises:
            PublisherError: one of them refuses.
        """
        for mark in marks:
            self._order_newest(mark, plane)
            verdict = mark.asks(plane)
            if verdict.what == "refused" and verdict.reason.startswith("sig."):
                raise _FellError(f"{mark.id} refuses: {verdict.reason} {verdict.detail}")
            if mark.holds("root") != plane.roots[-1]:
                raise _FellError(f"{mark.id} does not take the new root")
            mark.remember()
        return f"{len(marks)} of {len(marks)} kinds of devices"

    def _deaf(self, marks: list[Mark], plane: Plane) -> str:
        for mark in marks:
            self._order_newest(mark, plane)
            verdict = mark.asks(plane)
            if verdict.what != "refused":
                raise _FellError(f"{mark.id} still listens: {verdict.what}")
        return f"{len(marks)} of {len(marks)} kinds of devices refuse"

    def _order_newest(self, mark: Mark, plane: Plane) -> None:
        """Order the newest release of its product, whatever it is for: the device decides."""
        plane.device = (mark.id, mark.key_sha256)
        live = signed_targets(self._estate.newest(mark.kind.product)).values()
        newest = max(live, key=lambda one: one.release.release_counter, default=None)
        if newest is None:
            plane.order("none")
        else:
            plane.order("install", assigned(newest))


class _FellError(TidegateError):
    """A rehearsal came out wrong."""

    def __init__(self, detail: str) -> None:
        super().__init__("agent.internal", detail)
