"""What the device decides, event by event."""

from typing import Any

import msgspec
import pytest
from tests.crash.releases import Release, make_release

from tidegate.agent.events import (
    Acked,
    Arm,
    Armed,
    AskPermit,
    Assigned,
    Beat,
    Checked,
    CheckHealth,
    Commit,
    Committed,
    Download,
    Downloaded,
    Effect,
    Event,
    Failed,
    HoldAsked,
    Installed,
    Looked,
    MarkBad,
    Marked,
    Offered,
    Ordered,
    PermitRefused,
    Permitted,
    ProbeResult,
    Progressed,
    ReadBack,
    Reboot,
    Refresh,
    Refused,
    Started,
)
from tidegate.agent.homecoming import REBOOT_AGAIN_S
from tidegate.agent.machine import NONCE_AGE_S, STALL_LIMIT, step
from tidegate.agent.state import (
    Activating,
    Confirming,
    Downloading,
    Idle,
    Installing,
    Order,
    Progress,
    Reverting,
    SlotRecord,
    Staged,
    State,
    Update,
    durable,
)
from tidegate.agent.state import (
    Testing as OnTrial,
)
from tidegate.core.codec import INTEGER_MAX
from tidegate.core.protocol import PERMIT_VALID_S, DeliveryPolicy, Metrics
from tidegate.core.release import HealthContract

NOW = 1_795_000_000
RELEASE: Release = make_release(2)
TARGET = RELEASE.target.release


def update(**changes: object) -> Update:
    made = Update(update="u-1", release=TARGET, slot="B", from_counter=1, product_floor=9)
    return msgspec.structs.replace(made, **changes)


def idle() -> State:
    slots = {"A": SlotRecord(state="confirmed", release_counter=1, sha256="1" * 64)}
    slots["B"] = SlotRecord()
    return State(slots=slots, current="A", boot_id="boot-1")


def looked(mono: float = 100.0, **changes: Any) -> Looked:
    return msgspec.structs.replace(Looked(now=NOW, mono=mono, nonce="ab" * 16), **changes)


def run(state: State, *events: Event) -> State:
    for event in events:
        state, _ = step(state, event)
    return state


def effects(state: State, event: Event) -> tuple[Effect, ...]:
    return step(state, event)[1]


def kinds(state: State) -> list[str]:
    return [one.kind for one in state.outbox]


def assigned(made: Update | None = None, seq: int = 1) -> Assigned:
    return Assigned(now=NOW, order=Order(epoch=1, seq=seq), update=made or update())


def progress(segments: int = 1) -> Progress:
    payload = TARGET.full
    return Progress(
        payload_sha256=payload.sha256,
        index_sha256=payload.index_sha256,
        slot="B",
        segments=segments,
        stored_bytes=segments * 1000,
    )


def staged(**changes: object) -> State:
    return run(
        idle(),
        assigned(update(**changes)),
        Marked(now=NOW, slot="B"),
        Downloaded(now=NOW, progress=progress(3)),
        Installed(now=NOW),
    )


def asked() -> State:
    return run(staged(), looked())


def permitted() -> State:
    return run(asked(), Permitted(now=NOW, mono=101.0, nonce="ab" * 16, permit="p-1"))


def started(current: str, boot: str = "boot-2", **changes: object) -> Started:
    made = Started(
        now=NOW,
        mono=5.0,
        boot_id=boot,
        current=current,
        primary="A",
        marks={"A": "good", "B": "trial"},
        tries={"A": 0, "B": 2},
    )
    return msgspec.structs.replace(made, **changes)


def on_trial() -> State:
    return run(permitted(), Armed(now=NOW), started("B"))


def checked(mono: float, *, ok: bool = True, errors: int = 0) -> Checked:
    result = ProbeResult(name="core", reason="health.service", ok=ok, detail="x")
    return Checked(now=NOW, mono=mono, results=(result,), errors=errors)


# --- the way there ---


