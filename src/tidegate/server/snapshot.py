"""The plan in memory: which rollouts are open to whom, and dense arrays about every device, so that a poll touches no database.

A hint may err towards "come and ask": the assignment is decided in a transaction (`server.updates`), and an answer that had nothing silences the hint until
the plan or the device changes. It is never wrong towards "go": staleness may delay a start, never a stop.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import msgspec

from tidegate.core.authority import Mandate
from tidegate.core.hardware import Hardware
from tidegate.core.mandate import Bar, allowed, next_step_at
from tidegate.core.protocol import DeliveryPolicy
from tidegate.core.release import ReleaseTarget
from tidegate.rollout import cohort, keeping
from tidegate.rollout.model import Approval, Policy, RingProgress, Rollout, precedence
from tidegate.server import fixed, outcomes
from tidegate.server.store import Connection, device_queries, hot, rollout_rows
from tidegate.server.store.rollout_rows import LiveRow
from tidegate.server.store.scope import tenant_of

STATES: Final = ("pending", "accepted", "rejected", "revoked", "quarantined", "decommissioned")
ACCEPTED: Final = STATES.index("accepted")
QUARANTINED: Final = STATES.index("quarantined")
#: The key under which an operator's tags stand among a device's attributes.
TAGS: Final = "tags"
#: What all devices of one kind and running release have in common, for the query language.
OF_KIND: Final = frozenset(
    {
        "product", "model", "revision", "variant", "channel", "region", "site", "connectivity",
        "agent", "security_floor", "counter", "release", "group",
    }
)  # fmt: skip
#: What the arrays do not hold, or what is another thing once a device asks: a device that such a query could mean is told to come and ask.
_ASKED: Final = frozenset({"serial", "seen"})

# Made here, by one thread: msgspec builds what it knows of a type when it first meets it, and two threads that do so at once have crashed the process.
_POLICY: Final = msgspec.json.Decoder(Policy)
_RINGS: Final = msgspec.json.Decoder(tuple[RingProgress, ...])
_ISOLATED: Final = msgspec.json.Decoder(tuple[str, ...])
_APPROVALS: Final = msgspec.json.Decoder(tuple[Approval, ...])
_DELIVERY: Final = msgspec.json.Decoder(DeliveryPolicy)
_MANDATE: Final = msgspec.json.Decoder(Mandate)
_TARGET: Final = msgspec.json.Decoder(ReleaseTarget)


@dataclass(frozen=True, slots=True)
class Live:
    """A rollout that devices may have to do with."""

    row: LiveRow
    rollout: Rollout
    delivery: DeliveryPolicy
    channels: frozenset[str]
    #: What the release's signers allow; a way back is not held up by it.
    mandate: Mandate | None = None
    #: Of a snapshot rollout: whom it means; None = its queries say.
    fixed: cohort.Fixed | None = None

    def bar(self, device_id: str, now: int) -> Bar | None:
        """Return why a device would have to wait for this release by its signers' word; None = it may have it."""
        return allowed(self.mandate, device_id, now)

    @property
    def admits(self) -> bool:
        """Say whether newcomers are taken now."""
        if self.row.release_state != "live" and self.row.kind == "install":
            return False
        if self.row.state == "completed":
            late = self.rollout.policy.dynamic or self.fixed is not None
            return late and not self.row.fallen_back
        return self.row.state == "active"

    @property
    def proceeds(self) -> bool:
        """Say whether devices that were taken may go on."""
        if self.row.release_state != "live" and self.row.kind == "install":
            return False
        ended_well = self.row.state == "completed" and not self.row.fallen_back
        return self.row.state == "active" or ended_well


