"""What an update module (protocol version 3) works in: its file tree, its streams, and a durable record of how far it came.

The tree lies in the component's folder and stays there until the update is over. Whether a state was begun is written down before the module is called and
that it ended after it: a record that says "begun" on the next start is what the protocol calls a state that was interrupted.
"""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from tidegate.agent.files import replace_file, sync_directory
from tidegate.agent.install.tool import Tool
from tidegate.agent.jobs import Quiet
from tidegate.core.content import files_of
from tidegate.core.errors import DeviceError, PublisherError
from tidegate.core.ustar import Reader

RECORD: Final = "record.json"
TREE: Final = "tree"
_LOOK_S: Final = 0.02


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a module came with the payload `sha256`.

    Attributes:
        begun: the state that it was called with and did not end.
        staged: it has the files; nothing was changed yet.
        backs: it can take back what it installs.
        touched: it was called to install: something may be changed.
        installed, verified, committed, taken_back: those states ended well.
        restart: its answer to `NeedsArtifactReboot`; "" = not asked.
    """

    sha256: str
    begun: str = ""
    staged: bool = False
    backs: bool = False
    touched: bool = False
    installed: bool = False
    verified: bool = False
    committed: bool = False
    taken_back: bool = False
    restart: str = ""


class ModuleTree:
    """The tree of one component.

    Args:
        folder: of the component.
        module: path of the update module.
        timeout_s: how long one call may take.
    """

    def __init__(self, folder: str, module: str, timeout_s: float) -> None:
        self._folder = Path(folder)
        self._module = module
        self._timeout_s = timeout_s
        self.path = self._folder / TREE

    # --- the record -----------------------------------------------------------------------------------------------------

    def read(self) -> Record | None:
        """Return the record, or None; a damaged one is none."""
        try:
            return msgspec.json.decode((self._folder / RECORD).read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            return None

    def keep(self, record: Record) -> Record:
        """Write the record down, durably."""
        replace_file(self._folder / RECORD, msgspec.json.encode(record))
        return record

    def remove(self) -> None:
        """Remove tree and record. Safe to repeat.

        Raises:
            DeviceError: `install.write`.
        """
        try:
            if self.path.exists():
                shutil.rmtree(self.path)
            (self._folder / RECORD).unlink(missing_ok=True)
            sync_directory(str(self._folder))
        except OSError as error:
            raise DeviceError("install.write", f"{self.path}: {error.strerror}") from error

    # --- the tree -------------------------------------------------------------------------------------------------------

    def make(self, facts: dict[str, str]) -> None:
        """Make an empty tree with the files that say what this is about, by their paths in it.

        Raises:
            DeviceError: `install.write`, `install.space`.
        """
        try:
            self.path.mkdir(mode=0o700)
            for name in ("header", "tmp", "files", "streams"):
                (self.path / name).mkdir()
            for name, text in facts.items():
                (self.path / name).write_text(text)
            os.mkfifo(self.path / "stream-next", 0o600)
        except OSError as error:
            raise _unwritable(error, str(self.path)) from error

    def download(self, package: str) -> Iterator[Quiet]:
        """Call the module with `Download` and offer it the files as streams; store them where it wants none. Durable at the end.

        Args:
            package: path of the payload, whose digest was held against the signed one.

        Raises:
            DeviceError: `install.installer`: the module failed; `install.write`, `install.space`.
            PublisherError: `sig.malformed`.
        """
        tool = self._tool("Download")
        offer = _Offer(self.path, package)
        offer.start()
        try:
            yield from tool.run()
        finally:
            offer.end()
        self._log("Download", tool.output)
        if offer.error is not None:
            raise offer.error
        if tool.status != 0:
            raise DeviceError("install.installer", self._failure(tool, "Download"))
        if offer.begun and not offer.done:
            raise DeviceError("install.installer", f"{self.name}: Download left files unread")
        if not offer.begun:
            self._store(package)
        os.sync()

    def _store(self, package: str) -> None:
        try:
            with open(package, "rb") as file:  # noqa: PTH123 - as above
                reader = Reader(file.read)
                for name, _ in files_of(reader):
                    with (self.path / "files" / name).open("xb") as out:
                        for piece in reader.pieces():
                            out.write(piece)
        except OSError as error:
            raise _unwritable(error, str(self.path)) from error

    # --- calls ----------------------------------------------------------------------------------------------------------

    def call(self, state: str) -> None:
        """Call the module with a state, wait for its end.

        Raises:
            DeviceError: `install.installer`: it failed, hung, or is not there.
        """
        tool = self._tool(state)
        for _ in tool.run():
            pass
        self._log(state, tool.output)
        if tool.status != 0:
            raise DeviceError("install.installer", self._failure(tool, state))

    def ask(self, question: str, answers: tuple[str, ...]) -> str:
        """Ask the module something; the first of `answers` stands for no answer.

        Raises:
            DeviceError: `install.installer`: it failed, or answered something else.
        """
        tool = self._tool(question, apart=True)
        for _ in tool.run():
            pass
        answer = tool.output.strip() or answers[0]
        if tool.status != 0 or answer not in answers:
            detail = f"{self.name}: {question}: {answer[:80]!r}, exit status {tool.status}"
            raise DeviceError("install.installer", detail)
        return answer

    def _tool(self, state: str, *, apart: bool = False) -> Tool:
        return Tool(
            [self._module, state, str(self.path)],
            timeout_s=self._timeout_s,
            cwd=str(self.path),
            apart=apart,
        )

    @property
    def name(self) -> str:
        """Return its name, for people."""
        return f"module {Path(self._module).name}"

    def _failure(self, tool: Tool, state: str) -> str:
        return f"{self.name}: {state}: exit status {tool.status}: {tool.last()}"[:400]

    def _log(self, state: str, output: str) -> None:
        """What a module prints goes where this process' own words go: the journal of the system."""
        for line in output.splitlines()[-50:]:
            text = f"{self.name}: {state}: {line[:400]}\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode("utf-8", "replace"))


