"""Several server processes on one SQLite database: what only files have."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.test_shared import Pair

from tidegate.core.errors import BusyError
from tidegate.server.store import changes, shared, shared_files
from tidegate.server.store.sqlite import open_store


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path / "data")
    yield made
    made.close()


def test_what_a_dead_process_left_behind_holds_nobody_up(pair: Pair) -> None:
    folder = pair.one.folder / shared_files.FOLDER
    dead = shared_files.Peers(folder)
    os.close(dead._file)  # as the kernel does when a process is killed
    began = time.monotonic()
    pair.one.write(lambda conn: changes.bump(conn, "gate", "1", 0))
    pair.one.app.store.settle()
    assert time.monotonic() - began < shared.LEASE_S
    assert not (folder / "peers" / dead._name).exists()


def test_a_server_alone_and_one_that_shares_do_not_meet(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(BusyError, match="another server has this directory"):
        open_store(pair.one.folder)
    alone = Rig(tmp_path / "alone")
    with pytest.raises(BusyError) as caught:
        open_store(alone.folder, shared=True)
    assert caught.value.code == "data.locked"
    alone.close()


def test_a_holder_that_does_not_go_on_is_waited_for_once_whoever_else_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red before: both locks were waited for in full, and every batch anew, so a halt heard after 25 s that nothing could be written."""
    monkeypatch.setattr(shared_files, "TURN_S", 0.6)
    monkeypatch.setattr(shared_files, "AGAIN_S", 0.1)
    stopped, *others = (shared_files.Turn(tmp_path) for _ in range(4))
    waited: list[float] = []

    def wait(turn: shared_files.Turn, times: int) -> None:
        for _ in range(times):
            began = time.monotonic()
            with pytest.raises(BusyError), turn:
                pass
            waited.append(time.monotonic() - began)

    with stopped:
        threads = [threading.Thread(target=wait, args=(one, 3)) for one in others]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    waited.sort()
    assert len(waited) == 9
    assert waited[5] < 0.5, "who was told once is told again soon"
    assert all(0.6 <= one < 1.1 for one in waited[6:]), waited
    for turn in others:
        with turn:
            pass
    began = time.monotonic()
    with stopped, pytest.raises(BusyError), others[0]:
        pass
    assert time.monotonic() - began >= 0.6, "once it had its turn it waits as long as ever"
