"""Archives on a device: a tree in a slot that is a folder, and in the idle copy of a component; read back against its own signed digest."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.crash.lab import Plane
from tests.crash.releases import contain, install_of, make_release, payload_of
from tests.unit.agent.test_download import settings

from tidegate.agent.board import RealBoard, SystemClock
from tidegate.agent.bootloaders import load
from tidegate.agent.events import Download, ReadBack
from tidegate.agent.files import StateDirectory
from tidegate.agent.install import two_copies, unpack
from tidegate.agent.install.component_folder import ComponentFolder
from tidegate.agent.installers import archive, raw_image
from tidegate.agent.state import Place, Update
from tidegate.core.archive import measure
from tidegate.core.errors import DeviceError, PublisherError
from tidegate.core.release import Install
from tidegate.sim.clock import VirtualTimeline

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="tier: owners want root")


def tar(**changes: Any) -> bytes:
    """Make an archive of the usual things; `changes` go to the program in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        folder = tarfile.TarInfo("./bin")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o550
        made.addfile(folder)
        program = tarfile.TarInfo("./bin/run")
        program.size, program.mode, program.mtime = 7, 0o755, 1_700_000_000
        for key, value in changes.items():
            setattr(program, key, value)
        made.addfile(program, io.BytesIO(b"program"))
        for name, kind, target in (("now", b"2", "bin/run"), ("again", b"1", "./bin/run")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            made.addfile(member)
        deep = tarfile.TarInfo("made/by/the/way/" + "n" * 200)
        made.addfile(deep)
    return out.getvalue()


class Bench:
    """A board with folders for slots and one component, and a release of an archive."""

    def __init__(
        self, folder: Path, body: bytes, *, beside: bool, keep: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.slot = folder / "slot-B"
        self.slot.mkdir(exist_ok=True)
        (folder / "slot-A").mkdir(exist_ok=True)
        loader = load(
            "file", {"path": str(folder / "boot.json"), "slots": ["A", "B"], "current": "A"}
        )
        slots = {name: (str(folder / f"slot-{name}"), None) for name in "AB"}
        self.board = RealBoard(
            slots, loader, "exit:1", str(folder / "seen"), {"app": str(folder / "app")}
        )
        self.clock = SystemClock()
        self.storage = StateDirectory(str(folder / "state"))
        size, digest = measure(io.BytesIO(body).read, frozenset(keep))
        made = make_release(2)
        target = msgspec.structs.replace(
            made.target.release,
            component="app" if beside else "rootfs",
            format="archive",
            install=Install(size=size, sha256=digest),
            package=install_of(body),
            payloads=(payload_of(contain(body)),),
            settings={"keep": list(keep)} if keep else {},
        )
        self.transport = Plane(VirtualTimeline(), (made,))
        self.transport.blobs[target.full.sha256] = contain(body)
        self.update = Update(
            update="u-1",
            release=target,
            slot="" if beside else "B",
            places=(Place(component="app", kind="component"),) if beside else (),
        )
        self.settings = settings(spool=str(folder / "spool"))

    def stage(self) -> None:
        """Download and read back."""
        world: Any = self
        job = Download(update=self.update, progress=None)
        for _ in archive.download(world, self.settings, job, None):
            pass
        self.read_back()

    def read_back(self) -> None:
        """Read back."""
        world: Any = self
        archive.read_back(world, self.settings, ReadBack(update=self.update))


def is_there(folder: Path) -> None:
    """Hold a folder against the usual archive."""
    assert (folder / "now").readlink() == Path("bin/run")
    assert (folder / "again").read_bytes() == b"program"
    assert (folder / "bin" / "run").stat().st_nlink == 2
    assert (folder / "bin" / "run").stat().st_mtime == 1_700_000_000
    assert (folder / "bin").stat().st_mode & 0o7777 == 0o550
    assert (folder / "made" / "by").stat().st_mode & 0o7777 == 0o755
    assert folder.stat().st_mode & 0o7777 == 0o755


def test_a_slot_that_is_a_folder_holds_the_tree_and_nothing_else(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tar(), beside=False)
    (bench.slot / "left over").mkdir()
    (bench.slot / "left over" / "file").touch()
    bench.stage()
    is_there(bench.slot)
    assert not (bench.slot / "left over").exists()
    assert list((tmp_path / "slot-A").iterdir()) == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_component_gets_its_tree_in_the_idle_copy_and_is_switched_at_once(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, tar(), beside=True)
    bench.stage()
    app = tmp_path / "app"
    is_there(app / "a")
    assert not (app / "current").exists()
    world: Any = bench
    archive.change(world, bench.settings, bench.update, 0, "activate")
    assert (app / "current").readlink() == Path("a")
    archive.change(world, bench.settings, bench.update, 0, "roll_back")
    assert not (app / "current").is_symlink()
    archive.change(world, bench.settings, bench.update, 0, "discard")
    assert list(app.iterdir()) == []
    assert two_copies.read(world, "app") is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda tree: (tree / "again").write_bytes(b"another"),
        lambda tree: (tree / "bin" / "run").chmod(0o4755),
        lambda tree: (tree / "more").touch(),
        lambda tree: (tree / "now").unlink(),
        lambda tree: ((tree / "now").unlink(), (tree / "now").symlink_to("made")),
        lambda tree: os.mkfifo(tree / "pipe"),
        lambda tree: (tree / "empty").mkdir(),
    ],
)
def test_what_stands_there_is_read_back_and_not_believed(tmp_path: Path, harm: Any) -> None:
    bench = Bench(tmp_path, tar(), beside=False)
    bench.stage()
    harm(bench.slot)
    with pytest.raises(DeviceError) as caught:
        bench.read_back()
    assert caught.value.code == "install.readback"


