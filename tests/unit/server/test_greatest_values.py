"""Devices may say the greatest number and the longest text that the protocol lets them: no database may find it too great, or a device is silent for ever."""

from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect
from tests.unit.server.rig import Answer, Rig

from tidegate.core.protocol import (
    AssignmentRequest,
    DeviceState,
    EventBody,
    EventKind,
    EventsRequest,
    PermitRequest,
    Restart,
    SlotState,
)


def greatest(field: msgspec.inspect.Field) -> list[Any]:
    """Return the greatest values of a field: of a number, or of a text that needs no form."""
    kinds = [field.type, *getattr(field.type, "types", ())]
    numbers = [one.le for one in kinds if isinstance(one, inspect.IntType)]
    texts = [
        "x" * (one.max_length or 0)
        for one in kinds
        if isinstance(one, inspect.StrType) and one.pattern is None
    ]
    return [*numbers, *texts]


def cases(kind: type[msgspec.Struct], *but: str) -> list[tuple[str, Any]]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return [
        (field.name, value)
        for field in info.fields
        if field.name not in but
        for value in greatest(field)
    ]


@pytest.mark.parametrize(
    ("name", "value"), cases(EventBody, "spec", "device_id", "update", "nonce")
)
def test_in_an_event(rig: Rig, name: str, value: Any) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(2))
    device = rig.device()
    body = device.assignment()
    for kind in ("downloading", "heartbeat", "failed"):
        assert kind in get_args(EventKind)
        items = [device.event(kind, body, **{name: value}), device.event("heartbeat")]
        answer = device.ask("POST", "/d/v1/events", EventsRequest(events=tuple(items)))
        assert answer.status == 200, answer.body
        device.seq += 10


@pytest.mark.parametrize(("name", "value"), cases(Restart))
def test_of_a_restart(rig: Rig, name: str, value: Any) -> None:
    device = rig.device()
    for _ in range(2):
        restart = msgspec.structs.replace(Restart(boot_id="b"), **{name: value})
        device.tell("heartbeat", restart=restart)


def asked(rig: Rig, **says: Any) -> Answer:
    device = rig.device()
    state = DeviceState(
        hardware=device.hardware, channel="stable", agent="1.0.0", boot_id="b", running="A",
        slots={"A": SlotState(state="confirmed"), "B": SlotState(state="empty")},
    )  # fmt: skip
    state = msgspec.structs.replace(state, **says)
    return device.ask("POST", "/d/v1/assignment", AssignmentRequest(nonce="0" * 32, state=state))


@pytest.mark.parametrize(("name", "value"), cases(DeviceState, "running", "channel"))
def test_in_what_a_device_says_of_itself(rig: Rig, name: str, value: Any) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(2))
    answer = asked(rig, **{name: value})
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(("name", "value"), cases(SlotState))
def test_of_a_slot(rig: Rig, name: str, value: Any) -> None:
    rig.publish_trust()
    slots = {
        "A": SlotState(state="confirmed", **{name: value}),
        "B": SlotState(state="empty"),
    }
    answer = asked(rig, slots=slots)
    assert answer.status == 200, answer.body


@pytest.mark.parametrize(("name", "value"), cases(PermitRequest, "nonce", "slot_sha256", "update"))
def test_in_a_question_for_a_permit(rig: Rig, name: str, value: Any) -> None:
    rig.publish_trust()
    rig.rollout(rig.release(2))
    device = rig.device()
    body = device.assignment()
    assert body.target is not None
    request = PermitRequest(
        nonce="0" * 32, update=body.update or "", attempt=body.attempt,
        slot_sha256=body.target.sha256, release_counter=body.target.release_counter,
    )  # fmt: skip
    answer = device.ask("POST", "/d/v1/permit", msgspec.structs.replace(request, **{name: value}))
    # another attempt than the present one is no leave, and no fault
    assert answer.status == (409 if name == "attempt" else 200), answer.body
