"""Reads a Containerfile and carries it out without an engine: each RUN in a room of its own stage, each COPY as it says.

It knows what the shipped file uses, and refuses the rest, so that nothing of the file is passed over in silence.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.byhand.rooms import PYTHON, Bind, Room, skeleton

#: What a build reads from the machine that it runs on: where packages come from, and whom to believe.
_BUILD: Final = re.compile(
    r"PIP_|SSL_CERT|CURL_CA|REQUESTS_CA|https?_proxy|no_proxy", re.IGNORECASE
)
_BASE: Final = re.compile(r"python:3\.\d+-slim")


@dataclass
class Image:
    """What a Containerfile makes: a folder, and how its program is started."""

    root: Path
    env: dict[str, str]
    user: str = "0"
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    base: str = ""


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, rest) for each, with continued lines joined and comments gone."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (one.strip().partition(" ") for one in joined.splitlines())
        if word
    ]


def context(source: Path, ignored: Path, target: Path) -> Path:
    """Copy what a build may see of a folder: everything but what `.dockerignore` leaves out, which must begin with `*`."""
    lines = [one.strip() for one in ignored.read_text().splitlines()]
    first, *named = [one for one in lines if one and not one.startswith("#")]
    assert first == "*", "only what is named goes into the context"
    target.mkdir(parents=True)
    for one in named:
        assert one.startswith("!"), one
        found = source / one[1:]
        if found.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(found, target / one[1:], ignore=ignore)
        else:
            shutil.copy(found, target / one[1:])
    return target


class Builder:
    """Carries a Containerfile out.

    Attributes:
        ran: the commands of RUN, in order.
    """

    def __init__(self, file: Path, context: Path, folder: Path) -> None:
        """Prepare to build `file` in `folder`."""
        self._file, self._context, self._folder = file, context, folder
        self._stages: dict[str, Image] = {}
        self.ran: list[str] = []

    def build(self) -> Image:
        """Carry out every instruction; returns the last stage."""
        image = Image(self._folder, {})
        for word, rest in instructions(self._file.read_text()):
            if word == "FROM":
                image = self._stage(rest)
            else:
                self._do(image, word, rest)
        return image

    def _stage(self, rest: str) -> Image:
        base, _, name = rest.partition(" AS ")
        assert _BASE.fullmatch(base), f"{base}: only a slim Python has a stand-in here"
        root = skeleton(self._folder / (name or "last"))
        path = f"{PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        made = Image(root, {"PATH": path, "HOME": "/root", "LANG": "C.UTF-8"}, base=base)
        self._stages[name or "last"] = made
        return made

    def _do(self, image: Image, word: str, rest: str) -> None:
        match word:
            case "RUN":
                self._run(image, rest)
            case "COPY":
                self._copy(image, rest)
            case "ENV":
                for one in re.findall(r'(\w+)=("[^"]*"|\S+)', rest):
                    image.env[one[0]] = _expanded(one[1].strip('"'), image.env)
            case "WORKDIR":
                image.folder = rest
                (image.root / rest[1:]).mkdir(parents=True, exist_ok=True)
            case _:
                self._note(image, word, rest)

    def _note(self, image: Image, word: str, rest: str) -> None:
        match word:
            case "USER":
                image.user = rest
            case "VOLUME":
                image.volumes.append(rest)
            case "EXPOSE":
                image.ports.append(int(rest))
            case "STOPSIGNAL":
                image.stop_signal = rest
            case "ENTRYPOINT":
                image.entrypoint = json.loads(rest)
            case "CMD":
                image.command = json.loads(rest)
            case "HEALTHCHECK":
                image.health = json.loads(rest.partition("CMD ")[2])
            case _:
                raise AssertionError(f"{word}: nobody here knows it")

    def _run(self, image: Image, command: str) -> None:
        self.ran.append(command)
        given = {name: value for name, value in os.environ.items() if _BUILD.match(name)}
        found = [Path(one) for name, one in given.items() if name == "PIP_FIND_LINKS"]
        binds = [Bind(one, str(one)) for one in found if one.is_dir()]
        room = Room(
            image.root, image.root, {**given, **image.env}, folder=image.folder, binds=binds, fresh=False
        )  # fmt: skip
        log = self._folder / "build.log"
        room.start(["/bin/sh", "-e", "-c", command], log)
        code = room.wait(300)
        assert code == 0, (command, log.read_text()[-3000:])

    def _copy(self, image: Image, rest: str) -> None:
        words = rest.split()
        source = self._context
        if words[0].startswith("--from="):
            source = self._stages[words.pop(0).removeprefix("--from=")].root
        what, where = words
        begin = source / what.lstrip("/") if what != "." else source
        target = image.root / (where.lstrip("/") if where.startswith("/") else f"{image.folder[1:]}/{where}")  # fmt: skip
        shutil.copytree(begin, target, symlinks=True, dirs_exist_ok=True)


def _expanded(value: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda found: env.get(found[1], ""), value)