def test_a_hint_asks_for_the_assignment_and_changes_nothing() -> None:
    state = idle()
    assert step(state, Offered()) == (state, (Refresh(),))


def test_no_order_is_asked_for_while_an_image_is_on_trial() -> None:
    assert effects(on_trial(), Offered()) == ()


def test_the_candidate_is_marked_bad_before_its_first_byte_is_overwritten() -> None:
    state = run(idle(), assigned())
    assert effects(state, looked()) == (MarkBad(slot="B"),)
    state = run(state, Marked(now=NOW, slot="B"))
    assert effects(state, looked()) == (Download(update=update(), progress=None),)
    assert state.slots["B"].state == "writing"


def test_nothing_is_downloaded_outside_the_window_or_before_its_time() -> None:
    state = run(idle(), assigned())
    assert effects(state, looked(download_open=False)) == ()
    later = update(policy=DeliveryPolicy(not_before=NOW + 10))
    assert effects(run(idle(), assigned(later)), looked()) == ()


def test_a_download_goes_on_from_where_it_was_durable() -> None:
    state = run(idle(), assigned(), Marked(now=NOW, slot="B"))
    state = run(state, Progressed(now=NOW, progress=progress(2)))
    assert effects(state, looked()) == (Download(update=update(), progress=progress(2)),)


def test_a_download_that_was_put_aside_is_resumed_when_it_is_ordered_again() -> None:
    state = run(idle(), assigned(), Marked(now=NOW, slot="B"))
    state = run(state, Progressed(now=NOW, progress=progress(2)))
    state = run(state, Ordered(now=NOW, order=Order(epoch=1, seq=2), action="none"))
    assert state.phase == Idle()
    state = run(state, assigned(seq=3))
    assert effects(state, looked()) == (Download(update=update(), progress=progress(2)),)


def test_downloaded_bytes_are_read_back_before_they_count_as_staged() -> None:
    state = run(idle(), assigned(), Marked(now=NOW, slot="B"))
    state = run(state, Downloaded(now=NOW, progress=progress(3)))
    assert isinstance(state.phase, Installing)
    assert effects(state, looked()) == (ReadBack(update=update()),)
    assert state.slots["B"].state == "writing"
    assert isinstance(staged().phase, Staged)
    assert staged().slots["B"].sha256 == TARGET.install.sha256


def test_an_image_that_is_read_back_wrong_is_fetched_once_more_and_then_given_up() -> None:
    wrong = Failed(now=NOW, mono=100.0, reason="install.readback")
    again = (Marked(now=NOW, slot="B"), Downloaded(now=NOW, progress=progress(3)))
    state = run(idle(), assigned(), *again, wrong)
    assert isinstance(state.phase, Downloading)
    state = run(state, *again, wrong)
    assert state.phase == Idle()
    assert (state.outbox[-1].kind, state.outbox[-1].reason) == ("failed", "install.readback")


def test_a_slot_that_holds_the_image_already_is_only_read_back() -> None:
    state = run(staged(), Ordered(now=NOW, order=Order(epoch=1, seq=2), action="none"))
    state = run(state, assigned(update(update="u-2"), seq=3))
    assert isinstance(state.phase, Installing)


@pytest.mark.parametrize(("reason", "limit"), [("download.hash", 3), ("download.range", 6)])
def test_a_bad_answer_is_tried_again_a_few_times(reason: str, limit: int) -> None:
    state = run(idle(), assigned(), Marked(now=NOW, slot="B"))
    bad = Failed(now=NOW, mono=100.0, reason=reason, retryable=True)
    for _ in range(limit - 1):
        state = run(state, bad)
        assert isinstance(state.phase, Downloading)
        assert effects(state, looked(101.0)) == ()
    state = run(state, bad)
    assert (state.phase, state.outbox[-1].reason) == (Idle(), reason)


