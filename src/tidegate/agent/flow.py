"""What a download is allowed at this moment, on the resident side: windows, a metered link, the throttle and who set it. Light.

The worker moves the bytes; it is told through its tap (`agent.net.pacer`), so that a window that closes, a new order or a person's word counts within a second
or two, and what came by then is kept.
"""

# pathlib would cost the resident process a quarter of a MiB.
# ruff: noqa: PTH123

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from tidegate.agent import windows
from tidegate.agent.events import Download, Downloaded, Noticed, Refresh
from tidegate.agent.jobs import Job, OpenBundle, Reply, Struck
from tidegate.agent.net.mirrors import Mirrors
from tidegate.agent.net.pacer import Tap
from tidegate.agent.state import Downloading, Update

if TYPE_CHECKING:
    from tidegate.agent.runner import Runner

#: Name of the file that keeps what a person said for longer than this run of the agent.
WISHES_NAME: Final = "flow.json"
#: How often a transfer under way is looked at, in seconds.
LOOK_S: Final = 1.0
#: A worker that does not stop within this after it was told is ended, in seconds: it hangs in a wait, and what it flushed stays.
PATIENCE_S: Final = 10.0
#: First words of the file that says so which mean a metered link; the last as NetworkManager calls its guess.
_METERED: Final = frozenset({"yes", "true", "metered", "guess-yes"})

Metered = Literal["yes", "no", "auto"]


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """A person's rate in the place of the configuration's: bytes a second, 0 = no limit of ours; until then (unix seconds), 0 = until taken back."""

    rate: int
    until_at: int = 0
    keep: bool = False


class Wishes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people said about the link."""

    throttle: Throttle | None = None
    metered: Metered = "auto"


class Flow:
    """Steers the transfers of one runner.

    Args:
        runner: whose.
        tell: gives a worker process a new tap; None = the worker is in this process and asks by itself.
    """

    def __init__(self, runner: "Runner", tell: Callable[[Tap], None] | None) -> None:
        self._runner = runner
        self._tell = tell
        self._told = Tap()
        self._looked_mono = 0.0
        self._closed_mono: float | None = None
        self._stale = True
        self._wishes: Wishes | None = None
        self.mirrors = Mirrors()

    # --- what people said ---------------------------------------------------------------------------------------------

    @property
    def wishes(self) -> Wishes:
        """Return what people said that still counts."""
        if self._wishes is None:
            self._wishes = self._read()
        throttle = self._wishes.throttle
        if throttle is not None and 0 < throttle.until_at <= self._runner.now():
            self._keep(msgspec.structs.replace(self._wishes, throttle=None))
        return self._wishes

    def throttle(self, wanted: Throttle | None) -> None:
        """Set the throttle, None = as configured; counts at once, also for a transfer under way."""
        self._keep(msgspec.structs.replace(self.wishes, throttle=wanted))

    def metered(self, word: Metered) -> None:
        """Take a person's or an application's word on the link, `auto` = as the file says; kept until taken back."""
        self._keep(msgspec.structs.replace(self.wishes, metered=word))

    def changed(self) -> None:
        """Note that something outside changed (configuration): look at the transfer at once."""
        self._stale = True

    def _keep(self, wishes: Wishes) -> None:
        self._wishes, self._stale = wishes, True
        passing = wishes.throttle is not None and not wishes.throttle.keep
        kept = msgspec.structs.replace(wishes, throttle=None) if passing else wishes
        storage = self._runner.ports.storage
        if kept != self._read():
            storage.write(WISHES_NAME, msgspec.json.encode(kept))

    def _read(self) -> Wishes:
        body = self._runner.ports.storage.read(WISHES_NAME)
        try:
            return Wishes() if body is None else msgspec.json.decode(body, type=Wishes)
        except msgspec.DecodeError:
            return Wishes()

    def left_out(self, struck: Struck) -> None:
        """Keep in mind what was wrong with a mirror. Wrong bytes are news for the server, a mirror that is away is none."""
        self.mirrors.struck(struck, self._runner.ports.clock.monotonic())
        if struck.reason == "download.hash":
            detail = f"mirror {struck.mirror}: {struck.detail}"[:300]
            now = self._runner.now()
            self._runner.feed(Noticed(now=now, reason=struck.reason, detail=detail))

    def sources(self, update: Update) -> tuple[str, ...]:
        """Return the mirrors that are asked for an update's payloads now, in order; none for what a person brought."""
        if update.bundle:
            return ()
        mono = self._runner.ports.clock.monotonic()
        return self.mirrors.order(self._runner.settings, update.release, mono)

    def heard(self, job: Job, reply: Reply) -> bool:
        """Note what a job came to. Return whether the server had a part in it: not in bytes that a mirror gave."""
        by_server = not isinstance(job, Download) or not self.mirrors.serving
        if isinstance(reply, Downloaded):
            self.mirrors.served()
        return by_server

    # --- what is allowed ----------------------------------------------------------------------------------------------

    def is_metered(self) -> bool:
        """Say whether the link costs money by the byte, as far as somebody says so."""
        word = self.wishes.metered
        if word != "auto":
            return word == "yes"
        path = self._runner.settings.metered_file
        if path is None:
            return False
        try:
            with open(path, "rb") as file:
                words = file.read(64).split()
        except OSError:
            return False
        return bool(words) and words[0].decode("ascii", "replace").lower() in _METERED

    def barred_by_meter(self, update: Update) -> bool:
        """Say whether an update must wait for a link that is not metered."""
        rule = self._runner.settings.metered
        if rule == "allow" or update.bundle:
            return False
        if rule == "security-only" and update.release.kind == "security":
            return False
        return self.is_metered()

    def rate(self, update: Update | None) -> int:
        """Return the lowest of the limits that hold now, in bytes a second; 0 = none. An order may narrow, a person cannot widen that."""
        throttle = self.wishes.throttle
        own = self._runner.settings.rate if throttle is None else throttle.rate
        ordered = 0 if update is None or update.bundle else update.policy.bps_max
        return min((one for one in (own, ordered) if one), default=0)

    def tap(self) -> Tap:
        """Return what the transfer under way is allowed now."""
        runner = self._runner
        phase = runner.state.phase
        if not isinstance(phase, Downloading):
            return Tap(open=False)
        update, now = phase.update, runner.now()
        closed = (
            runner.is_wanted(Refresh, OpenBundle)
            or now < update.policy.not_before
            or (not update.bundle and windows.download_in(runner.state, runner.settings, now) > 0)
            or self.barred_by_meter(update)
        )
        return Tap(rate=0 if update.bundle else self.rate(update), open=not closed)

    # --- a transfer under way -----------------------------------------------------------------------------------------

    def began(self) -> Tap:
        """Return the tap with which a transfer begins."""
        self._told, self._closed_mono = self.tap(), None
        return self._told

    def steer(self) -> bool:
        """Tell the worker what changed. Return whether it was told to stop, long enough ago, and did not."""
        mono = self._runner.ports.clock.monotonic()
        if self._closed_mono is not None:
            return mono - self._closed_mono > PATIENCE_S
        urgent = self._stale or self._runner.is_wanted(Refresh, OpenBundle)
        if not urgent and mono - self._looked_mono < LOOK_S:
            return False
        self._looked_mono, self._stale = mono, False
        tap = self.tap()
        if tap != self._told:
            self._told = tap
            if self._tell is not None:
                self._tell(tap)
        if not tap.open:
            self._closed_mono = mono
        return False