def read_live(conn: Connection, row: LiveRow) -> Live:
    """Make a `Live` of its row; the audience of a snapshot rollout is read once a process."""
    policy = _POLICY.decode(row.policy)
    rings = _RINGS.decode(row.rings)
    isolated = _ISOLATED.decode(row.isolated)
    approvals = _APPROVALS.decode(row.approvals)
    rollout = Rollout(
        name=row.name,
        release_sha256=row.release_sha256,
        state=row.state,  # type: ignore[arg-type]  # the column holds states only
        generation=row.generation,
        policy=policy,
        rings=rings,
        isolated=isolated,
        approvals=approvals,
        started_at=row.started_at or 0,
        fixed=row.fixed or "",
    )
    delivery = _DELIVERY.decode(row.delivery)
    signed = row.kind == "install" and row.mandate is not None
    mandate = _MANDATE.decode(row.mandate or "") if signed else None
    meant = fixed.load(conn, row.fixed) if row.fixed else None
    return Live(row, rollout, delivery, frozenset(json.loads(row.channels)), mandate, meant)


def load_live(conn: Connection, product: str | None = None) -> list[Live]:
    """Return the live rollouts in the order in which a device is served: ways back first, then by `rollout.model.precedence`."""
    found = [read_live(conn, row) for row in rollout_rows.live(conn, product)]
    return sorted(found, key=_place, reverse=True)


def _place(live: Live) -> tuple[bool, tuple[int, int, int]]:
    turn = precedence(live.rollout.policy, live.row.counter, live.row.id)
    return live.row.kind == "fallback", turn


@dataclass(frozen=True, slots=True)
class Facts:
    """What deciding about one device needs; from its row, or from the arrays."""

    id: str
    product: str
    hardware: Hardware
    channel: str
    running_counter: int
    attrs: Mapping[str, Any]
    row: int

    @property
    def variant(self) -> str:
        """Return the hardware variant."""
        return self.hardware.variant


def ring_index(live: Live, row: int, attrs: cohort.Attributes) -> int | None:
    """Return the index of the ring that a device belongs to: by the fixed audience where there is one, else by the rings' queries; None = to none."""
    if live.fixed is not None:
        return live.fixed.ring_of(row)
    return cohort.ring_of(live.rollout.policy, attrs)


def ring_for(live: Live, facts: Facts) -> tuple[str | None, str]:
    """Return the ring that admits a device now, or None and why not, in a few words."""
    rollout = live.rollout
    if rollout.policy.prefetch:
        return _fetching_ring(live, facts)
    if keeping.kept_out(rollout.isolated, facts.variant, facts.attrs):
        return None, "isolated"
    index = ring_index(live, facts.row, facts.attrs)
    if index is None:
        return None, "no_ring"
    share = cohort.share_of(rollout, index)
    if not cohort.step_admits(share, rollout.release_sha256, facts.id):
        return None, "not_yet"
    return rollout.policy.rings[index].name, ""


def _fetching_ring(live: Live, facts: Facts) -> tuple[str | None, str]:
    """Return the ring of a device that may fetch ahead: rings and steps say who activates, not who downloads."""
    if keeping.kept_out(live.rollout.isolated, facts.variant, facts.attrs):
        return None, "isolated"
    index = ring_index(live, facts.row, facts.attrs)
    return (None, "no_ring") if index is None else (live.rollout.policy.rings[index].name, "")


def activation_bar(live: Live, facts: Facts) -> str:
    """Return why a device that fetched ahead may not activate now, or an empty text: it may, or its rollout does not fetch ahead."""
    rollout = live.rollout
    if not rollout.policy.prefetch:
        return ""
    if live.row.released_at is None:
        return f"activation is held: tidegate rollout activate {rollout.name}"
    index = ring_index(live, facts.row, facts.attrs)
    if index is None:
        return "it is in no ring any more"
    if cohort.step_admits(cohort.share_of(rollout, index), rollout.release_sha256, facts.id):
        return ""
    return f"ring {rollout.policy.rings[index].name} is not open for it yet"


