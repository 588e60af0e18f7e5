"""The power goes away while archives and update modules change real folders: around every durable step of the agent and of what it calls.

The slot, the journal and the boot loader are simulated; the component's folder, its files and the module's processes are real. What was not flushed when the
power went is damaged afterwards.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from tests.crash.lab import Order, make_device
from tests.crash.releases import Release, contain, install_of, make_joint, payload_of

from tidegate.agent import files
from tidegate.agent.install import module_tree, unpack
from tidegate.agent.install.component_folder import ComponentFolder
from tidegate.agent.state import Confirming, Idle
from tidegate.core.archive import measure
from tidegate.core.release import Install, Part
from tidegate.core.ustar import END, header, padding
from tidegate.sim.disk import Power
from tidegate.sim.faults import Behaviour, Cut, CutMode

pytestmark = [pytest.mark.crash, pytest.mark.timeout(600)]

#: An update module as short as one can be: keeps the old file, writes the new one, puts the old one back.
MODULE = """#!/bin/sh
case "$1" in
SupportsRollback) echo Yes;;
ArtifactInstall) to=$(cat files/to); cp "$to" tmp/old; cp files/new "$to";;
ArtifactRollback) test ! -f tmp/old || cp tmp/old "$(cat files/to)";;
esac
"""


class Folder(ComponentFolder):
    """A real folder on a device whose power may go."""

    def __init__(self, path: Path, power: Power) -> None:
        super().__init__(str(path))
        self._power = power
        self.flushed = True

    def make_live(self, copy: str) -> None:
        """Switch."""
        cut = self._power.operation("component.switch")
        if cut == "before":
            self._power.fail()
        super().make_live(copy)
        if cut is not None:
            self._power.fail()

    def drop(self, copy: str) -> None:
        """Remove."""
        self._power.check()
        super().drop(copy)

    def lose(self) -> None:
        """Damage what was not flushed: a file that lost its end, and one that is gone."""
        if self.flushed:
            return
        self.flushed = True
        idle = Path(self.path) / ("b" if self.live() == "a" else "a")
        files = sorted(one for one in idle.rglob("*") if one.is_file() and not one.is_symlink())
        for number, one in enumerate(files):
            one.unlink() if number % 2 else os.truncate(one, 1)


def tar_of(counter: int) -> bytes:
    """Make an archive of a few files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("version", "bin/run", "share/data"):
            body = f"{counter} {name}\n".encode() * 100
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    return out.getvalue()


def archive_part(body: bytes) -> Part:
    """Describe an archive."""
    size, digest = measure(io.BytesIO(body).read)
    return Part(
        component="app",
        format="archive",
        install=Install(size=size, sha256=digest),
        package=install_of(body),
        payloads=(payload_of(contain(body)),),
    )


def module_part(files: dict[str, str]) -> tuple[Part, bytes]:
    """Describe an update for the module `one-file`."""
    body = b"".join(
        header(name, len(text)) + text.encode() + padding(len(text)) for name, text in files.items()
    )
    body += END
    part = Part(
        component="app",
        format="module",
        install=install_of(body),
        payloads=(payload_of(contain(body)),),
        settings={"module": "one-file"},
    )
    return part, body


def joint(part: Part, body: bytes) -> Release:
    """Make a release of an image with one part."""
    made = make_joint(2, {}, {"parts": (part,), "crit": ("parts",)})
    return replace(made, containers=(contain(body),))


class Bench:
    """One device with one real folder, and what its component must be."""

    modes: ClassVar[tuple[CutMode, ...]] = ("before", "torn", "after")

    def __init__(
        self, release: Release, folder: Path, behaviour: Behaviour | None, **settings: Any
    ) -> None:
        self.device = make_device(
            1,
            release,
            behaviours={2: behaviour} if behaviour else {},
            spool=str(folder / "spool"),
            allow=("raw_image", "archive", "module"),
            **settings,
        )
        self.device.settings = msgspec.structs.replace(self.device.settings, beside=("app",))
        self.folder = Folder(folder / "app", self.device.board.power)
        self.device.board.components["app"] = self.folder  # type: ignore[assignment]
        self.device.plane.order = Order("install", self.device.plane.releases[1], "u-1")

    def run(self) -> Iterator[str]:
        """Run to the end; yield what is mixed although it is for good."""
        device = self.device
        for runner in device.run(60_000):
            state = runner.state
            if device.plane.outcomes():
                device.plane.order = None
            if isinstance(state.phase, Confirming) and state.phase.loader:
                yield f"new {self.content()}" if self.content() != "new" else ""
            quiet = isinstance(state.phase, Idle) and not state.outbox and not state.leftovers
            if quiet and device.plane.order is None and not runner.busy:
                return

    def content(self) -> str:
        """Say what the component is; overridden by what it is about."""
        raise NotImplementedError


