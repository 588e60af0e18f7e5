"""`tidegate-agent doctor`: is this board ready? Each question is asked of the real thing; nothing is changed but a probe file in the state directory."""

import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from tidegate.agent import bootloaders, diagnosis
from tidegate.agent.board import SystemClock
from tidegate.agent.diagnosis import Answer, Level, Surroundings
from tidegate.agent.enrolment import KEY_NAME, NEXT_KEY_NAME
from tidegate.agent.files import StateDirectory
from tidegate.agent.net import api
from tidegate.agent.net.link import HttpTransport
from tidegate.agent.settings import Config
from tidegate.core.errors import RequestError, TidegateError

#: What `agent.timekeeping` makes of the clock, in words.
_VOUCHED: Final = {
    "synced": "plausible, and the system says it is synchronised",
    "rtc": "plausible, and a battery-backed clock says the same",
    "none": "plausible, and nobody vouches for it: expiry goes by the server's signed time",
}
#: No image was built before this (2024-01-01): a clock that shows less is wrong.
_EARLIEST: Final = 1_704_067_200
#: What the state itself may need: journal, outbox, metadata, the index of a payload.
_ROOM: Final = 16 << 20


class Finding(msgspec.Struct, frozen=True):
    """One question and its answer. `ok` is false for what must be mended before the first update; a warning is `ok`."""

    name: str
    ok: bool
    level: Level
    detail: str
    todo: str = ""


def run(config: Config, *, as_json: bool) -> int:
    """Ask every question and print the answers. Returns 0 when nothing must be mended, else 1."""
    findings = list(examine(config))
    if as_json:
        print(msgspec.json.encode(findings).decode())  # noqa: T201 - what people asked for
    else:
        for one in findings:
            mark = {"ok": "ok  ", "warn": "warn", "bad": "BAD "}[one.level]
            print(f"{mark} {one.name:12} {one.detail}")  # noqa: T201
            if one.todo:
                print(f"       do           {one.todo}")  # noqa: T201
    return 0 if all(one.ok for one in findings) else 1


def examine(config: Config, around: Surroundings | None = None) -> Iterator[Finding]:
    """Yield one finding after the other.

    Args:
        config: of the agent.
        around: where the board is read; None = this one.
    """
    board = around if around is not None else Surroundings()
    checks: tuple[tuple[str, Callable[[], Iterable[Answer]]], ...] = (
        ("slots", lambda: diagnosis.slots(config, board, _current(config))),
        ("bootloader", lambda: [_bootloader(config)]),
        ("services", lambda: diagnosis.rivals(config)),
        ("kernel", lambda: diagnosis.kernel(config, board)),
        ("state", lambda: [diagnosis.state(config, board), _state(config)]),
        ("key", lambda: [_key(config)]),
        ("anchor", lambda: [_anchor(config)]),
        ("clock", lambda: [_clock(config), diagnosis.zones(config)]),
        ("watchdog", lambda: [diagnosis.watchdog(config)]),
        ("health", lambda: diagnosis.health(config)),
        ("installers", lambda: diagnosis.installers(config)),
        ("server", lambda: [_server(config)]),
    )
    for name, check in checks:
        try:
            for one in check():
                yield Finding(name, one.level != "bad", one.level, one.detail, one.todo)
        except TidegateError as error:
            yield Finding(name, False, "bad", f"{error.code}: {error.detail}", error.hint)
        except OSError as error:
            yield Finding(name, False, "bad", f"{error.filename}: {error.strerror}")


def _current(config: Config) -> str:
    """Return the slot that runs; "" where nobody says, which the boot loader's own question tells."""
    try:
        return bootloaders.load(config.bootloader, config.boot_settings).current()
    except TidegateError:
        return ""


def _bootloader(config: Config) -> Answer:
    loader = bootloaders.load(config.bootloader, config.boot_settings)
    marks = ", ".join(f"{slot} {loader.state(slot)}" for slot in config.slots)
    told = f"{config.bootloader}: runs {loader.current()}, primary {loader.primary()}; {marks}"
    if all(loader.state(slot) == "bad" for slot in config.slots):
        return Answer("bad", told, "no slot can be booted: make the record anew as its guide says")
    return Answer("ok", told)


def _state(config: Config) -> Answer:
    storage = StateDirectory(config.state_dir)
    storage.write("doctor.probe", b"doctor")
    storage.delete("doctor.probe")
    free = storage.free_bytes()
    told = f"{config.state_dir}: writable, {free} bytes free"
    if free < _ROOM + config.settings.reserve_bytes:
        return Answer("warn", told, f"the agent wants {_ROOM} bytes of it, and [download] reserve")
    return Answer("ok", told)


def _key(config: Config) -> Answer:
    path = Path(config.state_dir, KEY_NAME)
    if not path.exists():
        if config.settings.claim is None:
            detail = "none yet, and no claim: a person must accept this device"
            return Answer(
                "warn", detail, "give it [server] claim_file, made by `tidegate claim create`"
            )
        return Answer("ok", "none yet; `tidegate-agent enrol` makes one")
    storage = StateDirectory(config.state_dir)
    storage.read(KEY_NAME)
    storage.read(NEXT_KEY_NAME)
    where = f"{path}, mode {stat.S_IMODE(path.stat().st_mode):04o}"
    return Answer("ok", where if config.settings.key == "file" else f"in a token, named by {where}")


def _anchor(config: Config) -> Answer:
    try:
        found = msgspec.json.decode(config.settings.anchor)
        return Answer("ok", f"root {found['signed']['version']}")
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise RequestError("meta.no_root", "[server] root is no root metadata") from error


def _clock(_config: Config) -> Answer:
    clock = SystemClock()
    now = int(clock.now())
    if now < _EARLIEST:
        raise RequestError("clock.untrusted", f"the clock shows {now}")
    return Answer("ok", _VOUCHED[clock.proof()])


def _server(config: Config) -> Answer:
    transport = HttpTransport(config.url, ca=config.ca, timeout_s=min(config.timeout_s, 5.0))
    reply = api.call(
        transport, "GET", "/d/v1/repo/timestamp.json", clock=SystemClock(), timeout_s=5.0
    )
    return Answer("ok", f"{config.url} answers {reply.status}")
