"""What the agent finds when it starts, as one event; and the mark that it leaves when it is told to stop.

The mark is the name of the boot, in a file of its own: written when the service manager (or any init) ends the agent, removed when the agent starts again.
So of a boot that is over, a mark that names it says that the system was shut down in order. That is two small durable writes a boot, and none in between.
"""

from typing import Final

from tidegate.agent.events import Started
from tidegate.agent.ports import Ports, Reading, TellingBootloader
from tidegate.agent.state import Activating, Confirming, Reverting, State, Testing

#: In the state directory: the boot in which the agent was told to stop last.
MARK: Final = "stopped"


def found(ports: Ports, state: State, errors: Reading, *, attended: bool) -> Started:
    """Return what is to be told of this start.

    Args:
        ports: the agent's world.
        state: as the journal has it.
        errors: the first reading of this start.
        attended: this agent stays until it is told to stop.
    """
    clock, board = ports.clock, ports.board
    loader = board.bootloader
    on_trial = isinstance(state.phase, Activating | Testing | Confirming | Reverting)
    boot_id = board.boot_id()
    return Started(
        now=max(0, int(clock.now())),
        mono=clock.monotonic(),
        boot_id=boot_id,
        current=loader.current(),
        primary=loader.primary(),
        marks={slot: loader.state(slot) for slot in board.slots()},
        tries={slot: loader.tries_left(slot) for slot in board.slots()},
        log=board.boot_log(_armed_boot(state)) if on_trial else "",
        errors=errors.count,
        errors_mark=errors.mark,
        loader=loader.told() if isinstance(loader, TellingBootloader) else "",
        watchdog=board.watchdog_reset(),
        attended=attended,
        orderly=state.boot_id == boot_id or _marked(ports) == state.boot_id,
        cause=board.last_words() if state.boot_id != boot_id else "",
    )


def settled(ports: Ports) -> None:
    """Take the mark away, when what it said is in the journal: from now on the boot may end in any way."""
    if ports.storage.read(MARK) is not None:
        ports.storage.delete(MARK)


def stopped(ports: Ports) -> None:
    """Leave the mark. Raises DeviceError where it cannot be written; then this boot will look as if it had just ended."""
    ports.storage.write(MARK, ports.board.boot_id().encode())


def _marked(ports: Ports) -> str:
    return (ports.storage.read(MARK) or b"").decode("ascii", "replace")


def _armed_boot(state: State) -> str:
    """Return the boot that set the boot flag, where that is known: its log says nothing of the trial."""
    return state.phase.nonce_boot if isinstance(state.phase, Activating) else ""