def test_a_server_that_cannot_be_reached_is_waited_for_without_end() -> None:
    state = run(idle(), assigned(), Marked(now=NOW, slot="B"))
    for _ in range(STALL_LIMIT - 1):
        state = run(state, Failed(now=NOW, mono=0.0, reason="download.timeout", retryable=True))
    assert isinstance(state.phase, Downloading)
    assert kinds(state) == ["downloading"]


def test_an_update_that_goes_in_circles_is_given_up() -> None:
    state = run(idle(), assigned(), Marked(now=NOW, slot="B"))
    for number in range(STALL_LIMIT + 2):
        state = run(state, started("A", f"boot-{number}", marks={"A": "good", "B": "bad"}))
        state = run(state, Failed(now=NOW, mono=0.0, reason="download.slow", retryable=True))
        state = run(state, Progressed(now=NOW, progress=progress(0)))
    assert state.phase == Idle()
    assert state.outbox[-1].reason == "agent.loop"


# --- the permit ---


def test_leave_is_asked_for_with_a_nonce_that_is_written_down_first() -> None:
    state, asked_for = step(staged(), looked())
    assert isinstance(state.phase, Staged)
    assert state.phase.nonce == "ab" * 16
    assert asked_for == (AskPermit(update=update(), nonce="ab" * 16),)


def test_the_same_question_is_asked_again_until_it_grows_old() -> None:
    state = asked()
    soon = looked(100.0 + NONCE_AGE_S, nonce="cd" * 16)
    assert effects(state, soon) == (AskPermit(update=update(), nonce="ab" * 16),)
    late = looked(101.0 + NONCE_AGE_S, nonce="cd" * 16)
    assert effects(state, late) == (AskPermit(update=update(), nonce="cd" * 16),)


def test_leave_that_may_have_been_granted_unheard_is_given_back() -> None:
    late = looked(101.0 + NONCE_AGE_S, nonce="cd" * 16)
    assert kinds(run(asked(), late))[-1] == "permit_returned"
    refused = PermitRefused(now=NOW, mono=101.0, because="no", retry_after_s=60)
    assert "permit_returned" not in kinds(run(asked(), refused, late))


def test_without_leave_the_slot_stays_inert() -> None:
    refused = PermitRefused(now=NOW, mono=101.0, because="halted", retry_after_s=60)
    state = run(asked(), refused)
    assert effects(state, looked(160.0)) == ()
    assert effects(state, looked(162.0)) == (AskPermit(update=update(), nonce="ab" * 16),)


def test_leave_for_another_question_is_not_taken() -> None:
    other = Permitted(now=NOW, mono=101.0, nonce="cd" * 16, permit="p-1")
    assert run(asked(), other) == asked()


def test_leave_that_comes_too_late_is_given_back() -> None:
    late = Permitted(now=NOW, mono=101.0 + PERMIT_VALID_S, nonce="ab" * 16, permit="p-1")
    state = run(asked(), late)
    assert isinstance(state.phase, Staged)
    assert kinds(state)[-1] == "permit_returned"


def test_with_leave_the_boot_flag_is_set_and_then_the_device_restarts() -> None:
    state = permitted()
    assert effects(state, looked(102.0)) == (Arm(slot="B", tries=3),)
    after, reboot = step(state, Armed(now=NOW))
    assert reboot == (Reboot(),)
    assert kinds(after)[-1] == "rebooting"


def test_leave_of_an_earlier_boot_is_not_used() -> None:
    state = run(permitted(), started("A", marks={"A": "good", "B": "bad"}))
    assert isinstance(state.phase, Staged)
    assert kinds(state)[-1] == "permit_returned"


def test_leave_is_not_used_in_its_last_seconds() -> None:
    assert effects(permitted(), looked(100.0 + PERMIT_VALID_S - 5)) == ()


@pytest.mark.parametrize(
    "change",
    [{"activate_open": False}, {"inhibitors": ("a patient is connected",)}, {"online": False}],
)
def test_window_inhibitor_and_silence_hold_the_activation(change: dict[str, object]) -> None:
    assert effects(staged(), msgspec.structs.replace(looked(), **change)) == ()


