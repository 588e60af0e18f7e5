"""The journal over versions of the agent: what an older one wrote is read, what a newer one added is skipped, in the middle of any phase of an update.

`tests/golden/journal` holds journals as agents of a version wrote them, a folder a version. They are never written anew: a file that cannot be read any
more is a device that forgets its update. `TIDEGATE_GOLDEN=write` adds those of a version that has none yet.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.crash.lab import Device, Order, make_device

from tidegate import __version__
from tidegate.agent.journal import COPIES, seal, unseal
from tidegate.agent.state import Phase, State
from tidegate.sim.faults import Behaviour

GOLDEN = Path(__file__).parents[2] / "golden" / "journal"
PHASES = [kind.__name__ for kind in Phase.__args__]
FILES = sorted(GOLDEN.glob("*/*.journal"))


def newest(device: Device) -> tuple[int, bytes] | None:
    """Return generation and body of the journal that counts."""
    files = device.board.storage.files
    opened = [unseal(files[name]) for name in COPIES if name in files]
    whole = [one for one in opened if one is not None]
    return max(whole) if whole else None


def lives(device: Device) -> Iterator[tuple[str, bytes]]:
    """Run an update; yield each phase that its journal reaches, with the journal."""
    device.plane.order = Order("install", device.plane.releases[1], "u-1")
    for _ in device.run(7200):
        found = newest(device)
        if found is not None:
            phase = type(msgspec.json.decode(found[1], type=State).phase).__name__
            yield phase, seal(*found)
        if device.plane.outcomes():
            if device.plane.order is None:
                return
            device.plane.order = None


def write_golden(folder: Path) -> None:
    """Write down how this version's journals look in each phase."""
    folder.mkdir(parents=True)
    ill = {2: Behaviour(service=False)}
    for device in (make_device(1, 2, sync_bytes=4096), make_device(1, 2, behaviours=ill)):
        for phase, body in lives(device):
            path = folder / f"{phase}.journal"
            # The last of each phase: it holds most.
            if not (path.exists() and phase == "Idle"):
                path.write_bytes(body)


if os.environ.get("TIDEGATE_GOLDEN") == "write" and not (GOLDEN / __version__).exists():
    write_golden(GOLDEN / __version__)
    FILES = sorted(GOLDEN.glob("*/*.journal"))


def read(path: Path) -> bytes:
    opened = unseal(path.read_bytes())
    assert opened is not None
    return opened[1]


def grown(plain: Any) -> Any:
    """Return a document as a newer agent would write it: fields everywhere that this one does not know."""
    if isinstance(plain, list):
        return [grown(one) for one in plain]
    if not isinstance(plain, dict):
        return plain
    news = {"x_new": {"a": [1, None]}, "x_more": "text"}
    # Names of slots and components are no fields.
    named = all(isinstance(one, dict) for one in plain.values())
    return {name: grown(one) for name, one in plain.items()} | ({} if named else news)


def test_every_phase_of_this_version_is_written_down() -> None:
    found = {(one.parent.name, one.stem) for one in FILES}
    assert {(__version__, phase) for phase in PHASES} <= found, (
        "a new version, or a new phase: TIDEGATE_GOLDEN=write, and check the files in"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda one: f"{one.parent.name}-{one.stem}")
def test_what_an_agent_of_some_version_wrote_is_read(path: Path) -> None:
    state = msgspec.json.decode(read(path), type=State)
    assert type(state.phase).__name__ == path.stem
    assert set(state.slots) == {"A", "B"}
    if path.stem not in ("Idle", "Reverting"):
        assert state.phase.update.update == "u-1"  # type: ignore[union-attr]
        assert state.phase.update.release.release_counter == 2  # type: ignore[union-attr]
    again = msgspec.json.decode(msgspec.json.encode(state), type=State)
    assert again == state


@pytest.mark.parametrize("path", FILES, ids=lambda one: f"{one.parent.name}-{one.stem}")
def test_what_a_newer_agent_adds_is_skipped(path: Path) -> None:
    body = read(path)
    newer = json.dumps(grown(json.loads(body))).encode()
    assert newer.count(b"x_new") >= 3
    assert msgspec.json.decode(newer, type=State) == msgspec.json.decode(body, type=State)


@pytest.mark.parametrize("phase", [one for one in PHASES if one not in ("Idle", "Reverting")])
def test_an_agent_that_is_replaced_in_the_middle_goes_on(phase: str) -> None:
    device = make_device(1, 2)
    for reached, _ in lives(device):
        if reached == phase:
            break
    found = newest(device)
    assert found is not None
    # The power goes; a newer agent wrote last, and an older one comes back.
    device.runner = None
    body = json.dumps(grown(json.loads(found[1]))).encode()
    for name in COPIES:
        device.board.storage.files[name] = seal(found[0], body)
    for _ in lives(device):
        pass
    assert device.plane.outcomes() == [("confirmed", None)]
    assert device.runs == 2
    assert not any(one.reason == "agent.state_damaged" for one in device.plane.events.values())
