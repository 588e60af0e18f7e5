"""Faults between whole real agents and a whole real server, on every kind of request: each update ends confirmed, told once and counted once."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.plant import Plant, slot_digest
from tests.link import faults
from tests.link.proxy import Answer, Fault, Proxy, Wire

from tidegate.sim.virtual_board import VirtualBoard, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PORTAL = faults.status("200 OK", b"<html>Log in</html>", content_type="text/html")
LOGIN = faults.status("302 Found", location="http://login.invalid/")
BUSY = faults.status("503 Service Unavailable", retry_after="1")
MANY = faults.status("429 Too Many Requests", retry_after="1")
#: The server did it, and the device never hears that.
LOST = faults.no_answer()
TORN = faults.no_answer(rst=True, part=20)
SHORT = faults.cut(10)
SILENT = faults.stall(0)


@dataclass(frozen=True)
class Story:
    """What a board's line does, by kind of request, and what the agent must have said of it.

    Attributes:
        routes: each list is used up, one fault an answer.
        said: codes that its log names.
    """

    routes: Mapping[str, tuple[Fault, ...]]
    said: frozenset[str] = frozenset()


def third(make: Callable[[int], Fault]) -> Fault:
    """Make a fault of a payload that begins at a third of what was asked for."""

    def fault(wire: Wire, answer: Answer) -> bool:
        return make(len(answer.body) // 3)(wire, answer)

    return fault


STORIES = {
    "answers-get-lost": Story(
        {
            "enrol": (LOST,),
            "session": (TORN,),
            "assignment": (LOST,),
            "blobs": (third(lambda at: faults.cut(at, rst=True)),),
            "permit": (LOST,),
            "events": (LOST, TORN),
        },
        frozenset({"download.truncated"}),
    ),
    "busy-server": Story(
        {"poll": (BUSY,), "repo": (MANY,), "blobs": (BUSY,), "events": (BUSY,)},
        frozenset({"download.refused"}),
    ),
    "captive-portal": Story(
        {"poll": (LOGIN,), "assignment": (PORTAL,), "blobs": (LOGIN,), "events": (PORTAL,)},
        frozenset({"download.refused"}),
    ),
    "broken-bodies": Story(
        {
            "poll": (SHORT,),
            "assignment": (SHORT,),
            "blobs": (third(faults.cut), faults.corrupt(-9)),
        },
        frozenset({"download.truncated"}),
    ),
    "silent-server": Story(
        {"poll": (SILENT,), "blobs": (third(faults.stall),), "events": (SILENT,)},
        frozenset({"download.timeout"}),
    ),
}


@dataclass
class Line:
    """One board, and the proxy before its server."""

    story: Story
    board: VirtualBoard
    proxy: Proxy
    folder: Path

    def left(self) -> list[str]:
        """Return the kinds of request whose faults did not all happen."""
        return [name for name, faults_left in self.proxy.routes.items() if faults_left]

    def said(self) -> set[str]:
        """Return the codes in the agent's log."""
        return set(re.findall(r"error\[([a-z._]+)\]", (self.folder / "agent.log").read_text()))


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.served.kill()


@pytest.fixture
def lines(plant: Plant) -> Iterator[dict[str, Line]]:
    image, made = plant.release(1), {}
    for name, story in STORIES.items():
        proxy = Proxy(plant.served.port)
        proxy.routes = {route: list(every) for route, every in story.routes.items()}
        folder = plant.board(name, image)
        told = (folder / "agent.toml").read_text()
        told = told.replace(plant.url, f"http://127.0.0.1:{proxy.port}")
        (folder / "agent.toml").write_text(told.replace("[server]\n", '[server]\ntimeout = "3s"\n'))
        made[name] = Line(story, VirtualBoard(folder), proxy, folder)
        made[name].board.start()
    yield made
    for one in made.values():
        one.board.stop()
        one.proxy.close()


def test_every_agent_comes_through_and_nothing_is_lost_or_counted_twice(
    plant: Plant, lines: dict[str, Line]
) -> None:
    plant.release(2)
    assert wait_for(lambda: set(plant.control.running()) == set(lines), 60)
    rollout = plant.roll_out(2)
    assert plant.ends(rollout, "completed", 120), {
        name: (one.left(), (one.folder / "agent.log").read_text()[-600:])
        for name, one in lines.items()
    }
    assert {name: one.left() for name, one in lines.items() if one.left()} == {}
    for name, one in lines.items():
        assert slot_digest(one.folder, one.board.running) == plant.digests[2], name
        # Each with its reason, and none that blames anybody but the link.
        assert one.story.said <= one.said(), name
        assert all(code.startswith("download.") for code in one.said()), (name, one.said())
        # No fault of a link is one of the agent.
        assert one.board.crashes == 0, name
    told = plant.rows(
        "SELECT device.id, event.kind, count(*) FROM event JOIN device ON device.row = event.device_row"
        " WHERE event.kind IN ('confirmed', 'reverted', 'failed', 'declined') GROUP BY 1, 2"
    )
    assert sorted(told) == [(name, "confirmed", 1) for name in sorted(lines)]
    counted = plant.daily()
    assert {name: counted[name] for name in ("end:confirmed", "permit", "download.ok")} == {
        "end:confirmed": len(lines),
        "permit": len(lines),
        "download.ok": len(lines),
    }
    assert "download.failed" not in counted
    stored = plant.rows("SELECT count(*), count(DISTINCT device_row * 1000000 + seq) FROM event")
    assert stored[0][0] == stored[0][1]
