"""Whatever happens in whatever order, the machine keeps its promises."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.crash.releases import make_release

from tidegate.agent.events import (
    Acked,
    ApplyAsked,
    Arm,
    Armed,
    AskPermit,
    Assigned,
    Beat,
    Checked,
    Commit,
    Committed,
    ConfirmAsked,
    Download,
    Downloaded,
    Event,
    Failed,
    HoldAsked,
    Installed,
    Looked,
    MarkBad,
    Marked,
    Noticed,
    Offered,
    Ordered,
    PermitRefused,
    Permitted,
    ProbeResult,
    Progressed,
    ReadBack,
    Refused,
    ReleaseAsked,
    RevertAsked,
    Started,
    Witnessed,
)
from tidegate.agent.machine import step
from tidegate.agent.state import (
    Activating,
    Confirming,
    Idle,
    Order,
    Progress,
    SlotRecord,
    State,
    Update,
    Witness,
    durable,
)
from tidegate.agent.waiting import reasons
from tidegate.core.protocol import GrantUse, Metrics

RELEASES = tuple(make_release(counter).target.release for counter in (2, 3))
NONCES = ("aa" * 16, "bb" * 16)
NOW = st.integers(0, 4_000_000_000)
MONO = st.floats(0, 1e6, allow_nan=False)
REASONS = st.sampled_from(
    ["download.hash", "download.timeout", "install.readback", "activate.bootloader", "sig.threshold", "key.missing"]
)  # fmt: skip


def progress(number: int) -> Progress:
    payload = RELEASES[number].full
    return Progress(
        payload_sha256=payload.sha256, index_sha256=payload.index_sha256, slot="B", segments=1
    )


UPDATES = st.builds(
    Update,
    update=st.sampled_from(["u-1", "u-2", None]),
    attempt=st.integers(1, 2),
    action=st.sampled_from(["install", "install", "fallback"]),
    release=st.sampled_from(RELEASES),
    slot=st.just("B"),
    product_floor=st.integers(0, 9),
    allow_refused=st.booleans(),
    grant=st.one_of(
        st.none(),
        st.builds(
            GrantUse,
            epoch=st.integers(1, 2),
            serial=st.integers(1, 3),
            update=st.sampled_from(["u-1", "u-2"]),
        ),
    ),
    resume_min=st.integers(0, 5),
)
ORDERS = st.builds(Order, epoch=st.integers(0, 2), seq=st.integers(0, 50))
RESULTS = st.builds(
    ProbeResult, name=st.just("core"), reason=st.just("health.service"), ok=st.booleans()
)
EVENTS: st.SearchStrategy[Any] = st.one_of(
    st.builds(
        Started,
        now=NOW,
        mono=MONO,
        boot_id=st.sampled_from(["b-1", "b-2", "b-3"]),
        current=st.sampled_from(["A", "A", "B"]),
        primary=st.sampled_from(["A", "B"]),
        marks=st.fixed_dictionaries(
            {one: st.sampled_from(["good", "trial", "bad"]) for one in ("A", "B")}
        ),
        tries=st.fixed_dictionaries({one: st.integers(0, 3) for one in ("A", "B")}),
    ),
    st.builds(
        Looked,
        now=NOW,
        mono=MONO,
        nonce=st.sampled_from(NONCES),
        download_open=st.booleans(),
        activate_open=st.booleans(),
        online=st.just(True),
    ),
    st.just(Offered()),
    st.builds(Assigned, now=NOW, order=ORDERS, update=UPDATES),
    st.builds(Ordered, now=NOW, order=ORDERS, action=st.sampled_from(["hold", "none"])),
    st.builds(Refused, now=NOW, reason=REASONS, update=st.sampled_from(["u-1", "u-9", None])),
    st.builds(Marked, now=NOW, slot=st.sampled_from(["A", "B"])),
    st.builds(Progressed, now=NOW, progress=st.sampled_from([progress(0), progress(1)])),
    st.builds(Downloaded, now=NOW, progress=st.just(progress(0))),
    st.builds(Installed, now=NOW),
    st.builds(Failed, now=NOW, mono=MONO, reason=REASONS, retryable=st.booleans()),
    st.builds(Permitted, now=NOW, mono=MONO, nonce=st.sampled_from(NONCES), permit=st.just("p")),
    st.builds(PermitRefused, now=NOW, mono=MONO, because=st.just("no"), retry_after_s=st.just(60)),
    st.builds(Armed, now=NOW),
    st.builds(Checked, now=NOW, mono=MONO, results=st.tuples(RESULTS), errors=st.integers(0, 50)),
    st.builds(Committed, now=NOW),
    st.builds(Acked, seq=st.integers(0, 60)),
    st.builds(Beat, now=NOW, metrics=st.just(Metrics())),
    st.builds(HoldAsked, now=NOW, reason=st.just("x"), until_at=NOW),
    st.builds(ReleaseAsked, now=NOW),
    st.builds(ApplyAsked, now=NOW),
    st.builds(ConfirmAsked, now=NOW),
    st.builds(RevertAsked, now=NOW, reason=st.just("x")),
    st.builds(Noticed, now=NOW, reason=st.just("security.freeze"), log=st.sampled_from(["", "x"])),
    st.builds(Witnessed, witness=st.builds(Witness, note=st.sampled_from(["a", "b"]))),
)


def begin() -> State:
    slots = {"A": SlotRecord(state="confirmed", release_counter=1, sha256="1" * 64)}
    slots["B"] = SlotRecord()
    return State(slots=slots, current="A", boot_id="b-1")


#: The straight way through an update: stories begin anywhere on it, so that chance does not have to find the way there.
WAY: tuple[Event, ...] = (
    Assigned(
        now=1,
        order=Order(epoch=1, seq=1),
        update=Update(update="u-1", release=RELEASES[0], slot="B", product_floor=9),
    ),
    Marked(now=1, slot="B"),
    Downloaded(now=1, progress=progress(0)),
    Installed(now=1),
    Looked(now=1, mono=5.0, nonce=NONCES[0]),
    Permitted(now=1, mono=6.0, nonce=NONCES[0], permit="p"),
    Armed(now=1),
    Started(
        now=1,
        mono=1.0,
        boot_id="b-2",
        current="B",
        primary="A",
        marks={"A": "good", "B": "trial"},
        tries={"A": 0, "B": 2},
    ),
    Checked(
        now=1,
        mono=2.0,
        results=(ProbeResult(name="core", reason="health.service", ok=True),),
        errors=0,
    ),
    Checked(
        now=1,
        mono=50.0,
        results=(ProbeResult(name="core", reason="health.service", ok=True),),
        errors=0,
    ),
    Committed(now=1),
)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(WAY)), st.lists(EVENTS, max_size=60))
def test_every_promise_holds_over_any_story(begun: int, events: list[Event]) -> None:
    state = begin()
    for event in WAY[:begun]:
        state, _ = step(state, event)
    used = {one.seq for one in state.outbox}
    for event in events:
        after, effects = step(state, event)
        _counters_never_go_back(state, after)
        _numbers_are_used_once(state, after, used)
        _effects_fit_the_state(after, effects)
        _survives_a_power_cut(after)
        if isinstance(event, Looked) and reasons(_without_old_hold(state, event), event):
            assert effects == ()
        state = after


def _without_old_hold(state: State, event: Looked) -> State:
    """A look ends a hold whose time is up before it asks anything else."""
    over = state.hold is not None and event.now >= state.hold.until_at
    return msgspec.structs.replace(state, hold=None) if over else state


def _counters_never_go_back(before: State, after: State) -> None:
    assert after.floor >= before.floor
    orders = [(one.order.epoch, one.order.seq) for one in (before, after)]
    assert orders[0] <= orders[1]
    assert after.next_seq >= before.next_seq
    uses = [one.fallback_last.get("gw1", GrantUse()) for one in (before, after)]
    assert (uses[0].epoch, uses[0].serial, uses[0].done) <= (
        uses[1].epoch, uses[1].serial, uses[1].done
    )  # fmt: skip
    assert after.resume_min.get("gw1", 0) >= before.resume_min.get("gw1", 0)
    assert after.reserved_seq >= before.reserved_seq


def _numbers_are_used_once(before: State, after: State, used: set[int]) -> None:
    sequence = [one.seq for one in after.outbox]
    assert sequence == sorted(set(sequence))
    assert all(seq < after.next_seq <= after.reserved_seq for seq in sequence)
    if len(after.outbox) > len(before.outbox):
        new = {one.seq for one in after.outbox} - {one.seq for one in before.outbox}
        assert not new & used
        used |= new


def _effects_fit_the_state(state: State, effects: tuple[object, ...]) -> None:
    phase = state.phase
    for effect in effects:
        if isinstance(effect, Arm):
            # Armed is only what was read back whole, with leave, and never the running slot.
            assert isinstance(phase, Activating)
            record = state.slots[effect.slot]
            assert record.sha256 == phase.update.release.install.sha256
            assert record.state in ("staged", "confirmed", "trying")
        if isinstance(effect, Commit):
            assert isinstance(phase, Confirming)
        if isinstance(effect, Download):
            assert state.slots[effect.update.slot].state == "writing"
        if isinstance(effect, AskPermit):
            assert state.slots[effect.update.slot].sha256 is not None
        if isinstance(effect, MarkBad | ReadBack):
            assert not isinstance(phase, Idle)


def _survives_a_power_cut(state: State) -> None:
    kept = durable(state)
    read = msgspec.json.decode(msgspec.json.encode(kept), type=State)
    assert read == kept
    assert durable(read) == read
    assert read.next_seq >= state.next_seq


def test_the_straight_way_leads_to_a_confirmed_update() -> None:
    state = begin()
    for event in WAY:
        state, _ = step(state, event)
    assert (state.phase, state.outbox[-1].kind) == (Idle(), "confirmed")
