"""Boot loader `uboot`: U-Boot, through its environment, for boot scripts of two kinds. Nothing but the agent is needed: no `fw_setenv`.

`[bootloader.uboot]`:

* `config`: where `fw_env.config` is, the file in which U-Boot's tools find the environment; `/etc/fw_env.config` by default. Or `env`: its lines themselves,
  `["/dev/mmcblk0 0x400000 0x4000", "/dev/mmcblk0 0x410000 0x4000"]`.
* `style`: `order` (the default): the script walks `BOOT_ORDER` and counts `BOOT_<slot>_LEFT` down, as ours and RAUC's do; or `bootcount`: U-Boot counts with
  `bootcount`, `bootlimit` and `upgrade_available`, and `altbootcmd` goes back.
* for `order`: `order` and `left`, the variables' names (`BOOT_ORDER`, `BOOT_{slot}_LEFT`); `full`, the tries of a confirmed slot (3), which are filled up a
  minute after each start; `tries_max`, the most that the script can count (15; 9 for scripts that ask `test … -gt 0`).
* for `bootcount`: `select`, for each slot what makes `bootcmd` boot it: `["A: tidegate_slot=A", "B: tidegate_slot=B"]` by default; with Mender's scripts
  `["A: mender_boot_part=2 mender_boot_part_hex=2", …]`.
* `accept_single_copy`: an environment of one copy is refused, since a power cut while it is rewritten loses it whole: U-Boot then starts with what was
  compiled in. Build U-Boot with `CONFIG_SYS_REDUNDAND_ENVIRONMENT` and give two lines. `true` accepts the risk.
* `lock`: the lock of U-Boot's tools, `/var/lock/fw_printenv.lock`.

The kernel command line says what was booted: `tidegate.slot=A`, or `rauc.slot=A`. [Guide](../guides/boot-uboot.md).
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

from collections.abc import Callable, Mapping
from typing import Final

from tidegate.agent.boot import booted
from tidegate.agent.boot.uboot_env import is_name
from tidegate.agent.boot.uboot_store import LOCK_PATH, Place, Store, parse_places
from tidegate.agent.boot.uboot_styles import Bootcount, Order, Style
from tidegate.agent.bootloaders import BootSettings
from tidegate.agent.ports import SlotMark, SlotName
from tidegate.core.errors import ConfigError, DeviceError

#: Where U-Boot's tools look.
CONFIG_PATH: Final = "/etc/fw_env.config"
_CONFIG_MAX: Final = 64 << 10
#: Most tries that can be asked for; as in `protocol.DeliveryPolicy`.
_TRIES_MAX: Final = 15

Slots = tuple[SlotName, SlotName]

#: What each setting must be.
_KINDS: Final[Mapping[str, type]] = {
    "config": str,
    "env": list,
    "style": str,
    "order": str,
    "left": str,
    "full": int,
    "tries_max": int,
    "select": list,
    "accept_single_copy": bool,
    "lock": str,
}


def create(settings: BootSettings) -> "UbootBootloader":
    """Make the boot loader. Nothing is read but `fw_env.config`.

    Raises:
        ConfigError: `config.invalid`, `config.unreadable`: settings that cannot work, a single copy among them.
    """
    booted.require_known(settings, "uboot", _KINDS)
    style = _style(settings)
    places = _places(settings)
    if len(places) == 1 and settings.get("accept_single_copy") is not True:
        raise ConfigError(
            "config.invalid",
            "the U-Boot environment has a single copy, which a power cut while it is rewritten loses whole: build U-Boot with "
            "CONFIG_SYS_REDUNDAND_ENVIRONMENT=y and name both copies in fw_env.config, or accept the risk with [bootloader.uboot] accept_single_copy = true",
        )
    lock = str(settings.get("lock", LOCK_PATH))
    return UbootBootloader(settings, Store(places, lock=lock), style)


class UbootBootloader:
    """`agent.ports.CountingBootloader`, and `TellingBootloader`, over U-Boot's environment."""

    def __init__(self, settings: BootSettings, store: Store, style: Style) -> None:
        self._settings = settings
        self._slots = booted.slots_of(settings)
        self._store = store
        self._style = style

    def current(self) -> SlotName:
        """The slot that is running, by the kernel command line: after a fall back the environment may still name the other one first."""
        return booted.current(self._settings)

    def primary(self) -> SlotName:
        """The slot that is booted when nothing is on trial."""
        return self._style.primary(self._store.read())

    def state(self, slot: SlotName) -> SlotMark:
        """What the environment holds of that slot."""
        return self._style.state(self._store.read(), self._known(slot), self.current())

    def tries_left(self, slot: SlotName) -> int:
        """Boots left for a slot on trial; 0 otherwise."""
        return self._style.tries_left(self._store.read(), self._known(slot))

    def told(self) -> str:
        """The variables that say what is booted, as they stand."""
        env = self._store.read()
        held = ((name, env.get(name)) for name in self._style.names())
        return " ".join(f"{name}={value}" for name, value in held if value is not None)[:400]

    def counted_down(self) -> bool:
        """Say whether the script counted the running slot down, and it is the primary with no trial that could still be started."""
        env, current = self._store.read(), self.current()
        style, tried = self._style, any(self._style.tries_left(env, one) for one in self._slots)
        settled = style.state(env, current, current) == "good" and style.primary(env) == current
        return settled and not tried and style.counted_down(env, current)

    def arm_trial(self, slot: SlotName, tries: int) -> None:
        """Boot `slot` next, at most `tries` times."""
        self._store.change(lambda env: self._style.armed(env, self._known(slot), tries))

    def commit(self, slot: SlotName) -> None:
        """Make `slot` the primary, for good, with all of its tries."""
        self._store.change(lambda env: self._style.committed(env, self._known(slot)))

    def mark_bad(self, slot: SlotName) -> None:
        """Never boot `slot` until it is armed again. The last slot that can be booted is never given up."""
        self._store.change(lambda env: self._style.marked_bad(env, self._known(slot)))

    def _known(self, slot: SlotName) -> SlotName:
        if slot not in self._slots:
            raise DeviceError("activate.bootloader", f"no slot {slot[:64]!r}")
        return slot


