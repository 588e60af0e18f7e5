"""PostgreSQL gone, restarted, reading only, or ending a connection in the midst of a question: whoever asks gets a clear problem with a code, never a 500."""

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from litestar.exceptions import LitestarException
from sqlalchemy import Engine, event
from tests import postgres
from tests.unit.server.caller import Route, ask_over
from tests.unit.server.rig import Answer, Rig, ask
from tests.unit.server.test_roles_and_routes import Callers, Things, _looked_at

from tidegate.core.errors import HINTS
from tidegate.core.hardware import Hardware
from tidegate.core.protocol import (
    AssignmentRequest,
    DeviceState,
    EventsRequest,
    LogRequest,
    PermitRequest,
    SlotState,
    TimeRequest,
)
from tidegate.server.scopes import PLACES
from tidegate.server.store import Connection, hot
from tidegate.server.store.postgres import wire_of

OWNER = ("owner",)
#: What may be said of a database that does not do its work.
AWAY = {"data.unreachable", "data.outcome_unknown", "server.busy"}
_STATE = DeviceState(
    hardware=Hardware("gw1", 1), channel="stable", agent="1.0.0", boot_id="b", running="A",
    slots={"A": SlotState(state="confirmed"), "B": SlotState(state="empty")},
)  # fmt: skip
_CODE = re.compile(r"<code>([a-z_.]+)</code>")


class House:
    """A server whose PostgreSQL the test may harm."""

    def __init__(self, folder: Path) -> None:
        self.database = postgres.Server()
        self.url = self.database.migrated()
        self.name = self.url.rpartition("/")[2]
        self.rig = Rig(folder, url=self.url)
        self.rig.publish_trust(("gw1", "obscure"))
        self.things = Things(self.rig)
        self.rig.rollout(self.rig.release(2))
        self.device = self.rig.device("on-its-way")
        self.plan = self.device.assignment()
        assert self.plan.update
        self.device.tell("downloading", self.plan)
        self.callers = Callers(self.rig)
        # the last one ends the session
        self.routes = _looked_at(self.callers.app)[:-1]
        self.open = [one for one in self.routes if one.is_open]
        self.closed = [one for one in self.routes if not one.is_open]
        # who asks is made before anything happens
        self.call(Route("GET", "/api/v1/rollouts", "", ""))

    def close(self) -> None:
        self.rig.close()
        self.database.close()

    def call(self, route: Route) -> Answer:
        path = self.things.path(route, "gw1") if route.about in PLACES else ""
        try:
            return self.callers.call(route, OWNER, path)
        except LitestarException:
            # an answer without end that had begun: the connection ends in the midst of it, and that is how whoever reads sees that it is not whole
            assert route.path.endswith("/export"), route
            return Answer(200, {}, b"")

    def device_asks(self) -> list[Answer]:
        """Ask as a device does; what it says of its update it says signed, with a key that the server has to look up."""
        device = self.device
        self.rig.app.hot._keys.clear()
        events = EventsRequest(
            events=(
                device.event("staged", self.plan),
                device.event("failed", self.plan, reason="download.slow"),
            )
        )
        return [
            device.enrol("claim-1"),
            self.rig.ask("POST", "/d/v1/nonce"),
            device.ask("POST", "/d/v1/assignment", AssignmentRequest(nonce="0" * 32, state=_STATE)),
            device.ask("POST", "/d/v1/events", events),
            device.ask(
                "POST",
                "/d/v1/permit",
                PermitRequest(
                    nonce="0" * 32,
                    update=self.plan.update or "",
                    attempt=1,
                    slot_sha256="0" * 64,
                    release_counter=1,
                ),
            ),
            device.ask(
                "POST", "/d/v1/log", LogRequest(update=self.plan.update or "", attempt=1, data=b"")
            ),
            device.ask("POST", "/d/v1/time", TimeRequest(nonce="0" * 32)),
            device.ask("GET", "/d/v1/poll"),
            device.ask("GET", "/d/v1/repo/root.json"),
            device.ask("GET", f"/d/v1/blobs/{'0' * 64}"),
        ]

    def tell(self, *statements: str) -> None:
        with self.database.connect() as conn:
            for one in statements:
                conn.execute(one)

    def cut(self) -> None:
        """End every connection to the database."""
        self.tell(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'"
        )


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("away") / "data")
    yield made
    made.close()


def said(answer: Answer) -> str:
    """Return the code of a problem, of the API's form or a page's."""
    text = answer.body.decode(errors="replace")
    if "problem" in answer.headers.get("content-type", ""):
        return str(json.loads(text).get("code", ""))
    found = _CODE.findall(text)
    return found[-1] if found else ""


class Unclear(NamedTuple):
    wrong: list[tuple[Route, int, str]]
    told: Counter[str]


def unclear(house: House, routes: list[Route], codes: set[str]) -> Unclear:
    """Ask every route; return answers that are faults, or problems of these codes that are not told in full, and how often each code was told."""
    wrong, told = [], Counter[str]()
    for route in routes:
        answer = house.call(route)
        code = said(answer)
        if code in codes:
            text = answer.body.decode(errors="replace")
            told[code] += 1
            again = answer.status == 503 and answer.headers.get("retry-after") == "5"
            # where the database is, and who comes to it, is nobody's business
            inside = str(house.database.port) in text or house.name in text
            if again and not inside and HINTS[code][1:20] in text:
                continue
        elif answer.status < 500:
            continue
        wrong.append((route, answer.status, code or answer.body[:80].decode(errors="replace")))
    return Unclear(wrong, told)