class Archived(Bench):
    """A component of two trees."""

    def __init__(self, folder: Path, behaviour: Behaviour | None) -> None:
        body = tar_of(2)
        super().__init__(joint(archive_part(body), body), folder, behaviour)
        old = Path(self.folder.path) / "a"
        archive = folder / "old.tar"
        archive.write_bytes(tar_of(1))
        unpack.unpack(str(archive), str(old), frozenset())
        ComponentFolder.make_live(self.folder, "a")

    def content(self) -> str:
        """Compare the live tree with both releases."""
        live = Path(self.folder.path) / "current"
        found = unpack.tree_digest(str(live.resolve()), frozenset())
        names = {
            measure(io.BytesIO(tar_of(one)).read): word for one, word in ((1, "old"), (2, "new"))
        }
        return names.get(found, "neither")


class Moduled(Bench):
    """A component that an update module changes. What was done before a record of it was written is where this differs from the rest."""

    modes: ClassVar[tuple[CutMode, ...]] = ("before",)

    def __init__(self, folder: Path, behaviour: Behaviour | None) -> None:
        self.target = folder / "etc"
        self.target.mkdir()
        (self.target / "motd").write_text("old")
        modules = folder / "modules"
        modules.mkdir()
        (modules / "one-file").write_text(MODULE)
        (modules / "one-file").chmod(0o755)
        given = {"to": str(self.target / "motd"), "new": "new"}
        super().__init__(
            joint(*module_part(given)),
            folder,
            behaviour,
            installers={"module": {"directory": str(modules)}},
        )

    def content(self) -> str:
        """Read the file."""
        return (self.target / "motd").read_text()


Kind = type[Archived] | type[Moduled]


def hook(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    """Let the power go at flushes and at the module's record, too."""
    power, write = bench.device.board.power, files.replace_file

    def flushed() -> None:
        bench.folder.flushed = False
        cut = power.operation("flush")
        if cut in ("before", "torn"):
            power.fail()
        # Not in fact: the machine's own disks are nobody's business here.
        bench.folder.flushed = True
        if cut is not None:
            power.fail()

    def written(path: str | os.PathLike[str], data: bytes, mode: int = 0o600) -> None:
        cut = power.operation("module.record")
        if cut in ("before", "torn"):
            power.fail()
        write(path, data, mode)
        if cut is not None:
            power.fail()

    monkeypatch.setattr(os, "sync", flushed)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)
    monkeypatch.setattr(module_tree, "replace_file", written)


def tell(kind: Kind, folder: Path, behaviour: Behaviour | None, *cuts: Cut) -> list[str]:
    """Run one story; return what was wrong."""
    folder.mkdir(parents=True)
    bench = kind(folder, behaviour)
    board = bench.device.board
    board.power.arm(*cuts)
    with pytest.MonkeyPatch.context() as monkeypatch:
        hook(monkeypatch, bench)
        wrong = [one for one in bench.run() if one]
    kinds = [word for word, _ in bench.device.plane.outcomes()]
    ended = (bench.device.runs, bench.content(), *kinds)
    good = {(1, "old", "reverted"), (1, "old", "failed")}
    if behaviour is None:
        good.add((2, "new", "confirmed"))
        if not cuts:
            good = {(2, "new", "confirmed")}
    if ended not in good:
        wrong.append(f"ended as {ended}")
    if board.history.torn_boots:
        wrong.append("a torn image was booted")
    if [one for one in board.storage.files if one.startswith("component.")]:
        wrong.append("a record was left behind")
    return [f"{cuts} {board.power.cut_at}: {one}" for one in wrong]


def operations(kind: Kind, folder: Path, behaviour: Behaviour | None) -> int:
    """Count the durable operations of an uncut story, which must end well."""
    counted: list[int] = []
    start = Power.operation

    def counting(self: Power, name: str) -> CutMode | None:
        counted.append(1)
        return start(self, name)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Power, "operation", counting)
        assert tell(kind, folder, behaviour) == []
    return len(counted)


@pytest.mark.parametrize("behaviour", [None, Behaviour(service=False)], ids=["good", "bad"])
@pytest.mark.parametrize("kind", [Archived, Moduled])
def test_every_cut_around_a_real_folder_leaves_all_old_or_all_new(
    kind: Kind, behaviour: Behaviour | None, tmp_path: Path
) -> None:
    count = operations(kind, tmp_path / "whole", behaviour)
    wrong = [
        one
        for operation in range(1, count + 1)
        for mode in kind.modes
        for one in tell(kind, tmp_path / f"{operation}-{mode}", behaviour, Cut(operation, mode))
    ]
    assert wrong == []
    assert count > 20


def test_the_digest_of_a_tree_is_that_of_its_archive(tmp_path: Path) -> None:
    body = tar_of(3)
    archive = tmp_path / "a.tar"
    archive.write_bytes(body)
    unpack.unpack(str(archive), str(tmp_path / "tree"), frozenset())
    assert unpack.tree_digest(str(tmp_path / "tree"), frozenset()) == measure(io.BytesIO(body).read)
    (tmp_path / "tree" / "version").write_bytes(hashlib.sha256(body).digest())
    assert unpack.tree_digest(str(tmp_path / "tree"), frozenset()) != measure(io.BytesIO(body).read)