def test_a_hold_stops_the_activation_until_it_ends_by_itself() -> None:
    state = run(staged(), HoldAsked(now=NOW, reason="field test", until_at=NOW + 60))
    assert effects(state, looked()) == ()
    assert effects(state, looked(now=NOW + 60)) != ()


def test_a_hold_that_comes_while_leave_is_asked_for_gives_it_back() -> None:
    state = run(asked(), HoldAsked(now=NOW, reason="no", until_at=NOW + 60))
    state = run(state, Permitted(now=NOW, mono=101.0, nonce="ab" * 16, permit="p-1"))
    assert isinstance(state.phase, Staged)
    assert kinds(state)[-1] == "permit_returned"


def test_the_servers_hold_keeps_the_slot_inert_until_it_orders_again() -> None:
    state = run(staged(), Ordered(now=NOW, order=Order(epoch=1, seq=2), action="hold"))
    assert effects(state, looked()) == ()
    assert effects(run(state, assigned(seq=3)), looked()) != ()


def test_manual_activation_waits_for_a_person() -> None:
    from tidegate.agent.events import (
        ApplyAsked,
    )

    state = staged(policy=DeliveryPolicy(activate="manual"))
    assert effects(state, looked()) == ()
    assert effects(run(state, ApplyAsked(now=NOW)), looked()) != ()


# --- the trial ---


def test_the_candidate_is_tested_when_it_came_up() -> None:
    state = on_trial()
    assert isinstance(state.phase, OnTrial)
    assert effects(state, looked(6.0)) == (CheckHealth(contract=TARGET.health),)
    assert kinds(state)[-1] == "verifying"


def test_it_is_confirmed_only_when_all_passed_for_the_whole_warm_up() -> None:
    state = run(on_trial(), checked(10.0), checked(20.0))
    assert isinstance(state.phase, OnTrial)
    state = run(state, checked(30.0))
    assert isinstance(state.phase, Confirming)
    assert effects(state, looked(31.0)) == (Commit(slot="B"),)


def test_a_check_that_fails_starts_the_warm_up_again() -> None:
    state = run(on_trial(), checked(10.0), checked(20.0, ok=False), checked(30.0), checked(40.0))
    assert isinstance(state.phase, OnTrial)


def test_the_warm_up_outlives_a_restart_of_the_agent_but_not_of_the_device() -> None:
    state = run(on_trial(), checked(10.0))
    assert isinstance(run(state, started("B"), checked(30.0)).phase, Confirming)
    assert isinstance(run(state, started("B", "boot-3"), checked(30.0)).phase, OnTrial)


def test_unhealthy_at_the_end_of_its_time_it_goes_back_with_the_checks_reason() -> None:
    state = run(on_trial(), checked(10.0, ok=False), checked(66.0, ok=False))
    assert isinstance(state.phase, Reverting)
    assert state.phase.reason == "health.service"


def test_flapping_to_the_end_is_a_timeout() -> None:
    state = run(on_trial(), checked(50.0, ok=False), checked(66.0))
    assert isinstance(state.phase, Reverting)
    assert state.phase.reason == "health.timeout"


def test_too_many_errors_in_the_warm_up_end_it_at_once() -> None:
    strict = msgspec.structs.replace(
        TARGET, health=HealthContract(warmup_s=3600, timeout_s=7200, error_rate_per_hour=5)
    )
    state = run(idle(), assigned(update(release=strict)), Marked(now=NOW, slot="B"))
    state = run(state, Downloaded(now=NOW, progress=progress()), Installed(now=NOW), looked())
    state = run(state, Permitted(now=NOW, mono=101.0, nonce="ab" * 16, permit="p"))
    state = run(state, Armed(now=NOW), started("B"), checked(10.0, errors=5))
    assert isinstance(state.phase, OnTrial)
    state = run(state, checked(20.0, errors=6))
    assert isinstance(state.phase, Reverting)
    assert state.phase.reason == "health.error_rate"


