"""The theft of the server, rehearsed: what a thief with every online key would get from each kind of device in this fleet.

For each attempt there is an answer of the real worker, and beside it what the offline keys allow, told by other means than the worker's own code: by plain
comparison of numbers and names. An order that is obeyed and not allowed is a breach, whoever is right.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tidegate.core.accept import PRODUCTION
from tidegate.core.authority import Mandate, ProductFloor
from tidegate.core.errors import TidegateError
from tidegate.core.grant import GRANT_TYPE, Cohort, GrantBody, Leaving, Resume, Return
from tidegate.core.keys import Signer, sign_document
from tidegate.core.mandate import allowed
from tidegate.core.metadata import (
    RoleKeys,
    SignedTarget,
    keys_of,
    make_product,
    make_root,
    make_targets,
    parse_targets,
    product_extra,
    product_role,
    products_of,
    root_extra,
    sign,
    signed_targets,
)
from tidegate.sim.drill.estate import Estate, Kind, ScratchKeys
from tidegate.sim.drill.mark import Mark, Verdict
from tidegate.sim.drill.plane import DAY_S, OnlineSigners, Plane, assigned, documents_of

#: Kinds of devices that are attacked one by one; in a larger fleet the rarest are left out, and counted.
KINDS_MAX: Final = 100
_FORGED: Final = "f0" * 32


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One row: what the thief tried, how often, and what came of it. An order to a device counts once for each release that it could name.

    Attributes:
        goal: what he wants.
        tried: orders, each to one device.
        obeyed: of these, how many were followed.
        allowed: of those followed, how many had leave by offline keys.
        reasons: why the others were not, with their numbers.
    """

    goal: str
    tried: int
    obeyed: int
    allowed: int
    reasons: dict[str, int]

    @property
    def breach(self) -> int:
        """Return how many orders were followed that no offline key allowed."""
        return self.obeyed - self.allowed


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What skipping the staging brings: a live release that devices would take at once.

    Attributes:
        at_once: devices that take it now.
        held: devices that its mandate holds back now.
        all_by: when its mandate opens for the last of them, unix seconds; 0 = it holds nobody back.
        recalled: the server recalled it. That is no more than the server's word, and the product role still signs it.
    """

    release: str
    channel: str
    at_once: int
    held: int
    all_by: int
    recalled: bool = False


@dataclass
class Row:
    """An attempt as it is counted."""

    tried: int = 0
    obeyed: int = 0
    allowed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def count(self, verdict: Verdict, devices: int, *, leave: bool) -> None:
        """Count one answer, for all devices of a kind."""
        self.tried += devices
        if verdict.what == "obeyed":
            self.obeyed += devices
            self.allowed += devices if leave else 0
        else:
            word = verdict.reason or verdict.what
            self.reasons[word] = self.reasons.get(word, 0) + devices


class Theft:
    """One thief, one fleet. `run` fills `rows` and `reached`."""

    def __init__(self, estate: Estate, keys: OnlineSigners, seed: int) -> None:
        self.estate = estate
        self.keys = keys
        self._seed = seed
        self._own = ScratchKeys(estate.keys.randomness)
        self._rows: dict[str, Row] = {}
        self._reach: dict[tuple[str, str], list[int]] = {}
        self._devices: set[str] = set()
        self.skipped = 0
        self.broken: dict[str, str] = {}
        self.marks: list[Mark] = []

    # --- the result ---

    def attempts(self) -> tuple[Attempt, ...]:
        """Return what was tried."""
        return tuple(
            Attempt(
                goal=goal, tried=row.tried, obeyed=row.obeyed, allowed=row.allowed,
                reasons=dict(sorted(row.reasons.items())),
            )
            for goal, row in self._rows.items()
        )  # fmt: skip

    def reach(self) -> tuple[Reach, ...]:
        """Return what skipping the staging brings."""
        return tuple(
            Reach(
                release=name,
                channel=channel,
                at_once=once,
                held=held,
                all_by=all_by,
                recalled=name in self.estate.recalled,
            )
            for (name, channel), (once, held, all_by) in sorted(self._reach.items())
        )

    @property
    def reached(self) -> int:
        """Return how many devices could be made to install something at once."""
        return len(self._devices)

    # --- the attack ---

    def plane(self) -> Plane:
        """Return the stolen server, as it was when it was taken."""
        estate = self.estate
        newest = {name: bodies[-1] for name, bodies in estate.products.items()}
        documents = documents_of(estate.targets, newest)
        return Plane(self.keys, [estate.root], documents, estate.now // 60, estate.now)

    def meet(self) -> Iterator[Mark]:
        """Yield a device of every kind, the most frequent first, each as the honest server left it."""
        kinds = sorted(self.estate.fleet.items(), key=lambda one: -len(one[1]))
        self.skipped = sum(len(ids) for _, ids in kinds[KINDS_MAX:])
        for number, (kind, ids) in enumerate(kinds[:KINDS_MAX]):
            try:
                yield self._mark(kind, ids[0], number)
            except TidegateError as error:
                self.broken[f"{kind.product} on {kind.model}-r{kind.rev}"] = str(error)

    def run(self) -> None:
        """Try everything on a device of every kind."""
        for mark in self.meet():
            self.marks.append(mark)
            ids = self.estate.fleet[mark.kind]
            self._live_releases(mark, ids)
            for goal, prepare, role in self._forgeries(mark.kind):
                self._try(goal, mark, len(ids), prepare, forged=role)

    def _mark(self, kind: Kind, device_id: str, number: int) -> Mark:
        return Mark(
            device_id,
            kind,
            anchor=self.estate.root,
            known=self.estate.known(kind.product),
            honest=self.plane(),
            now=self.estate.now,
            seed=self._seed + number,
        )

    def _try(
        self,
        goal: str,
        mark: Mark,
        devices: int,
        prepare: Callable[[Plane], None],
        *,
        leave: bool = False,
        forged: str = "",
    ) -> Verdict:
        """Let the mark ask a server that was prepared like this. A forged role that it keeps is a breach also where the order under it fails."""
        mark.forget()
        plane = self.plane()
        plane.version += 10
        plane.device = (mark.id, mark.key_sha256)
        plane.publish()
        prepare(plane)
        verdict = mark.asks(plane)
        if forged and mark.holds(forged) == plane.forgery:
            verdict = Verdict("obeyed", detail=f"{forged} was believed")
        self._rows.setdefault(goal, Row()).count(verdict, devices, leave=leave)
        return verdict

    def _live_releases(self, mark: Mark, ids: tuple[str, ...]) -> None:
        """Order every image that is published, as an update and as a way back."""
        kind = mark.kind
        role = self.estate.newest(kind.product)
        extra = product_extra(role)
        for target in signed_targets(role).values():
            release = target.release
            if release.install.sha256 == kind.running.sha256:
                continue
            mandate = extra.mandate(release.release_counter)
            free = self._free(mandate, ids)
            reason = _not_for(kind, target)
            goal = _GOALS.get(reason, "skip the staging: a newer release for such devices")

            def install(plane: Plane, target: SignedTarget = target) -> None:
                plane.order("install", assigned(target))

            verdict = (
                self._try(goal, mark, len(ids), install, leave=not reason)
                if reason or mandate is None
                else self._staged(mark, ids, free, install)
            )
            if not reason and verdict.what in {"obeyed", "deferred"}:
                self._note(release.name, kind.channel, free, ids, mandate)
            self._way_back(mark, target, len(ids))

    def _free(self, mandate: Mandate | None, ids: tuple[str, ...]) -> list[str]:
        """Return the devices whose turn has come."""
        if mandate is None:
            return list(ids)
        return [one for one in ids if allowed(mandate, one, self.estate.now) is None]

    def _staged(
        self,
        mark: Mark,
        ids: tuple[str, ...],
        free: list[str],
        install: Callable[[Plane], None],
    ) -> Verdict:
        """Order a release that has a mandate. It knows devices by their ids, so one is asked for those whose turn has come, and one for those who wait."""
        turn = set(free)
        waiting = [one for one in ids if one not in turn]
        verdict = Verdict("idle")
        goal = "skip the staging: a newer release with a mandate"
        for group, leave in ((free, True), (waiting, False)):
            if group:
                found = self._mark(mark.kind, group[0], len(self.marks))
                verdict = self._try(goal, found, len(group), install, leave=leave)
        return verdict

    def _note(
        self,
        name: str,
        channel: str,
        free: list[str],
        ids: tuple[str, ...],
        mandate: Mandate | None,
    ) -> None:
        found = self._reach.setdefault((name, channel), [0, 0, 0])
        found[0] += len(free)
        found[1] += len(ids) - len(free)
        if mandate is not None:
            found[2] = max(found[2], mandate.steps[-1].not_before)
        self._devices.update(free)

    def _way_back(self, mark: Mark, target: SignedTarget, devices: int) -> None:
        """Order an older image back: without a grant, and with one that no incident key signed."""
        kind, release = mark.kind, target.release
        if release.release_counter >= kind.running.counter:
            return
        running = self.estate.known(kind.product).get(kind.running.sha256 or "")
        named = {} if running is None else {o.counter: o.expires for o in running.fallback_to}
        leave = (
            named.get(release.release_counter, 0) > self.estate.now
            and kind.other.state == "confirmed"
            and kind.other.sha256 == release.install.sha256
            and release.security_version >= kind.floor
        )

        def back(plane: Plane) -> None:
            plane.order("fallback", assigned(target))

        def granted(plane: Plane) -> None:
            plane.order("fallback", assigned(target), grant=self._grant(kind, target))

        self._try("order a way back", mark, devices, back, leave=leave)
        if kind.running.sha256:
            self._try("order a way back, by a grant of his own", mark, devices, granted)

    def _grant(self, kind: Kind, target: SignedTarget) -> Any:
        release, now = target.release, self.estate.now
        epoch = root_extra(self.estate.root_document).authorities.epoch
        body = GrantBody(
            product=kind.product, epoch=epoch, serial=1, incident="drill", reason="drill",
            hardware=release.hardware, cohort=Cohort(all=True),
            leaving=(
                Leaving(release_counter=kind.running.counter, sha256=kind.running.sha256 or ""),
            ),
            to=(
                Return(
                    path=target.path, length=target.length, sha256=target.sha256,
                    release_counter=release.release_counter,
                    security_version=release.security_version,
                ),
            ),
            resume=Resume(min_counter=kind.running.counter + 1),
            issued=now, expires=now + DAY_S,
        )  # fmt: skip
        return sign_document(body, GRANT_TYPE, self.keys.director)

    # --- forgeries ---

    def _forgeries(self, kind: Kind) -> Iterator[tuple[str, Callable[[Plane], None], str]]:
        """Yield what he wants, how he prepares it, and the role whose document he forges for it."""
        estate = self.estate
        role = estate.newest(kind.product)
        live = sorted(signed_targets(role).values(), key=lambda one: one.release.release_counter)
        if not live:
            return
        newest, key = live[-1], f"product_{kind.product}"
        fresh = _other(
            newest, counter=newest.release.release_counter + 1, channel=kind.channel, kind=kind
        )

        def named(plane: Plane) -> None:
            plane.order("install", assigned(fresh))

        def swapped(plane: Plane) -> None:
            plane.order("install", assigned(newest, sha256=_FORGED))

        def forged_role(plane: Plane) -> None:
            body = make_product(
                version=role.version + 1, expires_at=role.expires_at, targets=[*live, fresh],
                extra=product_extra(role),
            )  # fmt: skip
            plane.forge(**{key: sign(body, self._thief, self.keys.director)})
            plane.order("install", assigned(fresh))

        def forged_targets(plane: Plane) -> None:
            mine = RoleKeys((self._thief.public,), 1)
            document = estate.targets_document
            rings = {n: keys_of(document, product_role(n)) for n in products_of(document)}
            body = make_targets(
                version=document.version + 1, expires_at=document.expires_at,
                products={**rings, kind.product: mine},
            )  # fmt: skip
            product = make_product(
                version=role.version + 1, expires_at=role.expires_at, targets=[*live, fresh]
            )
            plane.publish(**{key: sign(product, self._thief)})
            plane.forge(targets=sign(body, self._thief, self.keys.director))
            plane.order("install", assigned(fresh))

        def forged_root(plane: Plane) -> None:
            plane.forge(root=self._root())

        def lowered(plane: Plane) -> None:
            floors = (ProductFloor(model=kind.model, security_floor=0),)
            body = make_product(
                version=role.version + 1, expires_at=role.expires_at, targets=live,
                extra=msgspec.structs.replace(product_extra(role), product_floor=floors),
            )  # fmt: skip
            plane.forge(**{key: sign(body, self._thief, self.keys.director)})
            plane.order("install", assigned(live[0]))

        def elsewhere(plane: Plane) -> None:
            plane.order("install", assigned(newest), device_id=f"{plane.device[0][:60]}-2")

        role_name = product_role(kind.product)
        yield "run his own code: an image that nobody signed", named, ""
        yield "run his own code: other bytes under a signed name", swapped, ""
        yield "run his own code: a product role of his own", forged_role, role_name
        yield "run his own code: targets of his own", forged_targets, "targets"
        yield "take over for good: a root of his own", forged_root, "root"
        yield "move the security floor", lowered, role_name
        yield "have one device follow another's order", elsewhere, ""
        yield from self._replays(kind, key)

    def _replays(self, kind: Kind, key: str) -> Iterator[tuple[str, Callable[[Plane], None], str]]:
        """Show older versions of the product role again, under a snapshot of his own."""
        *older, present = self.estate.products[kind.product]
        role = product_role(kind.product)
        now_named = signed_targets(parse_targets(present, role))
        for body in older[-3:]:
            document = parse_targets(body, role)
            named = signed_targets(document)
            gone = [one for path, one in named.items() if path not in now_named]
            chosen = max(gone or named.values(), key=lambda one: one.release.release_counter)

            def replay(plane: Plane, body: bytes = body, chosen: SignedTarget = chosen) -> None:
                plane.forge(**{key: body})
                plane.order("install", assigned(chosen))

            yield "show an older product role again", replay, role

    @property
    def _thief(self) -> Signer:
        return self._own.made.setdefault("thief", self._own.new())

    def _root(self) -> bytes:
        """Return a root in which everything is the thief's, signed by all that he has."""
        before = self.estate.root_document
        mine = RoleKeys((self._thief.public,), 1)
        roles = dict.fromkeys(("root", "targets", "snapshot", "timestamp"), mine)
        body = make_root(
            version=before.version + 1, expires_at=before.expires_at, roles=roles,
            extra=root_extra(before),
        )  # fmt: skip
        return sign(body, self._thief, self.keys.snapshot, self.keys.timestamp, self.keys.director)


