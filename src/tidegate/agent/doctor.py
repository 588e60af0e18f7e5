"""`tidegate-agent doctor`: is this board ready? Each question is asked of the real thing; nothing is changed but a probe file in the state directory."""

import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from tidegate.agent import api, bootloaders
from tidegate.agent.board import SlotFile, SystemClock
from tidegate.agent.enrolment import KEY_NAME, NEXT_KEY_NAME
from tidegate.agent.files import StateDirectory
from tidegate.agent.link import HttpTransport
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


class Finding(msgspec.Struct, frozen=True):
    """One question and its answer."""

    name: str
    ok: bool
    detail: str


def run(config: Config, *, as_json: bool) -> int:
    """Ask every question and print the answers. Returns 0 when all is well, else 1."""
    findings = list(examine(config))
    if as_json:
        print(msgspec.json.encode(findings).decode())  # noqa: T201 - what people asked for
    else:
        for one in findings:
            print(f"{'ok  ' if one.ok else 'BAD '} {one.name:12} {one.detail}", file=sys.stdout)  # noqa: T201
    return 0 if all(one.ok for one in findings) else 1


def examine(config: Config) -> Iterator[Finding]:
    """Yield one finding after the other."""
    checks: tuple[tuple[str, Callable[[Config], str]], ...] = (
        ("slots", _slots),
        ("bootloader", _bootloader),
        ("state", _state),
        ("key", _key),
        ("anchor", _anchor),
        ("clock", _clock),
        ("server", _server),
    )
    for name, check in checks:
        try:
            yield Finding(name, True, check(config))
        except TidegateError as error:
            yield Finding(name, False, f"{error.code}: {error.detail}")
        except OSError as error:
            yield Finding(name, False, f"{error.filename}: {error.strerror}")


def _slots(config: Config) -> str:
    sizes = []
    for name, (path, size) in config.slots.items():
        if not Path(path).exists() and size is not None:
            sizes.append(f"{name}: {path}, not made yet")
            continue
        device = SlotFile(path, None)
        sizes.append(f"{name}: {device.size} bytes")
        device.close()
    return ", ".join(sizes)


def _bootloader(config: Config) -> str:
    loader = bootloaders.load(config.bootloader, config.boot_settings)
    marks = ", ".join(f"{slot} {loader.state(slot)}" for slot in config.slots)
    return f"{config.bootloader}: runs {loader.current()}, primary {loader.primary()}; {marks}"


def _state(config: Config) -> str:
    storage = StateDirectory(config.state_dir)
    storage.write("doctor.probe", b"doctor")
    storage.delete("doctor.probe")
    return f"{config.state_dir}: writable, {storage.free_bytes()} bytes free"


def _key(config: Config) -> str:
    path = Path(config.state_dir, KEY_NAME)
    if not path.exists():
        return "none yet; `tidegate-agent enrol` makes one"
    storage = StateDirectory(config.state_dir)
    storage.read(KEY_NAME)
    storage.read(NEXT_KEY_NAME)
    where = f"{path}, mode {stat.S_IMODE(path.stat().st_mode):04o}"
    return where if config.settings.key == "file" else f"in a token, named by {where}"


def _anchor(config: Config) -> str:
    try:
        found = msgspec.json.decode(config.settings.anchor)
        return f"root {found['signed']['version']}"
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise RequestError("meta.no_root", "[server] root is no root metadata") from error


def _clock(_config: Config) -> str:
    clock = SystemClock()
    now = int(clock.now())
    if now < _EARLIEST:
        raise RequestError("clock.untrusted", f"the clock shows {now}")
    return _VOUCHED[clock.proof()]


def _server(config: Config) -> str:
    transport = HttpTransport(config.url, ca=config.ca, timeout_s=min(config.timeout_s, 5.0))
    reply = api.call(
        transport, "GET", "/d/v1/repo/timestamp.json", clock=SystemClock(), timeout_s=5.0
    )
    return f"{config.url} answers {reply.status}"
