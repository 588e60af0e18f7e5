"""The clock of one replica is stepped by an hour: nothing that was told is lost, and a halt of either holds at the other."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.test_shared import OLGA, Pair

from tidegate.core.protocol import (
    AssignmentBody,
    EventItem,
    EventsAnswer,
    EventsRequest,
    PermitAnswer,
    PermitRequest,
)
from tidegate.server.operations import Operations
from tidegate.server.store import Connection
from tidegate.server.store.raw import raw_connection
from tidegate.server.tokens import SKEW_S, Tokens

HOUR_S = 3_600


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "data")
    yield made
    made.close()


def _reports(conn: Connection) -> list[tuple[int, int]]:
    asked = "SELECT seq, count(*) FROM event WHERE kind = 'heartbeat' GROUP BY seq ORDER BY seq"
    return [(int(seq), int(count)) for seq, count in raw_connection(conn).execute(asked)]


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
@pytest.mark.parametrize("stepped_halts", [True, False])
def test_a_replica_whose_clock_steps_loses_nothing_and_goes_past_no_halt(
    pair: Pair, by_s: int, stepped_halts: bool
) -> None:
    pair.one.publish_trust()
    pair.one.rollout(pair.one.release(1))
    here, there = pair.device()
    order = here.assignment()
    here.tell("staged", order, bytes=1)
    pair.two.now += by_s
    for seq in range(10, 20):
        sent = here.event("heartbeat")
        assert sent.body is not None
        sent = EventItem(body=msgspec.structs.replace(sent.body, seq=seq))
        # as a device does: one that has no session here, since it is from the future, finds the other
        first, other = (there, here) if seq % 2 else (here, there)
        request = EventsRequest(events=(sent,))
        answer = first.ask("POST", "/d/v1/events", request)
        if answer.status != 200:
            assert answer.code == "session.expired"
            answer = other.ask("POST", "/d/v1/events", request)
        assert answer.as_(EventsAnswer).acked_seq == seq
    told = [(seq, 1) for seq in range(10, 20)]
    assert [one for one in pair.one.read(_reports) if one[0] >= 10] == told
    rig, asked = (pair.two, here) if stepped_halts else (pair.one, there)
    _halt(rig, int(rig.now))
    answer = asked.ask("POST", "/d/v1/permit", _asked(order))
    if answer.status == 200:
        assert "halted" in answer.as_(PermitAnswer).because
        assert answer.as_(PermitAnswer).envelope is None
    else:
        assert answer.code == "session.expired"


def _asked(order: AssignmentBody) -> PermitRequest:
    assert order.target is not None
    return PermitRequest(
        nonce="ab" * 16,
        update=order.update or "",
        attempt=order.attempt,
        slot_sha256=order.target.sha256,
        release_counter=order.target.release_counter,
    )


def _halt(rig: Rig, at: int) -> None:
    services = rig.app.services
    Operations(services).act("r-gw1-1.1.0", "halt", OLGA, "why", at, detail={})
    services.store.settle()


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
def test_a_session_of_a_replica_whose_clock_is_off_is_one_for_the_others_too(
    pair: Pair, by_s: int
) -> None:
    here, there = pair.device()
    pair.two.now += by_s
    pair.two.app.services.tokens.ahead = lambda: by_s  # as it measures it, where there is a server

    def both_know(token: str) -> bool:
        here.token = there.token = token
        for rig in (pair.one, pair.two):
            rig.app.store.settle()
        return [one.ask("GET", "/d/v1/poll").status for one in (here, there)] == [200, 200]

    assert both_know(here.token), "from before"
    there.log_in()
    late = there.token
    assert both_know(late), "from the one that is off"
    for rig in (pair.one, pair.two):
        rig.now += 1
    here.log_in()
    assert both_know(here.token), "and the next one, from the other"
    here.token = there.token = late
    assert [one.ask("GET", "/d/v1/poll").status for one in (here, there)] == [401, 401]


def test_a_clock_that_is_a_little_off_is_gone_by() -> None:
    tokens = Tokens(b"s" * 32, bytes, ahead=lambda: SKEW_S)
    assert tokens.agreed(10_000) == 10_000
    tokens.ahead = lambda: -SKEW_S - 1
    assert tokens.agreed(10_000) == 10_000 + SKEW_S + 1
