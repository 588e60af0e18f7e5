"""`tidegate-agent boot VERB`: the board's boot loader, by the words of RAUC's custom boot loader back end.

So a RAUC whose `system.conf` says `bootloader=custom` drives whatever Tidegate drives, and `[bootloader] name = "custom"` on one board understands another's
command. It asks nobody for leave: where Tidegate decides what boots, RAUC is told `activate-installed=false`, and `rauc-mark-good.service` is masked.
"""

from collections.abc import Callable
from typing import Final

from tidegate.agent import bootloaders
from tidegate.agent.ports import Bootloader, SlotName
from tidegate.agent.settings import Config
from tidegate.core.errors import DeviceError, RequestError

#: What RAUC's word `set-primary` grants; it names no number.
TRIES: Final = 3
_TRIES_MAX: Final = 15


class Verbs:
    """One boot loader, asked in RAUC's words. Each answers with what is printed.

    Args:
        loader: the back end.
        slots: the two names.
    """

    def __init__(self, loader: Bootloader, slots: tuple[SlotName, SlotName]) -> None:
        self._loader = loader
        self._slots = slots

    def get_primary(self) -> str:
        """The slot that is tried first at the next start."""
        waiting = (one for one in self._slots if self._loader.tries_left(one))
        return next(waiting, None) or self._loader.primary()

    def set_primary(self, slot: SlotName, tries: str = str(TRIES)) -> str:
        """Try `slot` first, also when it was bad; the running one is kept for good instead."""
        self._known(slot)
        if not tries.isdecimal() or not 1 <= int(tries) <= _TRIES_MAX:
            raise RequestError("request.invalid", f"tries: 1 to {_TRIES_MAX}, not {tries[:40]!r}")
        if slot == self._loader.current():
            self._loader.commit(slot)
        else:
            self._loader.arm_trial(slot, int(tries))
        return ""

    def get_state(self, slot: SlotName) -> str:
        """Say `good` or `bad`; on trial is good while there are tries left, or while it runs."""
        mark = self._loader.state(self._known(slot))
        tried = self._loader.tries_left(slot) > 0 or self._loader.current() == slot
        return "good" if mark == "good" or (mark == "trial" and tried) else "bad"

    def set_state(self, slot: SlotName, word: str) -> str:
        """Keep the running slot for good (`good`), or never start one again until it is made primary (`bad`)."""
        self._known(slot)
        if word not in ("good", "bad"):
            raise RequestError("request.invalid", f"set-state: good or bad, not {word[:40]!r}")
        if word == "bad":
            self._loader.mark_bad(slot)
        elif slot == self._loader.current():
            self._loader.commit(slot)
        elif self._loader.state(slot) != "good":
            raise DeviceError(
                "activate.bootloader",
                f"slot {slot} does not run: only one that does can be called good",
            )
        return ""

    def get_current(self) -> str:
        """The slot that runs."""
        return self._loader.current()

    def get_tries(self, slot: SlotName) -> str:
        """Boots left for a slot on trial; 0 otherwise."""
        return str(self._loader.tries_left(self._known(slot)))

    def _known(self, slot: SlotName) -> SlotName:
        if slot not in self._slots:
            known = ", ".join(self._slots)
            raise RequestError("request.invalid", f"no slot {slot[:64]!r}, there are: {known}")
        return slot


#: The words, with how many more each takes, least and most.
VERBS: Final[dict[str, tuple[Callable[..., str], int, int]]] = {
    "get-primary": (Verbs.get_primary, 0, 0),
    "set-primary": (Verbs.set_primary, 1, 2),
    "get-state": (Verbs.get_state, 1, 1),
    "set-state": (Verbs.set_state, 2, 2),
    "get-current": (Verbs.get_current, 0, 0),
    "get-tries": (Verbs.get_tries, 1, 1),
}


def answer(config: Config, verb: str, words: list[str]) -> str:
    """Do one verb and return what to print; "" for the ones that change something, which are durable then.

    Raises:
        RequestError: `request.invalid`: words that do not fit the verb.
        ConfigError: the boot loader's settings cannot work.
        DeviceError: `activate.bootloader`.
    """
    act, least, most = VERBS[verb]
    if not least <= len(words) <= most:
        wanted = str(least) if least == most else f"{least} or {most}"
        raise RequestError("request.invalid", f"boot {verb} takes {wanted} more, not {len(words)}")
    first, second = config.slots
    loader = bootloaders.load(config.bootloader, config.boot_settings)
    return act(Verbs(loader, (first, second)), *words)
