"""A fleet without protocol: rows of devices that are moved as the server would move them, so that hundreds of them live through weeks in seconds.

Store, planner, gate and permits are the real ones; only the signed messages between device and server are left out.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert
from tests.unit.server.rig import Rig

from tidegate.core.protocol import PermitBody, PermitRequest
from tidegate.rollout import cohort
from tidegate.server import outcomes, permits, snapshot, telemetry
from tidegate.server.auth import Actor
from tidegate.server.gatekeeper.replay import Replayed, replay
from tidegate.server.operations import Operations
from tidegate.server.store import (
    Connection,
    admin_rollouts,
    changes,
    device_queries,
    gate_rows,
    hot,
    tables,
)
from tidegate.server.store.hot import UpdateRow
from tidegate.server.tick import tick

BOSS = Actor(name="boss", role="admin")
PRODUCT = "gw1"
NAME = "gw1-1.1.0"
TICK_S = 900


@dataclass
class LightFleet:
    rig: Rig
    count: int
    #: What differs from device to device, by its number.
    says: Callable[[int], dict[str, Any]] = lambda _: {}
    release: int = 1
    #: A way back that is under way, by name, and the counter that its devices leave.
    back: str = ""
    leaves: int = 0
    #: Rows of devices that are switched off.
    away: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rig.publish_trust()
        self.rig.release(1)
        self.operations = Operations(self.rig.app.services)
        self.add(self.count)

    @property
    def now(self) -> int:
        return int(self.rig.now)

    @property
    def name(self) -> str:
        return self.back or f"{PRODUCT}-1.{self.release}.0"

    @property
    def row(self) -> dict[str, Any]:
        found = self.rig.read(lambda conn: admin_rollouts.rollout(conn, self.name))
        assert found is not None
        return dict(found)

    @property
    def id(self) -> int:
        return int(self.row["id"])

    @property
    def rows(self) -> range:
        return range(1, len(self.rig.app.services.fleet) + 1)

    def add(self, count: int) -> None:
        """Have more devices join."""
        first = len(self.rig.app.services.fleet)
        made = []
        for number in range(first, first + count):
            own = self.says(number)
            rev = int(own.get("rev", 1))
            key = hashlib.sha256(str(number).encode()).hexdigest()
            made.append(
                {
                    "id": f"d{number}", "public_key": "", "keytype": "ed25519", "key_sha256": key,
                    "state": "accepted", "product": PRODUCT, "model": PRODUCT, "rev": rev,
                    "variant": f"{PRODUCT}-r{rev}", "channel": "stable", "attributes": {},
                    "slots": {}, "refuses": [], "inhibitors": [], "enrolled_at": self.now,
                    "last_seen": self.now, "running_counter": 0, **own,
                }
            )  # fmt: skip

        def work(conn: Connection) -> None:
            for start in range(0, len(made), 500):
                conn.execute(insert(tables.device), made[start : start + 500])
            for one in made:
                hot.add_firmware(conn, "default", PRODUCT, one["variant"], 0, "", 1)
            for number in range(count):
                changes.notify(conn, "device", str(first + number + 1))

        self.rig.write(work)

    def start(self, policy: dict[str, Any]) -> None:
        self.operations.create({"release": self.name, **policy}, BOSS, "because", self.now)

    # --- what devices do ---

    def heard(self, rows: Iterable[int] | None = None) -> None:
        there = [one for one in rows or self.rows if one not in self.away]
        self.rig.write(lambda conn: hot.put_seen(conn, [(self.now, one) for one in there]))

    def ask(self, rows: Iterable[int] | None = None) -> list[int]:
        """Have devices ask for leave, those first whose turn is first; return those that got it."""

        def work(conn: Connection) -> list[int]:
            live = next(
                one for one in snapshot.load_live(conn, PRODUCT) if one.row.name == self.name
            )
            found = []
            order = sorted(
                (one for one in rows or self.rows if one not in self.away),
                key=lambda one: cohort.place(live.row.release_sha256, f"d{one - 1}"),
            )
            for row in order:
                update = self._staged(conn, live, row)
                if update is None:
                    continue
                request = PermitRequest(
                    nonce=self.rig.random.randbytes(16).hex(), update=update.id,
                    attempt=update.attempt, release_counter=self.release,
                    slot_sha256=hashlib.sha256(f"{PRODUCT} {self.release}".encode()).hexdigest(),
                )  # fmt: skip
                if isinstance(permits.permit(conn, row, request, self.now), PermitBody):
                    found.append(row)
            return found

        found: list[int] = self.rig.write(work)
        return found

    def _staged(self, conn: Connection, live: snapshot.Live, row: int) -> UpdateRow | None:
        update = hot.update_by_id(conn, f"u-{live.row.id}-{row}")
        if update is not None:
            return update if update.state == "staged" else None
        device = device_queries.by_row(conn, row)
        if not live.admits or device is None:
            return None
        ring, _ = snapshot.ring_for(live, snapshot.facts_of(conn, device, self.now))
        done = device.running_counter >= self.release
        if self.back:
            done = device.running_counter != self.leaves
        if ring is None or done:
            return None
        made = UpdateRow(
            id=f"u-{live.row.id}-{row}", tenant="default", rollout_id=live.row.id, device_row=row,
            attempt=1, state="staged", reason=None, detail="", ring=ring, variant=device.variant,
            from_counter=0, from_sha256=None, release_counter=self.release, offered_at=self.now,
            state_at=self.now, permitted_at=None, deadline_at=None, ended_at=None, bytes=0,
            resumes=0,
        )  # fmt: skip
        outcomes.book(conn, None, made, product=PRODUCT, now=self.now)
        return made

    def end(self, rows: Iterable[int], state: str = "confirmed", reason: str | None = None) -> None:
        """Have updates end."""
        rollout_id = self.id

        def work(conn: Connection) -> None:
            for row in rows:
                old = hot.update_by_id(conn, f"u-{rollout_id}-{row}")
                assert old is not None
                new = old._replace(
                    state=state, reason=reason, state_at=self.now, ended_at=self.now,
                    deadline_at=None,
                )  # fmt: skip
                outcomes.book(conn, old, new, product=PRODUCT, now=self.now)
                device = hot.device(conn, row)
                if state == "confirmed" and device is not None:
                    telemetry.move_running(
                        conn, device, self.release, "ab", f"1.{self.release}.0", self.now
                    )

        self.rig.write(work)

    # --- time ---

    def look(self, later_s: int = 0) -> None:
        self.rig.now += later_s
        assert tick(self.rig.app.services, self.now).leader

    def live(self, hours: float, outcome: Callable[[int], str] = lambda _: "confirmed") -> float:
        """Let everybody live on; return after how many hours the rollout stood still.

        Args:
            hours: at most.
            outcome: of a device that got its permit, ten minutes later; empty = it is never heard again.
        """
        lived = 0.0
        while lived < hours and self.row["state"] == "active":
            self.heard()
            out = self.ask()
            self.rig.now += 600
            for state in sorted({outcome(one) for one in out} - {""}):
                reason = None if state == "confirmed" else "boot.no_return"
                self.end([one for one in out if outcome(one) == state], state, reason)
            self.away |= {one for one in out if not outcome(one)}
            self.look(300)
            lived += 0.25
        return lived

    def confirmed(self) -> list[int]:
        """Return the devices that confirmed."""
        rollout_id = self.id
        found = self.rig.read(lambda conn: hot.updates_in(conn, rollout_id, ("confirmed",)))
        return sorted(one.device_row for one in found)

    def replayed(self) -> Replayed:
        name, rollout_id = self.name, self.id
        found: Replayed = self.rig.read(lambda conn: replay(conn, name, rollout_id))
        return found

    def rooms(self, kind: str = gate_rows.PART) -> dict[str, int]:
        rollout_id = self.id
        found = self.rig.read(lambda conn: gate_rows.rooms(conn, rollout_id, kind))
        return {one.name: one.room for one in found}