class _Offer(threading.Thread):
    """Serves `stream-next` and `streams/NAME` to a module that reads them; never waits for one that does not.

    Attributes:
        begun: the module asked for the first stream.
        done: it read all of them to their ends.
        error: what was wrong with the payload.
    """

    def __init__(self, tree: Path, package: str) -> None:
        super().__init__(daemon=True)
        self._tree = tree
        self._package = package
        self._over = threading.Event()
        self.begun = False
        self.done = False
        self.error: PublisherError | None = None

    def end(self) -> None:
        """Stop: the module is gone."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Offer one stream after the other, and then the end of them."""
        try:
            self._serve()
        except PublisherError as error:
            self.error = error
        except OSError:
            # The module closed its end, which its exit status and `done` tell.
            pass

    def _serve(self) -> None:
        following = self._tree / "stream-next"
        with open(self._package, "rb") as file:  # noqa: PTH123 - a text, as elsewhere in this layer
            reader = Reader(file.read)
            for name, _ in files_of(reader):
                stream = self._tree / "streams" / name
                os.mkfifo(stream, 0o600)
                if not self._write(following, iter([f"streams/{name}\n".encode()])):
                    return
                if not self._write(stream, reader.pieces()):
                    return
        self.done = True
        # An empty read says that there are no more.
        self._write(following, iter(()))

    def _write(self, fifo: Path, pieces: Iterator[bytes]) -> bool:
        handle = self._opened(fifo)
        if handle is None:
            return False
        self.begun = True
        try:
            os.set_blocking(handle, True)
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(handle, view) :]
        finally:
            os.close(handle)
        return True

    def _opened(self, fifo: Path) -> int | None:
        """Wait until somebody reads; None when the module is gone."""
        while not self._over.is_set():
            try:
                return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            self._over.wait(_LOOK_S)
        return None


def _unwritable(error: OSError, where: str) -> DeviceError:
    full = error.errno in (28, 122)  # ENOSPC, EDQUOT
    return DeviceError("install.space" if full else "install.write", f"{where}: {error.strerror}")