_GOALS: Final = {
    "older": "downgrade: an older release as an update",
    "channel": "put a build of another channel on a device",
    "hardware": "put a build for other hardware on a device",
    "floor": "go below the security floor",
}


def _not_for(kind: Kind, target: SignedTarget) -> str:
    """Say why offline keys give no leave for an image on such devices, by plain comparison; empty where they do."""
    release = target.release
    fits = any(
        one.model == kind.model
        and one.rev_min <= kind.rev <= one.rev_max
        and kind.rev not in one.exclude_revs
        for one in release.hardware
    )
    if not fits:
        return "hardware"
    if kind.channel not in release.channels:
        return "channel"
    if release.release_counter <= kind.running.counter:
        return "older"
    return "floor" if release.security_version < kind.floor else ""


def _other(target: SignedTarget, *, counter: int, channel: str, kind: Kind) -> SignedTarget:
    """Describe an image of the thief's own, so that nothing about it but its signature is wrong."""
    release = msgspec.structs.replace(
        target.release,
        version=f"{counter}.0.0-drill",
        release_counter=counter,
        security_version=max(target.release.security_version, kind.floor),
        channels=(channel or PRODUCTION,),
        payloads=tuple(
            msgspec.structs.replace(one, sha256=_FORGED) if one.kind == "full" else one
            for one in target.release.payloads
        ),
    )
    path = f"{release.product}/{release.version}/{release.component}"
    return SignedTarget(path, target.length, _FORGED, release)
