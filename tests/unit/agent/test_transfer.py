"""What goes on beside the link: each stage fails with its own code, nothing hangs, no thread stays, and nothing counts before it is durable."""

import errno
import hashlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.agent.test_delivery import BODY, INDEX, RELEASE, SEGMENT, Server, Slot, attempt
from tests.unit.agent.test_download import serving, settings

from tidegate.agent.events import Download, Downloaded, Failed, Installed, Progressed, ReadBack
from tidegate.agent.install import pipeline
from tidegate.agent.jobs import Task
from tidegate.agent.state import State, Update
from tidegate.agent.worker import Worker
from tidegate.core.errors import PublisherError
from tidegate.core.payload import Index, encode_head
from tidegate.core.release import PayloadRef

FDATASYNC, PWRITE = os.fdatasync, os.pwrite


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No thread of the pipeline outlives the job, however it ended."""
    yield
    assert [one.name for one in threading.enumerate() if one.name.startswith("install")] == []


class LastFirst:
    """Threads as they may come in the worst case: of the steps that wait, the one that came last is run first. Nothing is left to chance."""

    def __init__(self) -> None:
        self._waiting: list[_Later] = []

    def submit(self, step: Callable[[], Any]) -> "_Later":
        self._waiting.append(_Later(self, step))
        return self._waiting[-1]

    def run(self, wanted: "_Later") -> None:
        while not wanted.done():
            self._waiting.pop().run()

    def shutdown(self, *, cancel_futures: bool) -> None:
        self._waiting.clear()


class _Later:
    """A step of `LastFirst`; looks like a `Future`. It is run when its result, or that of one that came before, is asked for."""

    def __init__(self, pool: LastFirst, step: Callable[[], Any]) -> None:
        self._pool = pool
        self._step = step
        self._found: list[Any] = []

    def done(self) -> bool:
        return bool(self._found)

    def run(self) -> None:
        self._found = [self._step()]

    def result(self) -> Any:
        self._pool.run(self)
        return self._found[0]


def failing_after(count: int, call: Any, code: int) -> Any:
    """Let `count` calls pass, then fail each."""
    done = [0]

    def made(*given: Any) -> Any:
        done[0] += 1
        if done[0] > count:
            raise OSError(code, os.strerror(code))
        return call(*given)

    return made


@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.parametrize(
    ("given", "code"), [(errno.EIO, "install.write"), (errno.ENOSPC, "install.space")]
)
def test_a_write_that_fails_ends_the_job_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, given: int, code: str
) -> None:
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        monkeypatch.setattr(os, "pwrite", failing_after(count, PWRITE, given))
        _, progress, error = attempt(bench, None)
        monkeypatch.undo()
        assert error is not None
        assert error.code == code
        # What was said to be durable is, and the rest comes with the next attempt.
        _, _, error = attempt(bench, progress)
    assert error is None
    assert bench.installed() == RELEASE.image


def test_a_slot_that_ends_early_fails_in_the_write_that_reaches_it(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        bench.open_slot("B").close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * SEGMENT, before[1]))
        try:
            _, _, error = attempt(bench, None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error is not None
    assert error.code == "install.write"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_flush_that_fails_ends_the_job_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        monkeypatch.setattr(os, "fdatasync", failing_after(count, FDATASYNC, errno.EIO))
        said, _, error = attempt(bench, None)
    assert error is not None
    assert error.code == "install.write"
    assert len(said) == count


@pytest.mark.parametrize("threads", ["real", "last-first"])
def test_nothing_is_said_before_a_flush_that_began_after_the_last_write_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: str
) -> None:
    if threads == "last-first":
        monkeypatch.setattr(pipeline, "_pool", lambda _: LastFirst())
    lock = threading.Lock()
    written: set[int] = set()
    durable: set[int] = set()
    flushes: list[set[int]] = []

    def pwrite(handle: int, data: Any, offset: int) -> int:
        time.sleep(0.005 * (offset // SEGMENT % 3))
        count = PWRITE(handle, data, offset)
        with lock:
            written.add(offset // SEGMENT)
        return count

    def fdatasync(handle: int) -> None:
        with lock:
            began = set(written)
            flushes.append(began)
        FDATASYNC(handle)
        with lock:
            durable.update(began)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        update = Update(update="u-1", release=RELEASE.target.release, slot="B")
        worker = Worker(bench, settings(sync_bytes=SEGMENT))  # type: ignore[arg-type]
        said = 0
        for reply in worker._download(Download(update=update, progress=None), "token"):
            assert isinstance(reply, Progressed | Downloaded)
            with lock:
                assert set(range(reply.progress.segments)) <= durable
            said += 1
    assert said == len(INDEX.segments)
    # One flush a segment, in their order: each begins when that segment and all before it are written.
    early = [one for one, began in enumerate(flushes[:said]) if not set(range(one + 1)) <= began]
    assert not early


def test_a_read_that_fails_is_a_failed_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Update(update="u-1", release=RELEASE.target.release, slot="B")
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        _, _, error = attempt(bench, None)
        assert error is None
    worker = Worker(bench, settings())  # type: ignore[arg-type]
    task = Task(job=ReadBack(update=update), state=State())
    (good,) = worker.perform(task)
    assert isinstance(good, Installed)
    monkeypatch.setattr(os, "preadv", failing_after(1, os.preadv, errno.EIO))
    (bad,) = worker.perform(task)
    assert isinstance(bad, Failed)
    assert bad.reason == "install.readback"


def test_a_signed_segment_that_unpacks_to_other_bytes_is_the_publishers_fault(
    tmp_path: Path,
) -> None:
    segments = list(INDEX.segments)
    segments[2] = replace(segments[2], plain_sha256=bytes(32))
    head = encode_head(
        image_size=INDEX.image_size,
        segment_size=INDEX.segment_size,
        target_sha256=bytes.fromhex(INDEX.target_sha256),
        operations=INDEX.operations,
        segments=tuple(segments),
    )
    body = head + BODY[INDEX.head_size :]
    payload = PayloadRef(
        kind="full",
        sha256=hashlib.sha256(body).hexdigest(),
        length=len(body),
        index_sha256=hashlib.sha256(head).hexdigest(),
    )
    release = msgspec.structs.replace(RELEASE.target.release, payloads=(payload,))
    update = Update(update="u-1", release=release, slot="B")
    with serving(Server(body)) as url:
        bench = Slot(url, str(tmp_path))
        worker = Worker(bench, settings(sync_bytes=SEGMENT))  # type: ignore[arg-type]
        with pytest.raises(PublisherError) as caught:
            list(worker._download(Download(update=update, progress=None), "token"))
    assert caught.value.code == "sig.malformed"
    written = Path(bench.path).read_bytes()
    wrong = Index.parse(body).writes(2)[0]
    place = slice(wrong.target_offset, wrong.target_offset + wrong.length)
    assert written[place] == bytes(wrong.length)


def test_a_job_that_is_given_up_stops_at_once(tmp_path: Path) -> None:
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        update = Update(update="u-1", release=RELEASE.target.release, slot="B")
        worker = Worker(bench, settings(sync_bytes=SEGMENT))  # type: ignore[arg-type]
        running = worker._download(Download(update=update, progress=None), "token")
        next(running)
        running.close()  # type: ignore[attr-defined]


def test_a_machine_with_one_processor_installs_the_same(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        os.sched_setaffinity(0, {min(mine)})
        try:
            _, _, error = attempt(bench, None)
        finally:
            os.sched_setaffinity(0, mine)
    assert error is None
    assert bench.installed() == RELEASE.image
