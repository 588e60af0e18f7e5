"""A program `docker` for shells of a guide: it hands what it was asked to the services that are started by hand, over a socket.

It knows `docker compose` with what the guide uses, and refuses the rest.
"""

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.byhand.composed import Composed

_SHIM: Final = """#!/usr/bin/env python3
import json, os, socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect({place!r})
line.sendall(json.dumps([os.getcwd(), sys.argv[1:]]).encode() + b"\\n")
code, said, wrong = json.loads(line.makefile().readline())
sys.stdout.write(said)
sys.stderr.write(wrong)
sys.exit(code)
"""

#: Makes the services of these files, in this order, out of the environment of a file `.env` beside the first.
Make = Callable[[list[Path], dict[str, str]], Composed]


class Docker:
    """The engine behind the program.

    Attributes:
        composed: the services; None until they were first asked for.
        built: how often the image was built.
    """

    def __init__(self, bin_folder: Path, place: Path, make: Make, build: Callable[[], None]) -> None:  # fmt: skip
        """Put the program into `bin_folder`, and listen at `place`."""
        self._make, self._build = make, build
        self.composed: Composed | None = None
        self.built = 0
        self._files: list[Path] = []
        self._lock = threading.RLock()
        program = bin_folder / "docker"
        program.write_text(_SHIM.format(place=str(place)))
        program.chmod(0o755)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """End the services, and listen no more."""
        self._listener.close()
        if self.composed is not None:
            self.composed.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with line, line.makefile("rw") as file:
            folder, words = json.loads(file.readline())
            try:
                said: tuple[int, str, str] = (0, self._asked(Path(folder), words), "")
            except AssertionError as error:
                said = (1, "", f"docker, by hand: {error}\n")
            except Exception as error:  # noqa: BLE001 - it is told to who asked, whatever it is
                said = (1, "", f"docker, by hand: {error!r}\n")
            with contextlib.suppress(OSError):
                file.write(json.dumps(said) + "\n")

    def _asked(self, folder: Path, words: list[str]) -> str:
        assert words.pop(0) == "compose"
        files: list[Path] = []
        while words[0] == "-f":
            files.append(folder / words[1])
            words = words[2:]
        verb, rest = words[0], words[1:]
        if verb == "exec":
            assert rest.pop(0) == "-T", "no terminal here"
            return self._there().exec(rest[0], *rest[1:])
        with self._lock:
            return self._do(verb, rest, files or [folder / "compose.yaml"])

    def _there(self) -> Composed:
        assert self.composed is not None, "nothing was started"
        return self.composed

    def _do(self, verb: str, rest: list[str], files: list[Path]) -> str:
        match verb, rest:
            case "build", []:
                self._built()
            case "up", ["-d", *more]:
                self._up(more, files)
            case "run", ["--rm", name]:
                return self._there().once(name)
            case "down", ["--volumes"]:
                there = self._there()
                there.close()
                shutil.rmtree(there.folder)
                self.composed = None
            case _:
                raise AssertionError(f"compose {verb} {rest}: nobody here knows it")
        return ""

    def _built(self) -> None:
        if self.built == 0:
            self._build()
        self.built += 1

    def _up(self, options: list[str], files: list[Path]) -> None:
        names = [one for one in options if not one.startswith("--")]
        assert set(options) - set(names) <= {"--no-deps", "--wait"}
        if self.composed is None or files != self._files:
            env = _variables(files[0].with_name(".env"))
            if self.composed is None:
                if self.built == 0:
                    self._built()
                self.composed = self._make(files, env)
            else:
                self.composed.again(files[0], env, *files[1:])
            self._files = files
        if names:
            # what was built anew since is made anew, one alone
            for name in names:
                self.composed.stop(name)
                self.composed.start(name)
                self.composed.until_healthy(name)
        else:
            self.composed.up()


def _variables(file: Path) -> dict[str, str]:
    lines: list[Any] = file.read_text().splitlines() if file.is_file() else []
    return dict(one.split("=", 1) for one in lines if one)