def may_concern(live: Live, facts: Facts, now: int) -> bool:
    """Say whether a rollout may have something for a device at `now` (unix seconds): the hint of a poll."""
    if not live.admits or facts.channel not in live.channels:
        return False
    if live.row.kind == "fallback":
        if facts.running_counter != live.row.parent_counter:
            return False
    elif facts.running_counter >= live.row.counter:
        return False
    if live.bar(facts.id, now) is not None:
        return False
    if live.fixed is None and any(
        cohort.parse(ring.audience).names & _ASKED for ring in live.rollout.policy.rings
    ):
        return facts.variant not in live.rollout.isolated
    return ring_for(live, facts)[0] is not None


def attributes(  # noqa: PLR0913 - one argument a column
    *,
    id: str,  # noqa: A002 - the column
    product: str,
    hardware: Hardware,
    channel: str,
    own: Mapping[str, Any],
    groups: Iterable[str],
    site: str = "",
    region: str = "",
    connectivity: str = "",
    agent: str = "",
    release: str = "",
    counter: int = 0,
    security_floor: int = 0,
    seen_s: int | None = None,
) -> dict[str, Any]:
    """Return a device's facts for the query language (`rollout.query`)."""
    return cohort.attributes_of(
        id=id, product=product, model=hardware.model, revision=hardware.rev,
        variant=hardware.variant, channel=channel, site=site, region=region,
        connectivity=connectivity, agent=agent, serial=hardware.serial,
        release=f"{product}-{release}" if release else "", counter=counter,
        security_floor=security_floor, seen=seen_s, groups=frozenset(groups),
        tags=frozenset(own.get(TAGS, ())), own={k: v for k, v in own.items() if k != TAGS},
    )  # fmt: skip


@dataclass(slots=True)
class Plan:
    """What is open to whom, compiled; replaced whole when something changes."""

    version: int = 1
    gate_epoch: int = 0
    #: When a signed schedule lets in more devices; 0 = it was not looked at yet.
    opens_at: float = 0
    products: dict[str, tuple[Live, ...]] = field(default_factory=dict)
    group_queries: tuple[tuple[str, cohort.Query], ...] = ()
    members: dict[int, frozenset[str]] = field(default_factory=dict)