def test_a_slot_that_is_no_folder_takes_no_archive_and_the_other_way_round(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tar(), beside=False)
    world: Any = bench
    with pytest.raises(DeviceError) as caught:
        list(
            raw_image.download(
                world, bench.settings, Download(update=bench.update, progress=None), None
            )
        )
    assert caught.value.code == "install.slot"
    bench.slot.rmdir()
    bench.slot.write_bytes(bytes(4096))
    with pytest.raises(DeviceError) as caught:
        bench.stage()
    assert caught.value.code == "install.slot"


def test_a_tree_may_keep_absolute_links_where_its_signers_say_so(tmp_path: Path) -> None:
    body = tar(type=tarfile.SYMTYPE, linkname="/etc/run", size=0)
    with pytest.raises(PublisherError):
        measure(io.BytesIO(body).read)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        link = tarfile.TarInfo("sh")
        link.type, link.linkname = tarfile.SYMTYPE, "/bin/busybox"
        made.addfile(link)
    bench = Bench(tmp_path, out.getvalue(), beside=False, keep=("absolute_links",))
    bench.stage()
    assert (bench.slot / "sh").readlink() == Path("/bin/busybox")


@root_only
def test_owners_and_special_bits_are_kept_where_the_signers_say_so(tmp_path: Path) -> None:
    body = tar(uid=1234, gid=4321, mode=0o4755)
    keep = ("owners", "special_bits")
    bench = Bench(tmp_path, body, beside=False, keep=keep)
    bench.stage()
    found = (bench.slot / "bin" / "run").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1234, 4321, 0o4755)
    os.chown(bench.slot / "bin" / "run", 0, 0)
    with pytest.raises(DeviceError):
        bench.read_back()


def test_without_such_a_word_nothing_of_it_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tar(uid=1234, gid=4321), beside=False)
    bench.stage()
    assert (bench.slot / "bin" / "run").stat().st_uid == os.geteuid()
    with pytest.raises(PublisherError):
        measure(io.BytesIO(tar(mode=0o4755)).read)


def test_a_word_that_this_agent_does_not_know_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, tar(), beside=False)
    release = msgspec.structs.replace(bench.update.release, settings={"keep": ["xattrs"]})
    bench.update = msgspec.structs.replace(bench.update, release=release)
    with pytest.raises(PublisherError) as caught:
        bench.stage()
    assert caught.value.code == "compat.agent"


def test_the_live_copy_is_never_written(tmp_path: Path) -> None:
    folder = ComponentFolder(str(tmp_path))
    folder.open("a", 10).close()
    folder.make_live("a")
    for work in (lambda: folder.open("a", 10), lambda: folder.drop("a")):
        with pytest.raises(DeviceError) as caught:
            work()
        assert caught.value.code == "install.slot"
    with pytest.raises(DeviceError):
        folder.make_live("b")
    assert folder.live() == "a"


def test_a_link_that_somebody_else_made_is_no_copy(tmp_path: Path) -> None:
    folder = ComponentFolder(str(tmp_path))
    (tmp_path / "current").symlink_to("/etc")
    assert folder.live() == ""
    folder.open("a", 10).close()
    folder.make_live("a")
    assert (tmp_path / "current").readlink() == Path("a")


def test_no_room_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, tar(), beside=False)

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.tar"
    path.write_bytes(tar())
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DeviceError) as caught:
        unpack.unpack(str(path), str(bench.slot), frozenset())
    assert caught.value.code == "install.space"
