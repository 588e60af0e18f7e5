"""Boot loader `custom`: the board's own program, called with the verbs of RAUC's custom boot loader back end.

`[bootloader.custom] command` is the program with its first arguments; it is called with one verb more:

* `get-primary` prints the slot that is tried first at the next start;
* `set-primary SLOT` makes it that, with its tries anew, also when it was bad;
* `get-state SLOT` prints `good` or `bad`, and changes nothing;
* `set-state SLOT good`: it has started well, and is kept; `set-state SLOT bad`: it is not started until `set-primary` says so;
* `get-current` prints the slot that runs. Asked only where neither `TIDEGATE_SLOT` nor the kernel command line says it.

Each call is one atomic, durable change, ends with exit code 0 when it is done, and within `timeout` seconds (default 30). The program, or the boot loader
behind it, counts the tries of a slot that was not yet said to be good, and goes back by itself; how many it grants is its own affair. With `tries = true` it is
asked: `set-primary SLOT TRIES` grants as many, and `get-tries SLOT` prints how many are left.

RAUC's verbs do not tell a slot on trial from a good one. So the agent keeps the committed slot's name in a file, `record` (default
`/var/lib/tidegate/custom-boot`); a power cut between the two leaves what the next call puts right. [Guide](../guides/boot-others.md).
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

from typing import Final

from tidegate.agent.boot import booted
from tidegate.agent.boot import tool as boot_tool
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.files import replace_file
from tidegate.agent.ports import Bootloader, SlotMark, SlotName
from tidegate.core.errors import ConfigError, DeviceError

#: Most tries that can be asked for; as in `protocol.DeliveryPolicy`.
TRIES_MAX: Final = 15
_TIMEOUT_MAX_S: Final = 300


def create(settings: BootSettings) -> Bootloader:
    """Make the boot loader.

    Args:
        settings: `command`, `timeout` in seconds (1 to 300), `tries`, `record`; `slots`, the two names.

    Raises:
        ConfigError: `config.missing` or `config.invalid`.
    """
    kinds = {"command": list, "timeout": int, "tries": bool, "record": str}
    booted.require_known(settings, "custom", kinds)
    command, timeout_s = settings.get("command"), settings.get("timeout", 30)
    if not isinstance(command, list):
        raise ConfigError(
            "config.missing", '[bootloader.custom] command: ["/usr/lib/board/boot-slots"]'
        )
    if not all(isinstance(one, str) and one for one in command):
        raise ConfigError("config.invalid", "[bootloader.custom] command: a list of texts")
    if not isinstance(timeout_s, int) or not 1 <= timeout_s <= _TIMEOUT_MAX_S:
        raise ConfigError("config.invalid", f"[bootloader.custom] timeout: 1 to {_TIMEOUT_MAX_S}")
    return Custom(settings, command, timeout_s)


class Custom:
    """`agent.ports.Bootloader` over a program."""

    def __init__(self, settings: BootSettings, command: list[str], timeout_s: int) -> None:
        self._settings = settings
        self._slots = booted.slots_of(settings)
        self._command = command
        self._timeout_s = timeout_s
        self._counts = settings.get("tries") is True
        self._record = str(settings.get("record", "/var/lib/tidegate/custom-boot"))

    def current(self) -> SlotName:
        """The slot that runs: by whoever started it, else by the program."""
        try:
            return booted.current(self._settings)
        except DeviceError:
            return self._slot("get-current")

    def primary(self) -> SlotName:
        """The slot that was committed last; before any was, the one that is tried first."""
        first = self._slot("get-primary")
        return self._committed() or first

    def state(self, slot: SlotName) -> SlotMark:
        """On trial: tried first without having been committed. Else what the program says."""
        self._other(slot)
        if self._on_trial() == slot:
            return "trial"
        said = self._ask("get-state", slot)
        if said not in ("good", "bad"):
            raise DeviceError(
                "activate.bootloader",
                f"{self._command[0]} get-state: {said[:40]!r}, not good or bad",
            )
        return "good" if said == "good" else "bad"

    def tries_left(self, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise. 1 stands for some where the program does not count."""
        self._other(slot)
        if self._on_trial() != slot:
            return 0
        if not self._counts:
            return 1
        said = self._ask("get-tries", slot)
        if not said.isascii() or not said.isdecimal() or len(said) > 9:
            raise DeviceError(
                "activate.bootloader", f"{self._command[0]} get-tries: {said[:40]!r} is no number"
            )
        return int(said)

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` next."""
        other = self._other(slot)
        if self.state(other) != "good":
            raise DeviceError(
                "activate.bootloader", f"slot {other} is not good: nothing to go back to"
            )
        # What is gone back to must be on record before the program names the other one.
        self._keep(other)
        granted = [str(max(1, min(tries, TRIES_MAX)))] if self._counts else []
        self._ask("set-primary", slot, *granted)

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, for good. One that is not tried first yet is on trial between the two calls."""
        self._other(slot)
        if self._slot("get-primary") != slot:
            self._ask("set-primary", slot)
        self._ask("set-state", slot, "good")
        self._keep(slot)

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again."""
        other = self._other(slot)
        if self.state(other) != "good":
            raise DeviceError("activate.bootloader", f"slot {slot} is the only good one: it stays")
        # First, so that this can be repeated: after the next call the other one would seem to be on trial.
        self._keep(other)
        self._ask("set-state", slot, "bad")
        if self._slot("get-primary") != other:
            self._ask("set-primary", other)
            # It was good, and must not count as new.
            self._ask("set-state", other, "good")

    def _on_trial(self) -> SlotName | None:
        committed, first = self._committed(), self._slot("get-primary")
        return first if committed not in (None, first) else None

    def _slot(self, verb: str) -> SlotName:
        said = self._ask(verb)
        if said not in self._slots:
            raise DeviceError(
                "activate.bootloader",
                f"{self._command[0]} {verb}: {said[:40]!r} is none of: {', '.join(self._slots)}",
            )
        return said

    def _ask(self, *words: str) -> str:
        return boot_tool.run([*self._command, *words], self._timeout_s).strip()

    # --- the record ---------------------------------------------------------------------------------------------------

    def _committed(self) -> SlotName | None:
        try:
            with open(self._record, "rb") as file:
                said = file.read(256).decode("utf-8", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DeviceError("activate.bootloader", f"{self._record}: {error.strerror}") from error
        if said not in self._slots:
            raise DeviceError(
                "activate.bootloader",
                f"{self._record}: {said[:40]!r} is no slot: write the name of the committed one",
            )
        return said

    def _keep(self, slot: SlotName) -> None:
        if self._committed() == slot:
            return
        try:
            replace_file(self._record, f"{slot}\n".encode())
        except DeviceError as error:
            raise DeviceError("activate.bootloader", error.detail) from error

    def _other(self, slot: SlotName) -> SlotName:
        if slot not in self._slots:
            raise DeviceError("activate.bootloader", f"no slot {slot[:64]!r}")
        return self._slots[1 - self._slots.index(slot)]
