"""A crew: a fleet of simulated devices in a process of its own, over real HTTP, in accelerated time.

Started by the demo as `python -m tidegate.sim.crew`. It reads one `CrewSpec` and then orders from standard
input, one JSON line each, and answers each with one line.
"""

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from tidegate.core.errors import TidegateError
from tidegate.core.keys import Signer
from tidegate.sim.board import Catalogue, Image
from tidegate.sim.clock import AcceleratedTimeline
from tidegate.sim.device import Factory, SimDevice
from tidegate.sim.faults import Behaviour, Cut, CutMode, Truth
from tidegate.sim.lies import Lie, lying_wire
from tidegate.sim.population import PopulationSpec, populate
from tidegate.sim.report import device_truth
from tidegate.sim.scheduler import Fleet, Scheduler
from tidegate.sim.venue import Venue

#: Orders are looked for this often, in accelerated seconds.
SLICE_S: Final = 10.0


class CrewSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a crew is made of. Paths are of this machine; of a population, a crew is every `parts`-th device from `part` on."""

    venue: Venue
    seed: int
    speed: float
    population: PopulationSpec
    anchor: str
    factory_image: str
    factory: Image
    claim: str
    slot_size: int
    poll_interval_s: int
    part: int = 0
    parts: int = 1


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A release that will come: its image, and how it really behaves, by variant (`*` = all)."""

    image: Image
    behaviours: dict[str, Behaviour] = {}


class CutOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Let a device's power fail at the `operation`-th durable operation from now."""

    device_id: str
    operation: int
    mode: CutMode


class LieOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Put a lying proxy before a device; `key` is the director's stolen private key (hex) where the lie needs one."""

    device_id: str
    lie: Lie
    target: dict[str, Any] | None = None
    key: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One order. Exactly one field is set."""

    truth: bool = False
    stop: bool = False
    know: tuple[Known, ...] = ()
    cuts: tuple[CutOrder, ...] = ()
    lies: tuple[LieOrder, ...] = ()
    honest: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


class Crew:
    """The process' fleet and what can be asked of it."""

    def __init__(self, spec: CrewSpec) -> None:
        """Make every device and switch it on."""
        self.timeline = AcceleratedTimeline(spec.speed)
        self.catalogue = Catalogue()
        self.catalogue.add(spec.factory)
        self.truth = Truth()
        self.wire = spec.venue.wire()
        factory = Factory(
            anchor=Path(spec.anchor).read_bytes(),
            image=Path(spec.factory_image).read_bytes(),
            installed=spec.factory,
            product=spec.population.product,
            claim=spec.claim,
            slot_size=spec.slot_size,
            poll_interval_s=spec.poll_interval_s,
        )
        self.scheduler = Scheduler(self.timeline)
        plans = populate(spec.population, spec.seed)[spec.part :: spec.parts]
        self.fleet = Fleet(self.scheduler, [self._device(plan, factory) for plan in plans])
        self.stopped = False

    def _device(self, plan: Any, factory: Factory) -> SimDevice:
        return SimDevice(
            plan,
            factory,
            timeline=self.timeline,
            wire=self.wire,
            catalogue=self.catalogue,
            truth=self.truth,
        )

    def obey(self, order: Order) -> object:
        """Carry out one order and return the answer."""
        if order.truth:
            return [device_truth(device) for device in self.fleet.devices]
        for known in order.know:
            self.catalogue.add(known.image)
            for variant, behaviour in known.behaviours.items():
                self.truth.behaviours[(known.image.counter, variant)] = behaviour
        for cut in order.cuts:
            self.fleet.by_id[cut.device_id].board.power.arm(Cut(cut.operation, cut.mode))
        for lie in order.lies:
            key = Signer.from_private(bytes.fromhex(lie.key)) if lie.key else None
            device = self.fleet.by_id[lie.device_id]
            device.link.wire = lying_wire(self.wire, lie.lie, target=lie.target, director=key)
        for name in order.honest:
            self.fleet.by_id[name].link.wire = self.wire
        self.stopped = order.stop
        return {name: self.fleet.by_id[name].board.power.operations for name in order.operations}

    def run(self, read: Callable[[float], bytes | None], write: Callable[[bytes], None]) -> None:
        """Run until told to stop. `read` returns a line, None when there is none yet, or b"" at the end."""
        while not self.stopped:
            self.scheduler.run_until(self.timeline.at() + SLICE_S)
            while (line := read(0.0)) is not None:
                if not line:
                    return
                order = msgspec.json.decode(line, type=Order)
                write(msgspec.json.encode(self.obey(order)) + b"\n")


class _Lines:
    """Lines of a pipe, without waiting for one."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self._ended = False

    def read(self, timeout_s: float | None) -> bytes | None:
        """Return one line; None when there is none within `timeout_s` (None = wait); b"" at the end."""
        while b"\n" not in self._buffer:
            if self._ended:
                return b""
            ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
            if not ready:
                return None
            piece = os.read(self._descriptor, 1 << 16)
            self._ended = not piece
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def main() -> int:
    """Run a crew on standard input and output."""
    lines = _Lines(sys.stdin.fileno())
    first = lines.read(None)
    if not first:
        return 2
    try:
        crew = Crew(msgspec.json.decode(first, type=CrewSpec))
    except (TidegateError, OSError, msgspec.DecodeError) as error:
        sys.stderr.write(f"crew: {error}\n")
        return 1

    def write(line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    write(b'"ready"\n')
    crew.run(lines.read, write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
