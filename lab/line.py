"""One device and its updates, one after the other, each judged by what the server, the console and the disk say."""

import re
import time
from dataclasses import dataclass
from typing import Any, Final

from lab.device import Device
from lab.machine import SilentError
from lab.plant import Plant, Release
from lab.report import OUTCOME, WRONG_SLOT, Report
from lab.tools import run

#: For a whole update with its way back, on a machine that has other work, in seconds.
PATIENCE_S: Final = 1200.0
_ASK_S: Final = 0.5
_FAT: Final = "@@1M"
#: A slot is up; a pattern must not end within the version, since a console brings lines in pieces.
_UP: Final = r"^UP slot=(\S+) version=(\S+) uptime="


@dataclass(frozen=True)
class Ended:
    """How an update ended.

    Attributes:
        slot: where the new image was put.
        outcome: what the device reported.
        console: what the machine said meanwhile, boots included.
        record: what the boot loader's record holds now.
    """

    slot: str
    outcome: dict[str, Any]
    console: str
    record: str

    @property
    def reason(self) -> str:
        """Why it was taken back; empty: it was not."""
        return str(self.outcome["reason"] or "")

    @property
    def log(self) -> str:
        """What the device sent home of the boot that failed."""
        return str(self.outcome["body"].get("log") or "")

    @property
    def failed_checks(self) -> set[str]:
        """The health checks that the report says failed."""
        return {one["name"] for one in self.outcome["body"].get("health") or () if not one["ok"]}

    @property
    def boots(self) -> list[str]:
        """The versions that came up, in order."""
        return [version for _, version in re.findall(_UP, self.console, re.MULTILINE)]


@dataclass
class Line:
    """A device that left the factory with `running` in slot A.

    Attributes:
        mode: its row in the lab's table.
        running: the release that it must run now.
        slot: where that stands.
    """

    device: Device
    plant: Plant
    report: Report
    mode: str
    running: Release
    slot: str = "A"

    def start(self) -> None:
        """Switch on, and wait until the factory's image is up."""
        self.device.machine.start()
        found = self.device.machine.expect(_UP, PATIENCE_S)
        assert found.groups() == (self.slot, self.running.version)

    def update(self, release: Release, tries: int = 3) -> Ended:
        """Offer a release and wait until the device has told how it ended."""
        machine = self.device.machine
        begun, before = len(machine.text), self._outcomes()
        # A rollout of before ends by itself, or this one takes its place.
        self.plant.roll_out(release, tries=tries)
        until = time.monotonic() + PATIENCE_S
        while not self._outcomes()[len(before) :]:
            if not machine.running:
                raise AssertionError(f"{self.device.name} was switched off")
            if time.monotonic() > until:
                raise SilentError(
                    f"{self.device.name}: {release.version} has no outcome: {machine.text[-3000:]}"
                )
            time.sleep(_ASK_S)
        told = self._outcomes()[len(before) :]
        if len(told) != 1:
            self.report.harm(OUTCOME)
        tried = "BA"[self.slot == "B"]
        ended = Ended(tried, told[0], machine.text[begun:], self.record())
        self.report.update(ended.reason or "confirmed")
        self.report.boots(
            self.mode, len(re.findall(r"^UP |Kernel panic", ended.console, re.MULTILINE))
        )
        if told[0]["kind"] == "confirmed":
            self.running, self.slot = release, tried
        self._require_running(ended)
        return ended

    def record(self) -> str:
        """Return the boot loader's record as it stands on the disk: GRUB's block, or the names of systemd-boot's entries."""
        disk = f"{self.device.volume.image}{_FAT}"
        try:
            return run("mtype", "-i", disk, "::grub/grubenv").rstrip("#")
        except RuntimeError:
            names = run("mdir", "-b", "-i", disk, "::loader/entries").split()
            return " ".join(sorted(one.rpartition("/")[2].lower() for one in names))

    def close(self) -> None:
        """Switch off."""
        self.device.close()
        self.report.used(self.device.machine.cpu_s)

    def _outcomes(self) -> list[dict[str, Any]]:
        known = self.plant.known(self.device.name)
        return self.plant.outcomes(self.device.name) if known else []

    def _require_running(self, ended: Ended) -> None:
        """Hold what came up last, and the bytes it came from, against what must run."""
        last = re.findall(_UP, ended.console, re.MULTILINE)[-1]
        right = last == (self.slot, self.running.version)
        if not right or self.device.image_digest(self.slot) != self.running.sha256:
            self.report.harm(WRONG_SLOT)
            raise AssertionError(f"{self.device.name} runs {last}: {ended.console[-2000:]}")
