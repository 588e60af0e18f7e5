"""A real agent process on a virtual board, and what is true of its slot files."""

import hashlib
from pathlib import Path
from typing import Any

from tests.attack.works import SLOT, image_of

from tidegate.agent.local import Request, ask
from tidegate.core.errors import TransferError
from tidegate.sim.virtual_board import VirtualBoard, slot_path, wait_for

_IMAGE: int = len(image_of(""))


class Victim:
    """One device. `mark` notes what it is; `require_unmoved` holds it to that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board = VirtualBoard(folder)

    @property
    def boots(self) -> int:
        """How often the board was booted since it was switched on."""
        return self.board.boots

    def start(self) -> None:
        """Switch on, and wait until the agent answers."""
        self.board.start()
        assert wait_for(lambda: bool(self.status()), 30), self.log()
        self.mark()

    def stop(self) -> None:
        """Switch off."""
        self.board.stop()

    def status(self) -> dict[str, Any]:
        """Return what the agent says of itself; empty while it does not answer."""
        try:
            found: dict[str, Any] = ask(self.folder / "agent.sock", Request(verb="status"))
        except TransferError:
            return {}
        return dict(found.get("status", {}))

    def polled(self) -> bool:
        """Say whether the agent reached whoever is its server now."""
        return bool(self.status().get("last_contact_at"))

    def slots(self) -> dict[str, str]:
        """Return the digest of each whole slot file."""
        return {
            name: hashlib.sha256(slot_path(self.folder, name).read_bytes()).hexdigest()
            for name in ("A", "B")
        }

    def image(self) -> str:
        """Return the digest of the image in the slot that runs."""
        whole = slot_path(self.folder, self.board.running).read_bytes()
        assert len(whole) == SLOT
        return hashlib.sha256(whole[:_IMAGE]).hexdigest()

    def facts(self) -> tuple[Any, ...]:
        """Return what no attack may change."""
        status = self.status()
        assert status, self.log()
        return (
            self.slots(),
            self.boots,
            (self.folder / "boot.json").read_bytes(),
            status["security_floor"],
            status["running"]["release_counter"],
        )

    def mark(self) -> None:
        """Note what the device is now."""
        assert wait_for(lambda: bool(self.status()), 30), self.log()
        self.noted = self.facts()

    def require_unmoved(self, *, clean: bool = True) -> None:
        """Hold that slots, boot choice, number of boots and security floor are as noted, and (`clean`) that no slot holds foreign code."""
        assert self.facts() == self.noted
        if not clean:
            return
        for name in ("A", "B"):
            assert b"EVIL" not in slot_path(self.folder, name).read_bytes()

    def log(self) -> str:
        """Return the end of the agent's log."""
        path = self.folder / "agent.log"
        return path.read_text()[-3000:] if path.exists() else ""
