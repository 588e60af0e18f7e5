"""Update modules, protocol version 3: which states a module is called with, in which order, with which tree; and what an interruption means."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.crash.lab import Plane
from tests.crash.releases import SLOT_SIZE, contain, install_of, make_release, payload_of
from tests.unit.agent.test_download import settings

from tidegate.agent.board import SystemClock
from tidegate.agent.events import Act, Download, ReadBack
from tidegate.agent.files import StateDirectory
from tidegate.agent.install.component_folder import ComponentFolder
from tidegate.agent.install.module_tree import RECORD, Record
from tidegate.agent.installers import Done, module
from tidegate.agent.settings import Settings
from tidegate.agent.state import Place, Update
from tidegate.core.errors import DeviceError, PublisherError
from tidegate.core.ustar import END, header, padding
from tidegate.sim.clock import VirtualTimeline

#: Writes down how it is called; says what it is told to say by files beside it.
LOGGER = """#!/bin/sh
here=$(dirname "$0")
echo "$1" >> "$here/calls"
echo "$PWD|$2" > "$here/where"
test -f "$here/$1.out" && cat "$here/$1.out"
test -f "$here/$1.do" && . "$here/$1.do"
test -f "$here/$1.fails" && exit 3
exit 0
"""
STREAMS = """
while read -r name < "$2/stream-next" && test -n "$name"; do cat "$2/$name" > "$2/tmp/$(basename "$name")"; done
"""
FILES = {"first": "one\n", "second": "two " * 50_000}


def payload(files: dict[str, str]) -> bytes:
    """Make a module's payload."""
    parts = (
        header(name, len(text)) + text.encode() + padding(len(text)) for name, text in files.items()
    )
    return b"".join(parts) + END


class Bench:
    """One component, one update module, one payload."""

    def __init__(self, folder: Path, files: dict[str, str] | None = None, **signed: str) -> None:
        self.folder = folder
        self.modules = folder / "modules"
        self.modules.mkdir()
        self.program = self.modules / "logger"
        self.program.write_text(LOGGER)
        self.program.chmod(0o755)
        self.say("SupportsRollback", "Yes")
        self.clock = SystemClock()
        self.storage = StateDirectory(str(folder / "state"))
        self.board = self
        body = payload(FILES if files is None else files)
        made = make_release(2)
        target = msgspec.structs.replace(
            made.target.release,
            component="app",
            format="module",
            install=install_of(body),
            payloads=(payload_of(contain(body)),),
            settings={"module": "logger", **signed},
        )
        self.transport = Plane(VirtualTimeline(), (made,))
        self.transport.blobs[target.full.sha256] = contain(body)
        self.update = Update(
            update="u-1",
            release=target,
            slot="",
            from_counter=1,
            places=(Place(component="app", kind="component"),),
        )
        self.settings: Settings = settings(
            spool=str(folder / "spool"),
            installers={"module": {"directory": str(self.modules), "timeout_s": 5}},
        )

    def component(self, name: str) -> ComponentFolder:
        """Return the folder."""
        assert name == "app"
        return ComponentFolder(str(self.folder / "app"))

    def say(self, state: str, text: str) -> None:
        """Have the module answer."""
        (self.modules / f"{state}.out").write_text(text + "\n")

    def do(self, state: str, text: str) -> None:
        """Have the module do something."""
        (self.modules / f"{state}.do").write_text(text)

    def fails(self, state: str) -> None:
        """Have the module fail."""
        (self.modules / f"{state}.fails").touch()

    def calls(self) -> list[str]:
        """Return the states that the module was called with since the last time."""
        path = self.modules / "calls"
        found = path.read_text().split() if path.exists() else []
        path.write_text("")
        return found

    def stage(self) -> None:
        """Download and read back."""
        world: Any = self
        for _ in self._download(world):
            pass
        module.read_back(world, self.settings, ReadBack(update=self.update))

    def _download(self, world: Any) -> Iterator[object]:
        return module.download(
            world, self.settings, Download(update=self.update, progress=None), None
        )

    def act(self, act: Act) -> Done:
        """Do one thing."""
        world: Any = self
        return module.change(world, self.settings, self.update, 0, act)

    def refused(self, act: Act) -> str:
        """Do one thing that must fail; return why."""
        with pytest.raises(DeviceError) as caught:
            self.act(act)
        assert caught.value.code == "install.installer"
        return caught.value.detail

    @property
    def tree(self) -> Path:
        return self.folder / "app" / "tree"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    assert SLOT_SIZE
    return Bench(tmp_path)


