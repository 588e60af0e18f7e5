"""Decides where each piece of a verified release goes on this device, and refuses what could not be installed before anything is touched."""

from typing import Any

from tidegate.agent import installers
from tidegate.agent.ledger import newest
from tidegate.agent.ports import Board
from tidegate.agent.settings import Settings
from tidegate.agent.state import Place, SlotRecord, State, Update
from tidegate.core.errors import DeviceError
from tidegate.core.release import Part, ReleaseTarget


def placed(
    board: Board, settings: Settings, state: State, *, release: ReleaseTarget, **order: Any
) -> Update:
    """Return an update with a place for each of its pieces.

    Args:
        board: whose slots.
        settings: which components are kept beside them, and which installers are allowed.
        state: what is there already.
        release: verified, and allowed by the device's own rules.
        order: the other fields of the update.

    Raises:
        DeviceError: `install.installer`: no installer here can do what is asked.
    """
    found = tuple(
        _place(settings, state, index, piece) for index, piece in enumerate(release.pieces)
    )
    current = board.bootloader.current()
    candidate = next(one for one in board.slots() if one != current)
    plain = len(found) == 1 and found[0].kind == "slot"
    return Update(
        release=release,
        slot=candidate if found[0].kind == "slot" else "",
        from_counter=newest(state).release_counter,
        places=() if plain else found,
        **order,
    )


def _place(settings: Settings, state: State, index: int, piece: Part) -> Place:
    if piece.component in settings.beside:
        installers.beside(piece.format, settings.allow)
        there = state.components.get(piece.component, SlotRecord())
        kept = index > 0 and there.sha256 == piece.install.sha256
        return Place(component=piece.component, kind="kept" if kept else "component")
    if index > 0:
        raise DeviceError(
            "install.installer",
            f"component {piece.component} is not kept beside the slots here: agent.toml has no [component.{piece.component}]",
        )
    installers.load(piece.format, settings.allow)
    return Place(component=piece.component, kind="slot")
