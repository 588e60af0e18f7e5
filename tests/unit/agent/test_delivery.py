"""What is fetched again after a break, where the bytes come from, and what a mirror learns: over real HTTP, to the byte."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from tests.crash.releases import BLOCK, Release, contain, make_release
from tests.unit.agent.test_download import Bench, head, serving, settings

from tidegate.agent.events import Download, Downloaded, Progressed
from tidegate.agent.jobs import Reply, Struck
from tidegate.agent.net.delivery import HOPS_MAX
from tidegate.agent.net.pacer import PauseError, Tap
from tidegate.agent.state import Progress, Update
from tidegate.agent.worker import Worker
from tidegate.core.errors import TidegateError
from tidegate.core.metadata import SignedTarget
from tidegate.core.payload import Index
from tidegate.core.release import Install, PayloadRef

SEGMENT = 64 * BLOCK


def noise(seed: int, length: int) -> bytes:
    return Random(seed).randbytes(length)


def noisy_release(length: int = 6 * SEGMENT - 100) -> Release:
    """Make a release whose bytes do not pack: what is stored is as long as what is plain."""
    plain = make_release(2)
    image = noise(1, length)
    container = contain(image, SEGMENT)
    full = PayloadRef(
        kind="full",
        sha256=hashlib.sha256(container).hexdigest(),
        length=len(container),
        index_sha256=hashlib.sha256(container[: Index.parse(container).head_size]).hexdigest(),
    )
    install = Install(size=len(image), sha256=hashlib.sha256(image).hexdigest())
    release = msgspec.structs.replace(plain.target.release, install=install, payloads=(full,))
    target = SignedTarget(plain.target.path, full.length, full.sha256, release)
    return Release(image, container, target)


RELEASE = noisy_release()
BODY = RELEASE.container
INDEX = Index.parse(BODY)


class Server:
    """Serves the payload with ranges; `cut` says after how many bytes of the body an answer ends."""

    def __init__(self, body: bytes = BODY) -> None:
        self.body = body
        self.cut: Callable[[int], int | None] = lambda _length: None
        self.seen: list[dict[str, str]] = []
        self.starts: list[int] = []

    def __call__(self, headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        self.seen.append(headers)
        wanted = headers.get("range")
        first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.starts.append(first)
        body = self.body[first:]
        if wanted:
            ranged = f"bytes {first}-{len(self.body) - 1}/{len(self.body)}"
            write(head("206 Partial Content", len(body), content_range=ranged))
        else:
            write(head("200 OK", len(body)))
        write(body[: self.cut(len(body))])


class Slot(Bench):
    """A bench whose slot takes the release."""

    def open_slot(self, slot: str) -> Any:
        from tidegate.agent.install.slot_file import SlotFile

        return SlotFile(self.path, 8 * SEGMENT)

    def installed(self) -> bytes:
        return Path(self.path).read_bytes()[: len(RELEASE.image)]


def replies(
    bench: Bench,
    progress: Progress | None,
    tap: Callable[[], Tap] | None = None,
    mirrors: tuple[str, ...] = (),
    **more: Any,
) -> Iterator[Reply]:
    update = Update(update="u-1", release=RELEASE.target.release, slot="B")
    given = settings(**{"sync_bytes": 2 * SEGMENT, **more})
    worker = Worker(bench, given, tap)  # type: ignore[arg-type]
    return worker._download(Download(update=update, progress=progress), "secret", mirrors)


def attempt(
    bench: Bench, progress: Progress | None, **more: Any
) -> tuple[list[Reply], Progress | None, TidegateError | None]:
    said: list[Reply] = []
    try:
        for reply in replies(bench, progress, **more):
            said.append(reply)
            if isinstance(reply, Progressed | Downloaded):
                progress = reply.progress
    except TidegateError as error:
        return said, progress, error
    return said, progress, None


# --- what is fetched again --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_link_that_breaks_again_and_again_fetches_next_to_nothing_twice(
    tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    server = Server()
    server.cut = lambda _length: random.randrange(10_000, 400_000)
    progress, breaks = None, 0
    with serving(server) as url:
        bench = Slot(url, str(tmp_path))
        while True:
            _, progress, error = attempt(bench, progress)
            if error is None:
                break
            assert error.code == "download.truncated"
            breaks += 1
            assert breaks < 400
    assert bench.installed() == RELEASE.image
    assert progress is not None
    # Less than a page of what came is given up at each break.
    assert breaks > 3
    assert progress.stored_bytes - len(BODY) <= len(BODY) // 50


def test_a_link_that_never_holds_for_a_segment_still_comes_to_the_end(tmp_path: Path) -> None:
    server = Server()
    server.cut = lambda _length: SEGMENT // 9
    progress, error = None, None
    with serving(server) as url:
        bench = Slot(url, str(tmp_path))
        for _ in range(60):
            _, progress, error = attempt(bench, progress)
            if error is None:
                break
    assert error is None
    assert bench.installed() == RELEASE.image


def test_a_process_that_ended_takes_what_stands_in_the_slot_already(tmp_path: Path) -> None:
    server = Server()
    with serving(server) as url:
        bench = Slot(url, str(tmp_path))
        running = replies(bench, None, sync_bytes=SEGMENT)
        first, _, third = next(running), next(running), next(running)
        running.close()  # type: ignore[attr-defined]
        assert isinstance(first, Progressed)
        assert isinstance(third, Progressed)
        # Ended before the journal heard of all that was written.
        _, _, error = attempt(bench, first.progress)
    assert error is None
    # What was in its place beyond that is taken, too; how much it was, the medium decides.
    assert server.starts[0] == 0
    assert server.starts[1] in [one.offset for one in INDEX.segments[third.progress.segments :]]
    assert bench.installed() == RELEASE.image


def test_what_stands_in_the_slot_is_believed_by_its_digest_only(tmp_path: Path) -> None:
    server = Server()
    with serving(server) as url:
        bench = Slot(url, str(tmp_path))
        server.cut = lambda _length: INDEX.segments[4].offset
        _, progress, _ = attempt(bench, None)
        assert progress is not None
        assert progress.segments == 4
        damaged = bytearray(Path(bench.path).read_bytes())
        at = INDEX.writes(progress.since)[0].target_offset
        damaged[at] ^= 1
        Path(bench.path).write_bytes(damaged)
        server.cut = lambda _length: None
        _, _, error = attempt(bench, progress)
    assert error is None
    assert server.starts[-1] == INDEX.segments[progress.since].offset
    assert bench.installed() == RELEASE.image


def test_a_kept_piece_of_a_segment_that_was_damaged_is_given_up(tmp_path: Path) -> None:
    server = Server()
    with serving(server) as url:
        bench = Slot(url, str(tmp_path))
        server.cut = lambda _length: INDEX.segments[2].offset + 100_000
        _, progress, _ = attempt(bench, None)
        part = tmp_path / "state" / "payload.part"
        body = bytearray(part.read_bytes())
        body[-1] ^= 1
        part.write_bytes(body)
        server.cut = lambda _length: None
        _, progress, error = attempt(bench, progress)
        assert error is not None
        assert error.code == "download.hash"
        _, _, error = attempt(bench, progress)
    assert error is None
    assert bench.installed() == RELEASE.image


def test_a_pause_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    asked = [0]

    def tap() -> Tap:
        asked[0] += 1
        return Tap(rate=600_000, open=asked[0] < 3)

    server = Server()
    with serving(server) as url:
        bench = Slot(url, str(tmp_path))
        said: list[Progress] = []
        with pytest.raises(PauseError):
            said.extend(
                one.progress for one in replies(bench, None, tap) if isinstance(one, Progressed)
            )
        said += [Progress(payload_sha256="", index_sha256="", slot="B")] if not said else []
        _, progress, error = attempt(bench, said[-1] if said[-1].payload_sha256 else None)
    assert error is None
    assert bench.installed() == RELEASE.image
    assert server.starts[1] > 200_000
    assert progress is not None
    assert progress.stored_bytes <= len(BODY) + 4096


def test_no_room_is_found_before_the_index_is_read_and_leaves_the_slot_alone(
    tmp_path: Path,
) -> None:
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        Path(bench.path).write_bytes(b"\xaa" * 8 * SEGMENT)
        _, _, error = attempt(bench, None, reserve_bytes=1 << 60)
    assert error is not None
    assert (error.code, error.retryable) == ("download.space", False)
    assert Path(bench.path).read_bytes() == b"\xaa" * 8 * SEGMENT


def test_nothing_of_a_payload_is_left_beside_the_slot(tmp_path: Path) -> None:
    server = Server()
    server.cut = lambda _length: SEGMENT + 100_000
    with serving(server) as url:
        bench, progress, error = Slot(url, str(tmp_path)), None, None
        for _ in range(12):
            _, progress, error = attempt(bench, progress)
            beside = sum(one.stat().st_size for one in (tmp_path / "state").iterdir())
            assert beside < 2 * SEGMENT
            if error is None:
                break
    assert error is None
    assert not (tmp_path / "state" / "payload.part").exists()


# --- mirrors ----------------------------------------------------------------------------------------------------------


def test_a_mirror_is_asked_first_and_told_nothing(tmp_path: Path) -> None:
    mirror, server = Server(), Server()
    with serving(mirror) as near, serving(server) as url:
        bench = Slot(url, str(tmp_path))
        said, progress, error = attempt(bench, None, mirrors=(f"{near}/ota/",))
    assert error is None
    assert bench.installed() == RELEASE.image
    assert server.seen == []
    told = {name for one in mirror.seen for name in one}
    assert told <= {"host", "accept-encoding", "range"}
    assert [one for one in said if isinstance(one, Struck)] == []
    # What a mirror says of its copy is not asked of the server later.
    assert progress is not None
    assert progress.etag == ""


def refuses(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
    write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")


def lies(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
    Server(BODY[: len(BODY) // 2] + bytes(len(BODY) - len(BODY) // 2))(headers, write)


def ends(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
    server = Server()
    server.cut = lambda length: length // 3
    server(headers, write)


def redirects(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
    write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n")


def trickles(headers: dict[str, str], write: Callable[[bytes], None]) -> None:
    write(head("200 OK", len(BODY)))
    for at in range(200):
        write(BODY[at : at + 1])
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (refuses, "download.refused"),
        (lies, "download.hash"),
        (ends, "download.truncated"),
        (redirects, "download.refused"),
        (trickles, "download.slow"),
    ],
)
def test_a_bad_mirror_is_left_out_and_named_and_costs_the_update_nothing(
    tmp_path: Path, bad: Any, code: str
) -> None:
    good, server = Server(), Server()
    with ExitStack() as stack:
        first, second = stack.enter_context(serving(bad)), stack.enter_context(serving(good))
        bench = Slot(stack.enter_context(serving(server)), str(tmp_path))
        said, _, error = attempt(
            bench, None, mirrors=(first, second), rate_min=1000, rate_grace_s=1
        )
    assert error is None
    assert bench.installed() == RELEASE.image
    assert [(one.mirror, one.reason) for one in said if isinstance(one, Struck)] == [(first, code)]
    assert server.seen == []


def test_without_a_mirror_that_works_the_server_gives_the_rest(tmp_path: Path) -> None:
    server = Server()
    with ExitStack() as stack:
        first = stack.enter_context(serving(ends))
        bench = Slot(stack.enter_context(serving(server)), str(tmp_path))
        gone = "http://127.0.0.1:9"
        _, progress, error = attempt(bench, None, mirrors=(gone, first))
    assert error is None
    assert bench.installed() == RELEASE.image
    assert server.seen[0]["authorization"] == "Bearer secret"
    assert server.starts[0] >= len(BODY) // 3 - 4096
    assert "if-range" not in server.seen[0]
    assert progress is not None
    assert progress.stored_bytes <= len(BODY) + 4096


def test_a_failure_of_the_server_itself_ends_the_attempt(tmp_path: Path) -> None:
    with serving(ends) as url:
        _, _, error = attempt(Slot(url, str(tmp_path)), None)
    assert error is not None
    assert error.code == "download.truncated"


# --- on real time -----------------------------------------------------------------------------------------------------


def test_the_throttle_is_exact_within_a_twentieth_on_real_time_also_after_a_change(
    tmp_path: Path,
) -> None:
    rate = [250_000]
    with serving(Server()) as url:
        bench = Slot(url, str(tmp_path))
        began = time.monotonic()
        taken = []
        for reply in replies(bench, None, lambda: Tap(rate=rate[0]), sync_bytes=SEGMENT):
            assert isinstance(reply, Progressed | Downloaded)
            taken.append((time.monotonic() - began, reply.progress.stored_bytes))
            rate[0] = 250_000 if len(taken) < 3 else 400_000
    # Three segments at the first rate, three at the second; half a second of the first may pass for the change.
    first, last = taken[2], taken[-1]
    assert first[1] / first[0] == pytest.approx(250_000, rel=0.05)
    at_most, at_least = (
        (last[1] - first[1]) / 400_000,
        (last[1] - first[1] - 125_000) / 400_000 + 0.5,
    )
    assert 0.95 * at_most <= last[0] - first[0] <= 1.05 * at_least


# --- sent on by the server ----------------------------------------------------------------------------------------------


class Sender:
    """A server that sends payloads' devices on."""

    def __init__(self, location: str, status: str = "307 Temporary Redirect") -> None:
        self.location, self.status = location, status
        self.seen: list[dict[str, str]] = []

    def __call__(self, headers: dict[str, str], write: Callable[[bytes], None]) -> None:
        self.seen.append(headers)
        write(head(self.status, 0, location=self.location))