def test_a_good_update_calls_the_states_of_the_protocol_in_order(bench: Bench) -> None:
    bench.stage()
    assert bench.calls() == ["Download", "SupportsRollback"]
    assert bench.act("activate") == Done()
    assert bench.calls() == ["ArtifactInstall", "NeedsArtifactReboot"]
    assert bench.act("commit") == Done(final=True)
    bench.act("discard")
    assert bench.calls() == ["ArtifactCommit", "Cleanup"]
    assert list((bench.folder / "app").iterdir()) == []


def test_a_module_that_reads_no_streams_finds_the_files(bench: Bench) -> None:
    bench.stage()
    found = {one.name: one.read_text() for one in (bench.tree / "files").iterdir()}
    assert found == FILES
    where, _, tree = (bench.modules / "where").read_text().strip().partition("|")
    assert where == tree == str(bench.tree)


def test_a_module_that_reads_streams_gets_each_once_and_then_the_end(bench: Bench) -> None:
    bench.do("Download", STREAMS)
    bench.stage()
    found = {one.name: one.read_text() for one in (bench.tree / "tmp").iterdir()}
    assert found == FILES
    assert list((bench.tree / "files").iterdir()) == []


def test_a_module_that_stops_reading_has_failed(bench: Bench) -> None:
    bench.do("Download", 'read -r name < "$2/stream-next"; head -c 1 "$2/$name" > /dev/null')
    with pytest.raises(DeviceError) as caught:
        bench.stage()
    assert "left files unread" in caught.value.detail


def test_the_tree_says_what_it_is_about(bench: Bench) -> None:
    bench.stage()
    texts = {
        name: (bench.tree / name).read_text().strip()
        for name in ("version", "current_artifact_name", "current_device_type")
    }
    assert texts == {
        "version": "3",
        "current_artifact_name": "gw1-1",
        "current_device_type": "gw1",
    }
    assert (bench.tree / "header" / "payload_type").read_text() == "logger"
    assert (bench.tree / "header" / "artifact_name").read_text() == "gw1-1.2"
    assert '"type": "logger"' in (bench.tree / "header" / "type-info").read_text()


def test_a_failure_is_taken_back_and_cleaned_up_after(bench: Bench) -> None:
    bench.stage()
    bench.fails("ArtifactInstall")
    bench.calls()
    assert "ArtifactInstall: exit status 3" in bench.refused("activate")
    bench.act("roll_back")
    bench.act("discard")
    assert bench.calls() == [
        "ArtifactInstall",
        "ArtifactRollback",
        "NeedsArtifactReboot",
        "ArtifactFailure",
        "Cleanup",
    ]


@pytest.mark.parametrize(
    ("answer", "during", "restart"),
    [
        ("No", [], False),
        ("Automatic", [], True),
        ("Yes", ["ArtifactReboot", "ArtifactVerifyReboot"], False),
    ],
)
def test_restarts_are_those_that_the_module_asks_for(
    bench: Bench, answer: str, during: list[str], restart: bool
) -> None:
    bench.say("NeedsArtifactReboot", answer)
    bench.stage()
    bench.calls()
    assert bench.act("activate") == Done(restart=restart)
    assert bench.calls() == ["ArtifactInstall", "NeedsArtifactReboot", *during]
    bench.act("verify")
    assert bench.calls() == (["ArtifactVerifyReboot"] if restart else [])
    assert bench.act("roll_back") == Done(restart=restart)
    back = ["ArtifactRollbackReboot", "ArtifactVerifyRollbackReboot"] if answer == "Yes" else []
    assert bench.calls() == ["ArtifactRollback", *back]
    bench.act("verify_back")
    assert bench.calls() == (["ArtifactVerifyRollbackReboot"] if restart else [])


@pytest.mark.parametrize(
    ("state", "act"),
    [
        ("ArtifactInstall", "activate"),
        ("ArtifactVerifyReboot", "verify"),
        ("ArtifactCommit", "commit"),
    ],
)
def test_a_state_that_was_interrupted_has_failed(bench: Bench, state: str, act: Act) -> None:
    bench.say("NeedsArtifactReboot", "Automatic")
    bench.stage()
    if act != "activate":
        bench.act("activate")
    record = msgspec.json.decode((bench.folder / "app" / RECORD).read_bytes(), type=Record)
    cut = msgspec.structs.replace(record, begun=state, touched=True)
    (bench.folder / "app" / RECORD).write_bytes(msgspec.json.encode(cut))
    bench.calls()
    assert f"{state} was interrupted" in bench.refused(act)
    assert bench.calls() == []
    bench.act("roll_back")
    assert bench.calls()[0] == "ArtifactRollback"