class Fleet:
    """Arrays by device row. Filled at start, kept fresh by the writer's thread; read by polls."""

    def __init__(self) -> None:
        """Start empty; `load` fills it."""
        self.state = bytearray(1)
        self.open = bytearray(1)
        self.held = bytearray(1)
        self.key_gen = array("H", [0])
        self.session_at = array("q", [0])
        self.seen = array("I", [0])
        self.counter = array("q", [0])
        self.quiet = array("Q", [0])
        self.ids: list[str] = [""]
        self.kinds: list[tuple[Any, ...]] = [()]
        self.kind_of = array("I", [0])
        self._kind_numbers: dict[tuple[Any, ...], int] = {}
        #: Accepted devices by (kind, running counter): an audience of a million is counted by asking about each kind once.
        self.alike: Counter[tuple[int, int]] = Counter()
        self._version_of: dict[tuple[str, int], str] = {}
        self._own: dict[int, Mapping[str, Any]] = {0: {}}
        self.dirty: set[int] = set()
        self.plan = Plan()
        self._versions = count(self.plan.version + 1)

    def __len__(self) -> int:
        return len(self.ids) - 1

    def load(self, conn: Connection) -> None:
        """Fill the arrays and compile the plan."""
        for columns in device_queries.everything(conn):
            self._put(columns)
        self.open[:] = bytes(len(self.open))
        for (row,) in device_queries.open_updates(conn):
            if row < len(self.open):
                self.open[row] = 1
        self.compile(conn)

    def refresh(self, conn: Connection, row: int) -> None:
        """Take in one device anew."""
        for columns in device_queries.everything(conn, row):
            self._put(columns)
        if row < len(self.ids):
            self.open[row] = any(one.state in outcomes.OPEN for one in hot.updates_of(conn, row))

    def compile(self, conn: Connection) -> None:
        """Read the rollouts, groups and gate epoch, and replace the plan by a newer one."""
        products: dict[str, list[Live]] = {}
        for live in load_live(conn):
            products.setdefault(live.row.product, []).append(live)
        members: dict[int, set[str]] = {}
        for row, name in device_queries.static_members(conn):
            members.setdefault(row, set()).add(name)
        queries = device_queries.query_groups(conn)
        self.plan = Plan(
            version=next(self._versions),
            gate_epoch=hot.gate_epoch(conn, tenant_of(conn)),
            products={name: tuple(lives) for name, lives in products.items()},
            group_queries=tuple((name, cohort.parse(text)) for name, text in queries),
            members={row: frozenset(names) for row, names in members.items()},
        )

    def has_work(self, row: int, now: int) -> bool:
        """Say whether a device should come and ask at `now` (unix seconds). Cheap when it was asked before under the same plan."""
        plan = self.plan
        if now >= plan.opens_at:
            self._open_steps(plan, now)
        if self.quiet[row] == plan.version or self.state[row] != ACCEPTED:
            return False
        if self.open[row]:
            return True
        lives = plan.products.get(self.kinds[self.kind_of[row]][0], ())
        if not self.held[row] and any(live.admits for live in lives):
            facts = self.facts(row)
            if any(may_concern(live, facts, now) for live in lives):
                return True
        self.quiet[row] = plan.version
        return False

    def _open_steps(self, plan: Plan, now: int) -> None:
        """Count the plan as a new one when a signed schedule opens a step: devices that had nothing may have something now."""
        lives = (live for lives in plan.products.values() for live in lives)
        steps = (next_step_at(live.mandate, now) for live in lives)
        opens = min((one for one in steps if one is not None), default=float("inf"))
        if plan.opens_at:
            plan.version = next(self._versions)
        plan.opens_at = opens

    def silence(self, row: int, version: int) -> None:
        """Note that under this version of the plan there is nothing for a device."""
        self.quiet[row] = version

    def facts(self, row: int, now: int = 0, serial: str = "") -> Facts:
        """Return what is known of a device without asking the database.

        Args:
            row: of the device.
            now: unix seconds, for queries about when it was last heard; 0 = such a query finds nobody.
            serial: of its hardware, which is not kept here.
        """
        kind = self.kinds[self.kind_of[row]]
        product, model, rev, channel = kind[:4]
        hardware = Hardware(model, rev, serial)
        seen = self.seen[row]
        attrs = self.attributes_of_kind(
            kind, id=self.ids[row], own=self._own.get(row, {}), counter=self.counter[row],
            groups=self.plan.members.get(row, frozenset()), hardware=hardware,
            seen_s=max(0, now - seen) if now and seen else None,
        )  # fmt: skip
        attrs = with_query_groups(attrs, self.plan.group_queries)
        return Facts(self.ids[row], product, hardware, channel, self.counter[row], attrs, row)

    def likeness(self, row: int, *, own: bool) -> tuple[Any, ...] | None:
        """Return what devices share that are alike for a query over `OF_KIND`; None = this one has attributes of its own, and they count (`own`)."""
        if own and row in self._own:
            return None
        return self.kind_of[row], self.counter[row], self.plan.members.get(row)

    def product_of(self, row: int) -> str:
        """Return the product that a device is of."""
        return str(self.kinds[self.kind_of[row]][0])

    def names_asked(self, rollout: Rollout) -> frozenset[str]:
        """Return the names that say who is in which ring of a rollout, those of the groups included."""
        names = frozenset().union(
            *(cohort.parse(ring.audience).names for ring in rollout.policy.rings)
        )
        if "group" in names:
            names = names.union(*(query.names for _, query in self.plan.group_queries))
        return names

    def attributes_of_kind(
        self, kind: tuple[Any, ...], counter: int, **more: Any
    ) -> dict[str, Any]:
        """Return what a query sees of a device of a kind; `more` is what is its own."""
        (product, model, rev, channel, region, site, connectivity, agent, floor) = kind
        given = {
            "id": "", "own": {}, "groups": frozenset(), "hardware": Hardware(model, rev), **more,
        }  # fmt: skip
        return attributes(
            product=product, channel=channel, site=site,
            region=region, connectivity=connectivity, agent=agent, security_floor=floor,
            counter=counter, release=self._version_of.get((product, counter), ""), **given,
        )  # fmt: skip

    def _put(self, columns: tuple[Any, ...]) -> None:
        (row, device_id, state, key_gen, product, model, rev, _, channel, region, site, connectivity,
         agent, _, own, counter, version, floor, held, seen, session_at) = columns  # fmt: skip
        self._grow(row)
        if self.state[row] == ACCEPTED:
            self.alike[(self.kind_of[row], self.counter[row])] -= 1
        self.state[row] = STATES.index(state)
        self.key_gen[row] = key_gen & 0xFFFF
        self.session_at[row] = session_at
        self.counter[row] = counter
        self.held[row] = 1 if held else 0
        self.seen[row] = max(self.seen[row], min(seen, 0xFFFFFFFF))
        self.ids[row] = device_id
        if version:
            self._version_of[(product, counter)] = version
        self.quiet[row] = 0
        kind = (product, model, rev, channel, region, site, connectivity, agent, floor)
        number = self._kind_numbers.get(kind)
        if number is None:
            number = self._kind_numbers[kind] = len(self.kinds)
            self.kinds.append(kind)
        self.kind_of[row] = number
        if self.state[row] == ACCEPTED:
            self.alike[(number, counter)] += 1
        plain = json.loads(own) if own and own != "{}" else None
        if plain:
            self._own[row] = plain
        else:
            self._own.pop(row, None)

    def _grow(self, row: int) -> None:
        missing = row + 1 - len(self.ids)
        if missing <= 0:
            return
        for octets in (self.state, self.open, self.held):
            octets.extend(bytes(missing))
        for numbers in (
            self.key_gen,
            self.session_at,
            self.seen,
            self.counter,
            self.quiet,
            self.kind_of,
        ):
            numbers.extend([0] * missing)
        self.ids.extend([""] * missing)