def test_while_it_is_gone_every_route_says_so_and_afterwards_all_are_as_before(
    house: House,
) -> None:
    looks = [one for one in house.routes if one.method == "GET"]
    before = [house.call(one).status for one in looks]
    house.database.stop(signal.SIGQUIT)
    try:
        closed, open_ = unclear(house, house.closed, AWAY), unclear(house, house.open, AWAY)
    finally:
        house.database.start()
    assert closed.wrong + open_.wrong == []
    # nobody is let in without being asked who he is, and nobody is told that this was his fault
    assert sum(closed.told.values()) == len(house.closed)
    # not even the first one afterwards hears of it, though every connection is broken
    assert [house.call(one).status for one in looks] == before


@pytest.mark.parametrize("how", ["gone", "reading only"])
def test_devices_are_told_to_come_again(house: House, how: str) -> None:
    only_reads = f"ALTER DATABASE {house.name} SET default_transaction_read_only = on"
    if how == "gone":
        house.database.stop()
    else:
        house.tell(only_reads)
        house.cut()
    try:
        found = house.device_asks()
    finally:
        if how == "gone":
            house.database.start()
        else:
            house.tell(only_reads.replace("= on", "TO DEFAULT"))
            house.cut()
    faults = [(one.status, one.body) for one in found if one.status >= 500 and one.status != 503]
    assert faults == []
    told = Counter(said(one) for one in found if one.status == 503)
    assert sum(told.values()) >= 4
    assert set(told) <= {*AWAY, "data.read_only"}


def test_a_sign_in_while_it_is_gone_is_not_called_a_wrong_password(house: House) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    house.database.stop()
    try:
        answer = house.rig.loop.run_until_complete(
            ask_over(house.rig.app, "POST", "/sign-in", form, b"name=olga&password=x", b"")
        )
    finally:
        house.database.start()
    assert (answer.status, said(answer)) == (503, "data.unreachable")


def test_while_it_only_reads_pages_stay_and_acts_say_that_nothing_can_be_written(
    house: House,
) -> None:
    house.tell(f"ALTER DATABASE {house.name} SET default_transaction_read_only = on")
    house.cut()
    try:
        found = unclear(house, house.routes, {"data.read_only"})
        pages = [house.call(Route("GET", path, "", "")).status for path in ("/", "/rollouts")]
    finally:
        house.tell(f"ALTER DATABASE {house.name} RESET default_transaction_read_only")
        house.cut()
    assert found.wrong == []
    assert found.told["data.read_only"] > 20
    assert pages == [200, 200]
    assert house.rig.write(lambda _: 1) == 1


def test_a_database_of_another_name_is_a_clear_problem_too(house: House) -> None:
    rename = "ALTER DATABASE {} RENAME TO {}"
    house.cut()
    house.tell(rename.format(house.name, "elsewhere"))
    try:
        found = unclear(house, house.closed, {"data.denied"})
    finally:
        house.tell(rename.format("elsewhere", house.name))
    assert found.wrong == []
    assert found.told["data.denied"] == len(house.closed)


@contextlib.contextmanager
def ending(house: House, side: str, at: int) -> Iterator[Callable[[], None]]:
    """End a connection when the `at`-th statement comes to it, counted anew whenever what is yielded is called."""
    engine: Engine = getattr(house.rig.app.store, side)
    asked = 0

    def anew() -> None:
        nonlocal asked
        asked = 0

    with house.database.connect() as other:

        def end(conn: Connection, *_: object) -> None:
            nonlocal asked
            asked += 1
            if asked == at:
                pid = wire_of(conn).info.backend_pid
                other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))

        event.listen(engine, "before_cursor_execute", end)
        try:
            yield anew
        finally:
            event.remove(engine, "before_cursor_execute", end)


@pytest.mark.parametrize(("side", "at"), [("_engine", 1), ("_engine", 3), ("_writers", 2)])
def test_a_connection_that_ends_in_the_midst_of_a_question_is_a_clear_problem(
    house: House, side: str, at: int
) -> None:
    wrong, told = [], 0
    with ending(house, side, at) as anew:
        for route in house.routes:
            anew()
            found = unclear(house, [route], AWAY)
            wrong += found.wrong
            told += sum(found.told.values())
    assert wrong == []
    assert told > 15


def test_what_a_device_signed_is_asked_for_again_where_its_key_could_not_be_read(
    house: House,
) -> None:
    device = house.rig.device("signs")
    body = device.assignment()
    device.tell("downloading", body)
    items = device.event("failed", body, reason="download.slow"), device.event("heartbeat")
    house.rig.app.hot._keys.clear()
    with ending(house, "_engine", 1):
        answer = device.ask("POST", "/d/v1/events", EventsRequest(events=items))
    assert (answer.status, answer.code) == (503, "data.unreachable")
    assert device.report(*items).acked_seq == device.seq
    row = house.rig.app.services.fleet.ids.index("signs")
    assert house.rig.read(lambda conn: hot.updates_of(conn, row))[0].state == "failed"


def test_whoever_polls_is_answered_while_others_wait_for_a_database_that_says_nothing(
    house: House,
) -> None:
    app, device = house.rig.app, house.device
    hint = {"authorization": f"Bearer {device.token}"}
    assert device.poll().poll_after_s

    async def both() -> tuple[Answer, float, bool]:
        join = asyncio.ensure_future(ask(app, "POST", "/d/v1/session", {}, b"{}", "192.0.2.9"))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await ask(app, "GET", "/d/v1/poll", hint)
        took, waits = time.monotonic() - began, not join.done()
        return await join, took, waits

    house.cut()
    os.kill(house.database.pid, signal.SIGSTOP)
    try:
        joined, took, waits = house.rig.loop.run_until_complete(both())
    finally:
        os.kill(house.database.pid, signal.SIGCONT)
    assert waits
    assert took < 2
    assert (joined.status, joined.code) == (503, "data.unreachable")
