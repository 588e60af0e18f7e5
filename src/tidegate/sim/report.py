"""What the simulator knows to be true: read off the boards, never from what an agent or a server says."""

import hashlib
from collections import Counter
from collections.abc import Iterable

import msgspec

from tidegate.sim.device import SimDevice


class DeviceTruth(msgspec.Struct, frozen=True, kw_only=True):
    """One device as it is. `counter` and `sha256` are of the bytes that run; `primary_counter` of what boots when nothing is on trial."""

    device_id: str
    variant: str
    stage: str
    counter: int
    sha256: str
    version: str
    primary_counter: int
    dead: bool
    boots: int
    failed_boots: int
    torn_boots: int
    #: When each power cut came: `install`, `flag` or `after`.
    cuts: tuple[str, ...]
    #: (counter, from_counter, outcome) of each time that the boot flag was set.
    trials: tuple[tuple[int, int, str], ...]


class Outcomes(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one release on all boards: devices, not attempts."""

    tried: int = 0
    confirmed: int = 0
    reverted: int = 0
    open: int = 0
    fallen_back: int = 0


def device_truth(device: SimDevice) -> DeviceTruth:
    """Read the truth off one board."""
    board = device.board
    image, primary = board.image, board.image_in(board.loader.kept.primary)
    return DeviceTruth(
        device_id=device.plan.device_id,
        variant=device.plan.variant,
        stage=device.plan.stage,
        counter=image.counter if image is not None else 0,
        sha256=image.sha256 if image is not None else "",
        version=image.version if image is not None else "",
        primary_counter=primary.counter if primary is not None else 0,
        dead=board.dead or image is None,
        boots=board.history.boots,
        failed_boots=board.history.failed_boots,
        torn_boots=board.history.torn_boots,
        cuts=tuple(board.history.cuts),
        trials=tuple((one.counter, one.from_counter, one.outcome) for one in board.history.trials),
    )


def outcomes(truths: Iterable[DeviceTruth], counter: int) -> Outcomes:
    """Count what became of the release `counter`. A device that reverted and later confirmed counts as confirmed."""
    found: Counter[str] = Counter()
    for truth in truths:
        mine = [end for to, origin, end in truth.trials if to == counter and to >= origin]
        if mine:
            found["tried"] += 1
            best = next((one for one in ("confirmed", "open") if one in mine), "reverted")
            found[best] += 1
        found["fallen_back"] += any(
            origin == counter and to < origin and end == "confirmed"
            for to, origin, end in truth.trials
        )
    return Outcomes(**found)


def running(truths: Iterable[DeviceTruth]) -> dict[int, int]:
    """Count devices by the release that they really run."""
    return dict(sorted(Counter(truth.counter for truth in truths).items()))


def digest(truths: Iterable[DeviceTruth], events: Iterable[bytes] = ()) -> str:
    """Return a digest of the whole story, to compare two runs."""
    whole = hashlib.sha256()
    for truth in truths:
        whole.update(msgspec.json.encode(truth) + b"\n")
    for event in events:
        whole.update(event + b"\n")
    return whole.hexdigest()
