"""Performs what the machine decides, through ports; the machine decides what happens next from what comes back.

`tick()` does one bounded thing and says when it wants to be called again, so that a loop, a simulator or a test can drive any number of runners without a
thread. Jobs that need a signature checked or made go through `perform`: in this process, or in a worker process (`agent.subprocess_worker`).

The order is the same everywhere: the state is durable before anything is done about it.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import UNSET

from tidegate.agent import arrival, outbox
from tidegate.agent.boot.refill import Refill
from tidegate.agent.checkup.contract import InForce, in_force
from tidegate.agent.enrolment import ENROLLED_NAME
from tidegate.agent.events import (
    Acked,
    Arm,
    Armed,
    AskPermit,
    Beat,
    Change,
    Checked,
    CheckHealth,
    Commit,
    Committed,
    Download,
    Effect,
    Event,
    Failed,
    MarkBad,
    Marked,
    Noticed,
    Offered,
    ProbeResult,
    ReadBack,
    Reboot,
    Refresh,
)
from tidegate.agent.flow import Flow
from tidegate.agent.jobs import (
    Enrol,
    Enrolled,
    Job,
    MakeSession,
    OpenBundle,
    Perform,
    Quiet,
    Rekeyed,
    Reply,
    SessionMade,
    Sign,
    Signed,
    Struck,
    Task,
    TokenRefused,
)
from tidegate.agent.journal import Journal, fresh, onto
from tidegate.agent.lookout import Lookout
from tidegate.agent.machine import step
from tidegate.agent.net.beside import Way
from tidegate.agent.net.pacer import Tap
from tidegate.agent.net.uplink import Uplink
from tidegate.agent.ports import Checkup, Findings, Ports, Reading
from tidegate.agent.settings import Settings
from tidegate.agent.state import (
    Downloading,
    Idle,
    Reverting,
    Staged,
    State,
    Testing,
    durable,
)
from tidegate.agent.stick import Stick
from tidegate.agent.waiting import Because, reasons
from tidegate.core.errors import DeviceError, TidegateError
from tidegate.core.protocol import EventItem, Metrics
from tidegate.core.reasons import TRANSFER_FAMILIES, family, is_reason

#: How often it is looked whether a round of health checks is done, in seconds.
EXAMINE_S: Final = 0.1
#: A revoked device asks again after this, in seconds.
REVOKED_S: Final = 3600.0
NEVER: Final = float("inf")

__all__ = ["NEVER", "Ports", "Runner"]


class Runner:
    """One device's agent.

    Args:
        ports: its world.
        settings: what it was told.
        perform: does jobs; None = in this process, which loads the cryptography here.
        tell: gives a worker process the tap of a transfer under way.
    """

    def __init__(
        self,
        ports: Ports,
        settings: Settings,
        perform: Perform | None = None,
        tell: Callable[[Tap], None] | None = None,
    ) -> None:
        self.ports = ports
        self.settings = settings
        self.state = State()
        self.ended = False
        #: Whether this agent stays until it is told to stop; one that looks once cannot say how the machine goes down.
        self.stays = True
        self.flow = Flow(self, tell)
        self.lookout = Lookout(self)
        self._perform = perform if perform is not None else _inline(ports, settings, self.flow)
        self._journal = Journal(ports.storage)
        self._uplink = Uplink(ports.transport, ports.clock, settings, ports.board.whole_log)
        self._line = self._uplink.line
        self._effects: deque[Effect | OpenBundle] = deque()
        self.stick = Stick()
        self._active: tuple[Job, Iterator[Reply]] | None = None
        self._begun = False
        self._refill = Refill(ports.board.bootloader)
        self._asked_refresh = False
        self._asked_at = -1
        self._examined: InForce | None = None
        self._errors = Reading()
        self._counted = (0, 0.0)
        self._beat_basis = (0, 0.0)
        self._heard = False

    # --- driving ------------------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """Do one thing. Return in how many seconds to call again: 0 = at once, inf = the device is about to restart."""
        if self.ended:
            return NEVER
        try:
            if not self._begun:
                self._begin()
                return 0.0
            return self._one_thing()
        except DeviceError as error:
            # The boot record could not be read, or the journal not be written: nothing that depends on it was done.
            self._effects.clear()
            self._line.problem = str(error)
            return 30.0

    def stopped(self) -> None:
        """Note that the agent was told to stop: if the machine restarts now, somebody asked for it."""
        if self._begun and self.stays:
            try:
                arrival.stopped(self.ports)
            except DeviceError as error:
                self._line.problem = str(error)

    def close(self) -> None:
        """End a job and a round of checks under way; what was made durable stays."""
        self._examined = None
        self.ports.examiner.close()
        self._end_job()

    def _end_job(self) -> None:
        if self._active is not None:
            close = getattr(self._active[1], "close", None)
            self._active = None
            if close is not None:
                close()

    def feed(self, event: Event) -> None:
        """Tell the machine something: the state is durable when this returns, its effects are done by the next ticks."""
        after, effects = step(self.state, event)
        if durable(after) != durable(self.state):
            self._journal.write(after)
        self.state = after
        self._effects.extend(effects)

    def check_now(self) -> None:
        """Poll at the next tick, also if a poll is under way: what it asked for may be from before."""
        self._line.poll_at = self._line.retry_at = self._line.wish_until = 0.0
        self._line.again = True

    def hurry(self) -> None:
        """Cut short what waits at the server for news, if anything is to be done here. Called while a call of `aside`'s way is under way."""
        if self._effects or self._line.again:
            self._uplink.hurry()

    def aside(self, way: Way) -> None:
        """Wait for the server in this way from now on. What it lets happen meanwhile may feed events, but must not tick."""
        self._uplink.way = way

    def reload(self, settings: Settings) -> None:
        """Go by other settings from now on, also for a transfer under way."""
        self.settings = settings
        self._uplink.reload(settings)
        self.flow.changed()

    def open(self, path: str) -> None:
        """Have a bundle or a mirror looked at, and installed if it may be; `stick.word` says what became of it."""
        self._effects.append(self.stick.asked(path))

    def is_wanted(self, *kinds: type[Effect | OpenBundle]) -> bool:
        """Say whether one of these is to be done next."""
        return any(isinstance(one, kinds) for one in self._effects)

    @property
    def online(self) -> bool:
        """Say whether there is a session with the server."""
        return self._line.token is not None

    @property
    def unreachable(self) -> bool:
        """Say whether the server was asked for a session, and did not answer."""
        return self._line.token is None and self._line.failures > 0

    @property
    def busy(self) -> bool:
        """Say whether a job is under way."""
        return self._active is not None

    @property
    def contact_at(self) -> int | None:
        """Return when the server answered last (unix seconds), or None."""
        return self._line.contact_at

    @property
    def problem(self) -> str:
        """Return the last trouble with the link, or ""."""
        return self._line.problem

    @property
    def enrolled(self) -> str:
        """Return what the server made of this device: accepted, pending, …; "" when it was not asked yet."""
        return self._line.enrolled

    @property
    def next_poll_s(self) -> float:
        """Return in how many seconds the next poll is due."""
        return max(0.0, self._uplink.poll_due_at(self._free_s()) - self._mono())

    def because(self) -> tuple[Because, ...]:
        """Say what is waited for."""
        return reasons(self.state, self.lookout.look())

    def now(self) -> int:
        """Return this device's own time, unix seconds, never below 0."""
        return max(0, int(self.ports.clock.now()))

    # --- one tick -----------------------------------------------------------------------------------------------------

    def _one_thing(self) -> float:
        self._line.problem = self._refill.give(self.state, self._mono()) or self._line.problem
        if self._examined is not None and self._checked(self._examined):
            return 0.0
        if self._active is not None:
            return self._advance()
        if self._effects:
            self._do(self._effects.popleft())
            return 0.0 if not self.ended else NEVER
        if self._examined is not None:
            # A round is under way: what follows from it is not asked for again, and the link goes on beside it.
            return 0.0 if self._network() else EXAMINE_S
        self.feed(self.lookout.look())
        if self._effects:
            return 0.0
        if self._network():
            return 0.0
        return self._idle_s()

    def _begin(self) -> None:
        clock, board = self.ports.clock, self.ports.board
        state, damaged = self._journal.read()
        current = board.bootloader.current()
        if state is None or not state.slots:
            made = fresh(board.slots(), current, self.settings.installed, damaged=damaged)
            state = made if state is None else onto(made, state)
        self.state = state
        self._errors = self.ports.errors.read(_counted_before(state, board.boot_id()))
        total = self._errors.count
        self._counted = self._beat_basis = (total, clock.monotonic())
        self._line.enrolled = (self.ports.storage.read(ENROLLED_NAME) or b"").decode(
            "ascii", "replace"
        )
        self.feed(arrival.found(self.ports, state, self._errors, attended=self.stays))
        board.log_kept()
        arrival.settled(self.ports)
        self._begun = True
        if damaged:
            self.feed(Noticed(now=self.now(), reason="agent.state_damaged"))

    def _idle_s(self) -> float:
        mono = self._mono()
        due = [self._uplink.poll_due_at(self._free_s()) - mono, self._own_s(mono)]
        if self.state.outbox:
            due.append(self._line.retry_at - mono)
        # A little later rather than a little early: a clock that was read a hair too soon would be asked again for ever.
        return max(0.0, min(due)) + 0.001

    # --- effects ------------------------------------------------------------------------------------------------------

    def _do(self, effect: Effect | OpenBundle) -> None:
        loader = self.ports.board.bootloader
        try:
            match effect:
                case Refresh() | OpenBundle() | Download() | ReadBack() | AskPermit() | Change():
                    self._start(effect)
                case MarkBad():
                    loader.mark_bad(effect.slot)
                    self._marked(effect.slot)
                case Arm():
                    loader.arm_trial(effect.slot, effect.tries)
                    self.feed(Armed(now=self.now(), tries=loader.tries_left(effect.slot)))
                case Commit():
                    loader.commit(effect.slot)
                    self.feed(Committed(now=self.now()))
                case CheckHealth():
                    self._examine(effect)
                case Reboot():
                    self._reboot()
        except DeviceError as error:
            if error.code.startswith("activate."):
                self._failed(error)
                return
            raise

    def _reboot(self) -> None:
        # What was done is told first, if the link lets us; nothing waits for it.
        for _ in range(4):
            if not self._send():
                break
            while self._active is not None:
                self._advance()
        if self.settings.reboot_delay_s:
            self.ports.clock.sleep(self.settings.reboot_delay_s)
        self.ports.board.reboot()
        self.ended = True

    def _marked(self, slot: str) -> None:
        going = isinstance(self.state.phase, Reverting) and slot == self.state.current
        # What the image that is left says of itself is in its own log; nobody may come to read it once the other slot runs.
        log = self.ports.board.running_log() if going else ""
        self.feed(Marked(now=self.now(), slot=slot, log=log))

    def _examine(self, effect: CheckHealth) -> None:
        self._examined = in_force(effect.contract, self.settings.health)
        asked = self._examined
        self.ports.examiner.begin(
            Checkup(signed=asked.contract.checks, own=asked.own, bases=effect.bases)
        )

    def _checked(self, asked: InForce) -> bool:
        """Take the result of a round, if it is there. Return whether it was."""
        if not isinstance(self.state.phase, Testing):
            self._examined = None
            self.ports.examiner.close()
            return False
        found = self.ports.examiner.answer()
        if found is None:
            return False
        self._examined = None
        self._errors = self.ports.errors.read(self._errors)
        self.feed(
            Checked(
                now=self.now(),
                mono=self._mono(),
                results=self._results(asked, found),
                errors=self._errors.count,
                errors_mark=self._errors.mark,
                manual_confirm=self.settings.manual_confirm,
                contract=asked.contract,
                bases=found.bases,
            )
        )
        return True

    def _results(self, asked: InForce, found: Findings) -> tuple[ProbeResult, ...]:
        results = tuple(
            ProbeResult(name=one.name, reason=one.reason, ok=one.ok, detail=one.detail, own=one.own)
            for one in found.results
        )
        if asked.contract.error_rate_per_hour is None or not self._errors.problem:
            return results
        # A rate that nobody counts is no rate of nought.
        return (
            *results,
            ProbeResult(
                name="errors", reason="health.error_rate", ok=False, detail=self._errors.problem
            ),
        )

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        if isinstance(job, Refresh):
            # Without a session it is asked for again once there is one.
            self._asked_refresh = self._line.token is None
            if self._asked_refresh:
                return
        waiting = next((one.code for one in self.because()), "")
        task = Task(
            job=job,
            state=self.state,
            token=self._line.token,
            waiting=waiting,
            inhibitors=self.lookout.inhibitors.now(),
            tap=self.flow.began() if isinstance(job, Download) else Tap(),
            mirrors=self.flow.sources(job.update) if isinstance(job, Download) else (),
        )
        self._active = (job, iter(self._perform(task)))

    def _advance(self) -> float:
        active = self._active
        assert active is not None  # noqa: S101 - asked by the caller; for the type checker
        job, replies = active
        reply = next(replies, None)
        if reply is None:
            self._active = None
            return 0.0
        if not self.stick.answered(self, job, reply):
            self._answered(job, reply)
        if self._active is active and isinstance(job, Download):
            self._aside()
        return 0.2 if isinstance(reply, Quiet) else 0.0

    def _aside(self) -> None:
        """Keep in touch during a long download; a new order interrupts it, and what came is kept."""
        if self._line.token is not None and self._mono() >= self._uplink.poll_due_at():
            self._poll()
        if self.flow.steer():
            self._end_job()

    def _answered(self, job: Job, reply: Reply) -> None:  # noqa: C901 - one line an answer
        match reply:
            case Quiet():
                return
            case Struck():
                self.flow.left_out(reply)
            case Enrolled():
                self._line.enrolled = reply.state
                if reply.state != "accepted":
                    self._line.retry_at = self._mono() + max(1, reply.poll_after_s)
            case SessionMade():
                self._session(reply)
            case Signed():
                self._post(reply.items)
            case Rekeyed():
                self._line.token = None
            case TokenRefused():
                self._uplink.signed_out(opening=isinstance(job, MakeSession))
                self._asked_refresh = isinstance(job, Refresh)
            case Failed() if isinstance(job, Enrol | MakeSession | Sign | Refresh):
                self._job_failed(reply)
            case Failed():
                self.feed(reply)
                if isinstance(job, AskPermit) and not reply.retryable:
                    # The server does not know this update any more, perhaps: ask what it wants.
                    self._effects.append(Refresh())
            case _:
                if not isinstance(job, ReadBack | Change) and self.flow.heard(job, reply):
                    self._uplink.contact()
                self.feed(reply)

    def _job_failed(self, reply: Failed) -> None:
        line = self._line
        self._uplink.trouble(f"{reply.reason}: {reply.detail}", reply.retry_after_s)
        if reply.reason in ("device.unknown", "device.pending"):
            line.enrolled = ""
        elif reply.reason == "device.revoked":
            line.retry_at = self._mono() + REVOKED_S
        elif is_reason(reply.reason) and family(reply.reason) not in TRANSFER_FAMILIES:
            self.feed(Noticed(now=reply.now, reason=reply.reason, detail=reply.detail))

    def _session(self, reply: SessionMade) -> None:
        self._uplink.signed_in(reply.token, reply.expires_in_s)
        if reply.acked_seq:
            self.feed(Acked(reply.acked_seq))
        if self._asked_refresh:
            self._effects.append(Refresh())

    def _failed(self, error: TidegateError) -> None:
        self.feed(
            Failed(
                now=self.now(),
                mono=self._mono(),
                reason=error.code,
                detail=error.detail,
                retryable=error.retryable,
            )
        )

    # --- the link -----------------------------------------------------------------------------------------------------

    def _network(self) -> bool:
        """Do one thing over the link if one is due. Return whether something was done."""
        line, mono = self._line, self._mono()
        if mono < line.retry_at:
            return False
        polls = mono >= self._uplink.poll_due_at(self._free_s())
        due = polls or bool(self.state.outbox) or self._asked_refresh
        if not due and not self._needs_session():
            return False
        if line.enrolled != "accepted":
            self._start(Enrol(claim=self.settings.claim))
            return True
        if line.token is None or mono >= line.token_until:
            self._start(MakeSession())
            return True
        if polls:
            self._poll()
            return True
        return self._send()

    def _free_s(self) -> float:
        """Return for how long nothing is to be done here, whatever the server says."""
        busy = self._active is not None or self._effects or self.state.outbox or self._examined
        if busy or not isinstance(self.state.phase, Idle):
            return 0.0
        mono = self._mono()
        return max(0.0, min(self._line.token_until - mono, self._own_s(mono)))

    def _own_s(self, mono: float) -> float:
        """Return in how many seconds something of this device's own is due."""
        due, wait = self._refill.wait_s(self.state, mono), self.state.wait
        if wait is not None and wait.until_mono > mono:
            return min(due, wait.until_mono - mono)
        if self._needs_session():
            return min(due, self._line.retry_at - mono)
        return min(due, self.lookout.again_s()) if self.because() else due

    def _needs_session(self) -> bool:
        phase = self.state.phase
        waits = isinstance(phase, Downloading | Staged) and not phase.update.bundle
        return self._line.token is None and waits

    def _poll(self) -> None:
        work = self._uplink.poll(self._free_s())
        if work is None:
            return
        if self._uplink.beat_due():
            self.feed(Beat(now=self.now(), metrics=self._metrics(), first=not self._heard))
        # A download is interrupted by a stop only. To ask what is known already would end it at every poll, and a slow one would never come to its end.
        if work and (self._active is None or self._asked_at != self._line.gate_epoch):
            self._asked_at = self._line.gate_epoch
            self.feed(Offered())
        self._send()

    def _send(self) -> bool:
        """Send what is owed. Return whether something was tried."""
        reports = outbox.owed(self.state)
        signed = outbox.needs_signature(reports)
        if signed and self._active is not None:
            return False
        if not reports or self._line.token is None or self._mono() < self._line.retry_at:
            return False
        bodies = tuple(outbox.complete(one, self.settings, self.state.boot_id) for one in reports)
        if signed:
            self._start(Sign(events=bodies))
        else:
            self._post(tuple(EventItem(body=one) for one in bodies))
        return True

    def _post(self, items: tuple[EventItem, ...]) -> None:
        upto = self._uplink.post(items)
        if upto is None:
            return
        beat = self.state.beat
        if beat is not None and beat.seq <= upto:
            self._counted, self._heard = self._beat_basis, True
            if self.ports.meters is not None:
                self.ports.meters.heard()
        self.feed(Acked(upto))

    def _metrics(self) -> Metrics:
        self._errors = self.ports.errors.read(self._errors)
        total, mono = self._errors.count, self._mono()
        self._beat_basis = (total, mono)
        errors, seconds = max(0, total - self._counted[0]), max(0, int(mono - self._counted[1]))
        meters = self.ports.meters
        named = meters.told(seconds) if meters is not None else {}
        return Metrics(errors=errors, device_s=seconds, named=named or UNSET)

    def _mono(self) -> float:
        return self.ports.clock.monotonic()


def _counted_before(state: State, boot_id: str) -> Reading | None:
    """Return how far the errors of the present warm-up were counted before this process started."""
    phase = state.phase
    if not isinstance(phase, Testing) or phase.boot_id != boot_id or phase.errors_base < 0:
        return None
    return Reading(count=max(phase.errors, phase.errors_base), mark=phase.errors_mark)


def _inline(ports: Ports, settings: Settings, flow: Flow) -> Perform:
    from tidegate.agent.worker import Worker

    return Worker(ports, settings, tap=flow.tap, connect=ports.connect).perform