def test_confirmed_it_is_reported_once_and_the_floor_rises_to_the_lower_of_the_two() -> None:
    confirming = run(on_trial(), checked(10.0), checked(30.0))
    state = run(confirming, Committed(now=NOW), Committed(now=NOW))
    assert kinds(state).count("confirmed") == 1
    assert state.floor == min(TARGET.security_version, 9)
    assert state.slots["B"].state == "confirmed"
    assert (confirming.floor, confirming.slots["A"].state) == (0, "confirmed")


def test_a_floor_never_falls() -> None:
    state = msgspec.structs.replace(run(on_trial(), checked(10.0), checked(30.0)), floor=77)
    assert run(state, Committed(now=NOW)).floor == 77


def test_going_back_marks_the_slot_bad_then_restarts_then_reports() -> None:
    state = run(on_trial(), checked(10.0, ok=False), checked(66.0, ok=False))
    assert effects(state, looked(67.0)) == (MarkBad(slot="B"),)
    state = run(state, Marked(now=NOW, slot="B"))
    assert effects(state, looked(68.0)) == (Reboot(),)
    assert "reverted" not in kinds(state)
    state = run(state, started("A", "boot-3", marks={"A": "good", "B": "bad"}))
    assert (state.phase, kinds(state)[-1]) == (Idle(), "reverted")
    assert state.refused[0].sha256 == TARGET.install.sha256


def test_a_boot_loader_that_gave_up_is_a_revert_with_its_reason() -> None:
    back = started("A", tries={"A": 0, "B": 0})
    state = run(permitted(), Armed(now=NOW), back, Marked(now=NOW, slot="B"))
    assert (state.outbox[-1].kind, state.outbox[-1].reason) == (
        "reverted",
        "boot.counter_exhausted",
    )


def test_what_was_reverted_is_not_tried_again_unless_the_server_says_so() -> None:
    back = started("A", tries={"A": 0, "B": 0})
    state = run(permitted(), Armed(now=NOW), back, Marked(now=NOW, slot="B"))
    again = run(state, assigned(update(update="u-2"), seq=2))
    assert (again.phase, again.outbox[-1].kind) == (Idle(), "declined")
    told = run(state, assigned(update(update="u-2", allow_refused=True), seq=2))
    assert isinstance(told.phase, Downloading)


def test_an_attempt_that_ended_starts_nothing_when_it_is_ordered_again() -> None:
    state = run(on_trial(), checked(10.0), checked(30.0), Committed(now=NOW))
    again = run(state, assigned(seq=2))
    assert (again.phase, again.outbox) == (Idle(), state.outbox)


def test_an_unknown_image_on_trial_is_not_kept() -> None:
    state = run(idle(), started("B"))
    assert isinstance(state.phase, Reverting)
    assert state.phase.reason == "agent.state_damaged"


# --- what is told ---


def test_a_refusal_names_the_update_when_one_could_be_trusted() -> None:
    no = Refused(now=NOW, reason="compat.hardware", update="u-9", release_counter=7)
    state = run(idle(), no)
    assert [(one.kind, one.reason, one.update) for one in state.outbox] == [
        ("security", "compat.hardware", "u-9"),
        ("failed", "compat.hardware", "u-9"),
    ]


def test_a_forged_assignment_is_a_security_event_and_told_once_an_hour() -> None:
    no = Refused(now=NOW, reason="sig.unknown_key")
    state = run(idle(), no, no)
    assert kinds(state) == ["security"]
    later = msgspec.structs.replace(no, now=NOW + 3600)
    assert kinds(run(state, later)) == ["security", "security"]


def test_reports_leave_the_outbox_only_when_the_server_holds_them() -> None:
    state = staged()
    assert kinds(run(state, Acked(1))) == ["staged"]
    assert kinds(run(state, Acked(0))) == ["downloading", "staged"]


