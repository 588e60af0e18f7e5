"""The spool: a package is whole and proved before an installer sees it, lies there once, and is gone afterwards."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.unit.agent.test_download import BODY, RELEASE, Bench, head, job, serving, settings, whole

from tidegate.agent.events import Downloaded, Progressed
from tidegate.agent.install import spool
from tidegate.agent.jobs import Quiet, Reply
from tidegate.agent.state import Progress
from tidegate.core.errors import DeviceError, TidegateError
from tidegate.core.release import Install

#: The release's image is the package here, and something else stands in the slot afterwards.
PACKAGED = msgspec.structs.replace(
    RELEASE.target.release,
    package=RELEASE.target.release.install,
    install=Install(size=5, sha256="ab" * 32),
    crit=("package",),
)


def package_job(progress: Progress | None = None) -> Any:
    made = job(progress)
    return msgspec.structs.replace(
        made, update=msgspec.structs.replace(made.update, release=PACKAGED)
    )


class Installer:
    """Keeps what it is given; fails when told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.given: list[bytes] = []
        self.fails = fails

    def __call__(self, path: str) -> Iterator[Quiet]:
        self.given.append(Path(path).read_bytes())
        yield Quiet()
        if self.fails:
            raise DeviceError("install.installer", "it failed")


def run(
    bench: Bench,
    folder: Path,
    installer: Installer,
    progress: Progress | None = None,
    **changes: Any,
) -> tuple[list[Reply], TidegateError | None]:
    replies: list[Reply] = []
    mine = settings(spool=str(folder / "spool"), **changes)
    try:
        for one in spool.through(bench, mine, package_job(progress), None, installer):  # type: ignore[arg-type]
            replies.append(one)  # noqa: PERF402 - what came before an error counts
    except TidegateError as error:
        return replies, error
    return replies, None


def kept(folder: Path) -> list[str]:
    return sorted(one.name for one in (folder / "spool").iterdir())


def test_the_installer_gets_the_whole_package_once_and_nothing_is_left(tmp_path: Path) -> None:
    installer = Installer()
    with serving(whole) as url:
        replies, error = run(Bench(url, str(tmp_path)), tmp_path, installer)
    assert error is None
    assert installer.given == [RELEASE.image]
    assert isinstance(replies[-1], Downloaded)
    assert kept(tmp_path) == []


def test_what_was_fetched_before_a_cut_is_not_fetched_again(tmp_path: Path) -> None:
    installer = Installer()

    def cut(headers: dict[str, str], write: Any) -> None:
        write((head("200 OK", len(BODY)) + BODY)[: len(BODY) * 3 // 4])

    with serving(cut) as url:
        replies, error = run(Bench(url, str(tmp_path)), tmp_path, installer)
    assert error is not None
    assert installer.given == []
    last = [one for one in replies if isinstance(one, Progressed)][-1].progress
    assert last.segments > 0
    asked: list[str] = []

    def rest(headers: dict[str, str], write: Any) -> None:
        asked.append(headers.get("range", ""))
        whole(headers, write)

    with serving(rest) as url:
        _, error = run(Bench(url, str(tmp_path)), tmp_path, installer, last)
    assert error is None
    assert installer.given == [RELEASE.image]
    assert asked[0].startswith("bytes=")


def test_a_package_that_was_changed_where_it_lay_is_fetched_anew_and_never_installed(
    tmp_path: Path,
) -> None:
    installer = Installer(fails=True)
    with serving(whole) as url:
        bench = Bench(url, str(tmp_path))
        replies, error = run(bench, tmp_path, installer)
        assert error is not None
        assert error.code == "install.installer"
        (name,) = kept(tmp_path)
        path = tmp_path / "spool" / name
        body = bytearray(path.read_bytes())
        # Far from the last interval, which a resume looks at again.
        body[10] ^= 1
        path.write_bytes(body)
        full = Progress(
            payload_sha256=PACKAGED.full.sha256,
            index_sha256=PACKAGED.full.index_sha256,
            slot="B",
            segments=10_000,
        )
        count = [one for one in replies if isinstance(one, Progressed)]
        progress = msgspec.structs.replace(count[-1].progress) if count else full
        healthy = Installer()
        replies, error = run(bench, tmp_path, healthy, progress)
        assert error is not None
        assert (error.code, error.retryable) == ("download.hash", True)
        assert healthy.given == []
        again = replies[-1]
        assert isinstance(again, Progressed)
        assert again.progress.segments == 0
        _, error = run(bench, tmp_path, healthy, again.progress)
    assert error is None
    assert healthy.given == [RELEASE.image]


def test_an_installer_that_failed_may_be_asked_again_with_the_same_package(tmp_path: Path) -> None:
    with serving(whole) as url:
        bench = Bench(url, str(tmp_path))
        _, error = run(bench, tmp_path, Installer(fails=True))
        assert error is not None
        assert len(kept(tmp_path)) == 1


def test_another_release_makes_room_first(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / f"{'0' * 64}.package").write_bytes(b"of another release")
    (tmp_path / "spool" / "somebody-elses").write_bytes(b"stays")
    with serving(whole) as url:
        _, error = run(Bench(url, str(tmp_path)), tmp_path, Installer())
    assert error is None
    assert kept(tmp_path) == ["somebody-elses"]


def test_a_package_that_does_not_fit_is_refused_before_its_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(headers: dict[str, str], write: Any) -> None:
        asked.append("asked")
        whole(headers, write)

    room = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda _path: room)
    with serving(noted) as url:
        _, error = run(Bench(url, str(tmp_path)), tmp_path, Installer())
    assert error is not None
    assert error.code == "download.space"
    assert f"{len(RELEASE.image)} bytes are needed, 4096 are free" in error.detail
    assert asked == []