def test_where_the_server_sends_a_device_on_it_says_nothing_but_the_range(tmp_path: Path) -> None:
    store = Server()
    store.cut = lambda length: length // 2 if length == len(BODY) else None
    with serving(store) as there, serving(Sender(f"{there}/bucket/key?X-Signature=secret")) as url:
        bench = Slot(url, str(tmp_path))
        _, progress, error = attempt(bench, None)
        assert error is not None
        assert error.code == "download.truncated"
        assert progress is not None
        # The tag of another server is none to ask ours by.
        assert progress.etag == ""
        said, _, error = attempt(bench, progress)
    assert error is None
    assert isinstance(said[-1], Downloaded)
    assert bench.installed() == RELEASE.image
    assert store.starts[1] >= len(BODY) // 2 - SEGMENT
    told = {name for one in store.seen for name in one}
    assert told == {"host", "accept-encoding", "range"}


@pytest.mark.parametrize(
    "location",
    [
        "",
        "/d/v1/blobs/elsewhere",
        "//other.example/x",
        "ftp://other.example/x",
        "file:///etc/passwd",
        "http://other.example/x",
        "http://127.0.0.1.other.example/x",
        "http://localhost.other.example/x",
        "https://user:word@other.example/x",
        "https://other.example:0/x",
        "https://other.example:99999/x",
        "https://[::1/x",
        "https:///x",
        "https://other.example/a b",
        "https://other.example/d/v1/poll",
        "https://other.example/" + "a" * 8192,
        "javascript:alert(1)",
    ],
)
def test_a_device_is_not_sent_just_anywhere(location: str, tmp_path: Path) -> None:
    sender = Sender(location)
    with serving(sender) as url:
        _, progress, error = attempt(Slot(url, str(tmp_path)), None)
    assert error is not None
    assert error.code == "download.refused"
    assert progress is None
    assert "secret" not in str(error)
    assert len(sender.seen) == 1


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "308 Permanent"])
def test_other_ways_of_sending_on_are_no_answer(status: str, tmp_path: Path) -> None:
    store = Server()
    with serving(store) as there, serving(Sender(f"{there}/key", status)) as url:
        _, _, error = attempt(Slot(url, str(tmp_path)), None)
    assert error is not None
    assert error.code == "download.refused"
    assert store.seen == []


def test_a_device_is_not_sent_round_in_circles(tmp_path: Path) -> None:
    sender = Sender("")
    with serving(sender) as url:
        sender.location = f"{url}/key?secret"
        _, _, error = attempt(Slot(url, str(tmp_path)), None)
    assert error is not None
    assert error.code == "download.refused"
    assert "secret" not in str(error)
    assert len(sender.seen) == 1 + HOPS_MAX
    assert all("authorization" not in one for one in sender.seen[1:])


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "416 No"])
def test_what_the_other_one_refuses_says_nothing_of_the_token(status: str, tmp_path: Path) -> None:
    with serving(Sender("", status)) as there, serving(Sender(f"{there}/key")) as url:
        _, _, error = attempt(Slot(url, str(tmp_path)), None)
    assert error is not None
    assert error.code == "download.refused"