def test_heartbeats_need_a_journal_write_only_once_a_block_of_numbers() -> None:
    state = run(idle(), Beat(now=NOW, metrics=Metrics()))
    again = run(state, Beat(now=NOW, metrics=Metrics(errors=3)))
    assert durable(again) == durable(state)
    assert state.beat is not None
    assert again.beat is not None
    assert again.beat.seq == state.beat.seq + 1


def test_numbers_of_heartbeats_are_not_used_again_after_a_restart() -> None:
    state = run(idle(), Beat(now=NOW, metrics=Metrics()), Beat(now=NOW, metrics=Metrics()))
    assert state.beat is not None
    kept = msgspec.json.decode(msgspec.json.encode(durable(idle())), type=State)
    kept = msgspec.structs.replace(kept, reserved_seq=state.reserved_seq)
    restarted = run(kept, started("A", marks={"A": "good", "B": "good"}))
    assert restarted.next_seq > state.beat.seq


def test_after_the_loss_of_the_journal_reports_get_numbers_that_the_server_does_not_hold() -> None:
    state = run(staged(), Acked(500))
    assert [one.seq for one in state.outbox] == [501, 502]
    assert state.next_seq > 502


def test_a_server_that_lies_about_what_it_heard_uses_up_no_numbers() -> None:
    state = staged()
    for lie in (INTEGER_MAX, INTEGER_MAX - 5, 1 << 51):
        state = run(state, Acked(lie))
    assert kinds(state) == ["downloading", "staged"]
    for _ in range(1000):
        state = run(state, Acked(max(state.next_seq, (1 << 51) - 1)))
    assert state.next_seq < INTEGER_MAX // 2, "another server takes what comes next"


def test_a_journal_of_a_newer_agent_is_read_without_what_it_does_not_know() -> None:
    plain = msgspec.json.decode(msgspec.json.encode(on_trial()))
    plain["format"] = 2
    plain["phase"]["invented"] = {"by": "a later version"}
    plain["also"] = 1
    read = msgspec.json.decode(msgspec.json.encode(plain), type=State)
    assert read.phase == on_trial().phase


def test_an_activating_phase_is_a_state_of_its_own() -> None:
    assert isinstance(permitted().phase, Activating)


def test_waiting_for_weeks_with_the_same_order_is_no_circle() -> None:
    state = staged()
    for seq in range(2, 3 * STALL_LIMIT):
        state = run(state, assigned(seq=seq), looked(seq * 400.0, nonce=f"{seq:032x}"))
        state = run(state, PermitRefused(now=NOW, mono=seq * 400.0, because="no", retry_after_s=60))
    assert isinstance(state.phase, Staged)


def test_forged_metadata_do_not_end_what_was_verified_before_and_a_withdrawal_does() -> None:
    forged = Refused(now=NOW, reason="sig.threshold", update="u-1")
    state = run(staged(), forged)
    assert isinstance(state.phase, Staged)
    assert (state.outbox[-1].kind, state.outbox[-1].reason) == ("security", "sig.threshold")
    withdrawn = Refused(now=NOW, reason="sig.director_mismatch", update="u-1")
    state = run(staged(), withdrawn)
    assert (state.phase, state.outbox[-1].reason) == (Idle(), "sig.director_mismatch")


def test_a_restart_that_does_not_come_is_asked_for_again_after_a_pause() -> None:
    state = run(permitted(), Armed(now=NOW))
    assert effects(state, looked(102.0)) == (Reboot(),)
    again = run(state, started("A", boot="boot-1", mono=103.0))
    assert isinstance(again.phase, Activating)
    assert again.wait is not None
    assert again.wait.code == "wait.reboot"
    assert effects(again, looked(110.0)) == ()
    assert effects(again, looked(103.0 + REBOOT_AGAIN_S)) == (Reboot(),)