def test_a_restart_in_the_middle_of_the_modules_own_one_goes_on_after_it(bench: Bench) -> None:
    bench.say("NeedsArtifactReboot", "Yes")
    bench.fails("ArtifactReboot")
    bench.stage()
    bench.refused("activate")
    bench.calls()
    assert bench.act("activate") == Done()
    assert bench.calls() == ["ArtifactVerifyReboot"]


def test_what_ended_well_is_not_done_again(bench: Bench) -> None:
    bench.stage()
    bench.stage()
    assert bench.calls() == ["Download", "SupportsRollback"]
    for act in ("activate", "commit"):
        bench.act(act)
        bench.calls()
        bench.act(act)
        assert bench.calls() == []
    assert "was committed" in bench.refused("roll_back")


def test_a_download_that_was_interrupted_begins_anew(bench: Bench) -> None:
    bench.fails("Download")
    with pytest.raises(DeviceError):
        bench.stage()
    (bench.modules / "Download.fails").unlink()
    bench.stage()
    assert bench.calls() == ["Download", "Cleanup", "Download", "SupportsRollback"]


def test_a_download_that_failed_is_cleaned_up_after_and_nothing_else(bench: Bench) -> None:
    bench.fails("Download")
    with pytest.raises(DeviceError):
        bench.stage()
    bench.act("discard")
    assert bench.calls() == ["Download", "Cleanup"]


def test_a_module_that_cannot_roll_back_is_refused_unless_the_release_accepts_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "first").mkdir()
    strict = Bench(tmp_path / "first")
    strict.say("SupportsRollback", "No")
    with pytest.raises(DeviceError) as caught:
        strict.stage()
    assert "cannot roll back" in caught.value.detail
    assert "ArtifactInstall" not in strict.calls()
    (tmp_path / "second").mkdir()
    accepting = Bench(tmp_path / "second", rollback="none")
    accepting.say("SupportsRollback", "No")
    accepting.stage()
    accepting.act("activate")
    accepting.calls()
    assert "cannot roll back" in accepting.refused("roll_back")
    assert accepting.calls() == []


@pytest.mark.parametrize("answer", ["Maybe", "yes", "Yes\nYes"])
def test_an_answer_that_the_protocol_does_not_know_is_a_failure(bench: Bench, answer: str) -> None:
    bench.say("NeedsArtifactReboot", answer)
    bench.stage()
    assert "NeedsArtifactReboot" in bench.refused("activate")


def test_a_module_that_hangs_is_ended(bench: Bench, tmp_path: Path) -> None:
    bench.settings = settings(
        spool=str(tmp_path / "spool"),
        installers={"module": {"directory": str(bench.modules), "timeout_s": 1}},
    )
    bench.stage()
    bench.do("ArtifactInstall", "sleep 100")
    assert "no answer in 1 s" in bench.refused("activate")


def test_errors_of_a_module_are_no_answer(bench: Bench) -> None:
    bench.do("SupportsRollback", "echo warning >&2")
    bench.stage()
    assert bench.calls() == ["Download", "SupportsRollback"]


@pytest.mark.parametrize("name", ["../logger", "/bin/sh", "", "a b", "logger\n", "-x/y", "ä"])
def test_a_module_is_named_by_a_plain_name(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path, module=name)
    with pytest.raises(PublisherError) as caught:
        bench.stage()
    assert caught.value.code == "sig.malformed"
    assert bench.calls() == []


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, module="nothing")
    with pytest.raises(DeviceError) as caught:
        bench.stage()
    assert f"no update module {bench.modules}/nothing" in caught.value.detail


@pytest.mark.parametrize(
    "files", [{"a/b": "x"}, {".hidden": "x"}, {"a\nb": "x"}, {"a": "x", "./a": "y"}]
)
def test_a_payload_that_is_no_list_of_files_is_refused(
    tmp_path: Path, files: dict[str, str]
) -> None:
    bench = Bench(tmp_path, files)
    with pytest.raises(PublisherError) as caught:
        bench.stage()
    assert caught.value.code == "sig.malformed"
    assert not (bench.folder / "app" / "tree" / "files" / "b").exists()