def _style(settings: BootSettings) -> Style:
    slots = booted.slots_of(settings)
    for slot in slots:
        if not slot.replace("_", "").replace("-", "").isalnum():
            raise ConfigError("config.invalid", f"[[slot]] {slot!r:.64}: letters and digits only")
    makers: Mapping[str, Callable[[BootSettings, Slots], Style]] = {
        "order": _order,
        "bootcount": _bootcount,
    }
    wanted = str(settings.get("style", "order"))
    make = makers.get(wanted)
    if make is None:
        raise ConfigError(
            "config.invalid",
            f"[bootloader.uboot] style {wanted!r:.40} is none of: {', '.join(makers)}",
        )
    return make(settings, slots)


def _order(settings: BootSettings, slots: Slots) -> Style:
    left = str(settings.get("left", "BOOT_{slot}_LEFT"))
    if "{slot}" not in left:
        raise ConfigError("config.invalid", "[bootloader.uboot] left: wants {slot} in the name")
    return Order(
        slots=slots,
        order=_variable(str(settings.get("order", "BOOT_ORDER"))),
        left=_variable(left),
        full=_tries(settings, "full", 3),
        tries_max=_tries(settings, "tries_max", _TRIES_MAX),
    )


def _bootcount(settings: BootSettings, slots: Slots) -> Style:
    lines = _lines(settings, "select") or [f"{one}: tidegate_slot={one}" for one in slots]
    select: dict[SlotName, dict[str, str]] = {}
    for line in lines:
        slot, colon, rest = line.partition(":")
        pairs = dict(word.partition("=")[::2] for word in rest.split())
        if not colon or slot.strip() not in slots or not pairs or not all(pairs.values()):
            raise ConfigError(
                "config.invalid",
                f"[bootloader.uboot] select: {line!r:.80} is not 'SLOT: NAME=VALUE …'",
            )
        select[slot.strip()] = {_variable(name): value for name, value in pairs.items()}
    if len(select) != 2 or select[slots[0]] == select[slots[1]]:
        raise ConfigError(
            "config.invalid", "[bootloader.uboot] select: one line each for both slots, not alike"
        )
    return Bootcount(
        slots=slots, select=select, tries_max=_tries(settings, "tries_max", _TRIES_MAX)
    )


def _variable(name: str) -> str:
    if not is_name(name):
        raise ConfigError("config.invalid", f"[bootloader.uboot] {name!r:.64} names no variable")
    return name


def _tries(settings: BootSettings, key: str, default: int) -> int:
    value = settings.get(key, default)
    if not isinstance(value, int) or not 1 <= value <= _TRIES_MAX:
        raise ConfigError("config.invalid", f"[bootloader.uboot] {key}: from 1 to {_TRIES_MAX}")
    return value


def _places(settings: BootSettings) -> tuple[Place, ...]:
    lines = _lines(settings, "env")
    if lines:
        return parse_places("\n".join(lines), "[bootloader.uboot] env")
    path = str(settings.get("config", CONFIG_PATH))
    try:
        with open(path, "rb") as file:
            text = file.read(_CONFIG_MAX).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(
            "config.unreadable",
            f"{path}: {error.strerror}; it tells where the U-Boot environment is, see fw_printenv",
        ) from error
    return parse_places(text, path)


def _lines(settings: BootSettings, key: str) -> list[str]:
    value = settings.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError("config.invalid", f"[bootloader.uboot] {key}: a list of texts")
    return value