def with_query_groups(
    attrs: dict[str, Any], queries: Iterable[tuple[str, cohort.Query]]
) -> dict[str, Any]:
    """Add the groups that are defined by a query over attributes and static groups."""
    found = [name for name, query in queries if query.matches(attrs)]
    return {**attrs, "group": attrs["group"] | frozenset(found)} if found else attrs


def facts_of(conn: Connection, device: Any, now: int) -> Facts:
    """Return what deciding about a device needs, from its row."""
    hardware = Hardware(device.model, device.rev, device.serial)
    attrs = attributes(
        id=device.id, product=device.product, hardware=hardware, channel=device.channel,
        own=device.attributes, groups=device_queries.static_groups(conn, device.row),
        site=device.site, region=device.region, connectivity=device.connectivity,
        agent=device.agent, release=device.running_version, counter=device.running_counter,
        security_floor=device.security_floor,
        seen_s=max(0, now - device.last_seen) if device.last_seen else None,
    )  # fmt: skip
    queries = device_queries.query_groups(conn)
    attrs = with_query_groups(attrs, [(name, cohort.parse(q)) for name, q in queries])
    return Facts(
        device.id, device.product, hardware, device.channel, device.running_counter, attrs, device.row
    )  # fmt: skip


def targets_of(conn: Connection, release_id: int) -> list[tuple[str, int, str, ReleaseTarget]]:
    """Return (path, length, sha256, target) of a release's artifacts."""
    return [
        (path, length, digest, _TARGET.decode(text))
        for path, length, digest, text in rollout_rows.artifacts(conn, release_id)
    ]
