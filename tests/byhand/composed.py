"""Starts the services of a compose file by hand: a room each, on a bridge of their own, by the file's own words. Nothing of the file is passed over.

The machine of this engine is a network namespace of its own: ports are the file's, and nothing of the real machine is touched.
"""

import ipaddress
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from tests.byhand.containerfile import Image
from tests.byhand.rooms import Bind, Room

_KEYS: Final = {
    "image", "build", "restart", "stop_grace_period", "environment", "secrets", "volumes", "networks",
    "depends_on", "healthcheck", "command", "entrypoint", "ports",
}  # fmt: skip
_TOP: Final = {"name", "services", "networks", "volumes", "secrets"}
_VARIABLE: Final = re.compile(r"\$\$|\$\{(\w+)(?::\?([^}]*))?\}")
_PATIENCE_S: Final = 90


def read(file: Path, env: Mapping[str, str], *more: Path) -> dict[str, Any]:
    """Read a compose file as an engine does: variables put in, environments of `more` files laid over it.

    Raises:
        AssertionError: a variable that is wanted is not given, or a key is one that nobody here knows.
    """

    def put(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        assert found[1] in env or found[2] is None, f"{found[1]}: {found[2]}"
        return env.get(found[1], "")

    whole: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(put, file.read_text()))
    for one in more:
        for name, service in yaml.safe_load(one.read_text())["services"].items():
            assert set(service) == {"environment"}, "only environments are laid over here"
            known = whole["services"][name]
            known["environment"] = {**known.get("environment", {}), **service["environment"]}
    assert {one for one in whole if not one.startswith("x-")} <= _TOP
    for name, service in whole["services"].items():
        assert set(service) <= _KEYS, f"{name}: nobody here knows {set(service) - _KEYS}"
    return whole


@dataclass(frozen=True)
class StandIn:
    """What stands in for an image that is not ours: its start, as the image's own entry point does it, and who works there.

    Attributes:
        start: makes the program's words out of the service's `command`.
        binds: what it needs of this machine beside.
    """

    image: Image
    start: Callable[[list[str]], list[str]]
    binds: tuple[Bind, ...] = ()


class Composed:
    """The services of one file.

    Attributes:
        services: as the file has them.
        addresses: of each service, inside.
        told: what each health check and one-off said at last, by service.
        left_out: services that nothing stands in for.
        folder: where logs and volumes are.
    """

    def __init__(
        self,
        file: Path,
        folder: Path,
        env: Mapping[str, str],
        images: Mapping[str, StandIn],
        *more: Path,
        outside: Mapping[str, str],
    ) -> None:
        """Open the network; nothing is started yet.

        Args:
            images: by the name that the file gives, up to its tag.
            outside: names by which people and devices know a service whose port is published; the port is the service's own.
        """
        self._here, self._images = file.parent, images
        self.folder: Path = folder
        folder.mkdir(parents=True)
        whole = read(file, env, *more)
        self.services: dict[str, dict[str, Any]] = whole["services"]
        self._named = {name: whole["secrets"][name]["file"] for name in whole["secrets"]}
        self._volumes: dict[str, Path] = {
            name: folder / "volumes" / name for name in whole["volumes"]
        }
        [(self._network, net)] = whole["networks"].items()
        self.addresses = self._addresses(net["ipam"]["config"][0])
        self._rooms: dict[str, Room] = {}
        self.told: dict[str, str] = {}
        self._completed: set[str] = set()
        self.left_out = {
            name for name, one in self.services.items() if _untagged(one["image"]) not in images
        }
        for name, service in outside.items():
            assert any(one.count(":") == 1 for one in self.services[service]["ports"]), name
            assert all(len(set(one.split(":"))) == 1 for one in self.services[service]["ports"])
        known = {name: self.addresses[service] for name, service in outside.items()}
        self._write("hosts", self.addresses)
        self._write("hosts.outside", {**self.addresses, **known})
        self.outside = self._open(net["ipam"]["config"][0]["subnet"])

    # --- the network ------------------------------------------------------------------------------------------------

    def _addresses(self, config: Mapping[str, str]) -> dict[str, str]:
        free = ipaddress.ip_network(config.get("ip_range", config["subnet"])).hosts()
        given = {}
        for name, one in self.services.items():
            assert list(one["networks"]) == [self._network], name
            fixed = one["networks"][self._network] if isinstance(one["networks"], dict) else {}
            given[name] = fixed.get("ipv4_address") or str(next(free))
        assert len(set(given.values())) == len(given)
        return given

    def _write(self, file: str, names: Mapping[str, str]) -> None:
        lines = "".join(f"{address} {name}\n" for name, address in names.items())
        (self.folder / file).write_text(f"127.0.0.1 localhost\n{lines}")

    def _open(self, subnet: str) -> "subprocess.Popen[bytes]":
        """Make the machine on which the services run: a namespace with a bridge, which ends when its first process does."""
        net = ipaddress.ip_network(subnet)
        gate = f"{next(net.hosts())}/{net.prefixlen}"
        hosts = self.folder / "hosts.outside"
        script = [
            "mount -t tmpfs none /run", "mkdir /run/netns", f"mount --bind {hosts} /etc/hosts",
            "ip link add inside type bridge", f"ip addr add {gate} dev inside",
            "ip link set inside up", "ip link set lo up",
        ]  # fmt: skip
        for number, (name, address) in enumerate(self.addresses.items()):
            script += [
                f"ip netns add {name}",
                f"ip link add port{number} type veth peer name eth0 netns {name}",
                f"ip link set port{number} master inside up",
                f"ip -n {name} addr add {address}/{net.prefixlen} dev eth0",
                f"ip -n {name} link set eth0 up",
                f"ip -n {name} link set lo up",
            ]
        script.append("echo open; exec sleep infinity")
        made = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", "; ".join(script)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert made.stdout is not None
        assert made.stdout.readline() == b"open\n", "no namespaces to be had"
        return made

    def there(self) -> list[str]:
        """Return the words before a command that is to run on the machine of the services, as people and devices do."""
        return ["nsenter", f"--target={self.outside.pid}", "--net", "--mount"]

    # --- services ---------------------------------------------------------------------------------------------------

    def up(self, *names: str) -> None:
        """Start services, each when those it depends on are as it says."""
        for name in names or tuple(self.services):
            if name not in self.left_out:
                self._up(name)

    def _up(self, name: str) -> None:
        if name in self._completed or (name in self._rooms and self._rooms[name].lives):
            return
        wanted = self.services[name].get("depends_on", {})
        conditions = wanted if isinstance(wanted, dict) else {other: {} for other in wanted}
        for other, one in conditions.items():
            self._up_as(other, one.get("condition", "service_started"))
        self.start(name)

    def _up_as(self, name: str, condition: str) -> None:
        if condition == "service_completed_successfully":
            if name not in self._completed:
                self._up(name)
                self._completes(name)
            return
        self._up(name)
        if condition == "service_healthy":
            self.until_healthy(name)

    def _completes(self, name: str) -> None:
        """Wait for a one-off; one that failed is started again where the file says so."""
        until = time.monotonic() + _PATIENCE_S
        while (code := self._rooms[name].wait(_PATIENCE_S)) != 0:
            again = self.services[name].get("restart") == "on-failure"
            assert again, (name, code, self.log(name))
            assert time.monotonic() < until, (name, code, self.log(name))
            self.start(name)
        self.told[name] = self.log(name)
        self._completed.add(name)

    def again(self, file: Path, env: Mapping[str, str], *more: Path) -> None:
        """Read the files anew; services that they now describe otherwise are stopped, and started by the next `up`."""
        before, self.services = self.services, read(file, env, *more)["services"]
        assert set(before) == set(self.services)
        for name, room in self._rooms.items():
            if room.lives and before[name] != self.services[name]:
                self.stop(name)

    def once(self, name: str) -> str:
        """Run a one-off service again; returns what it said."""
        self.start(name)
        self._completes(name)
        return self.told[name]

    def start(self, name: str) -> None:
        """Start one service, as its image and the file say, whatever else runs."""
        service = self.services[name]
        stand_in = self._images[_untagged(service["image"])]
        image = stand_in.image
        command = stand_in.start([*service.get("entrypoint", image.entrypoint), *service.get("command", image.command)])  # fmt: skip
        env = {**image.env, "HOSTNAME": name, **{k: str(v) for k, v in service.get("environment", {}).items()}}  # fmt: skip
        room = Room(
            self.folder / "rooms" / name, image.root, env, image.user, image.folder,
            [*self._binds(service, image), *stand_in.binds], [*self.there(), "ip", "netns", "exec", name],
        )  # fmt: skip
        room.start(command, self.folder / f"{name}.log")
        self._rooms[name] = room

    def _binds(self, service: Mapping[str, Any], image: Image) -> list[Bind]:
        binds = [Bind(self.folder / "hosts", "/etc/hosts")]
        for one in service.get("secrets", ()):
            source = self._here / self._named[one]
            assert source.is_file(), f"{source} is wanted"
            binds.append(Bind(source, f"/run/secrets/{one}"))
        # the outer ones first, as an engine mounts them
        for one in sorted(service.get("volumes", ()), key=lambda text: text.split(":")[1]):
            source, target, *how = one.split(":")
            place = (self._here / source).resolve() if source.startswith(".") else self._volume(source, image, target)  # fmt: skip
            assert place.exists(), f"{place} is wanted"
            binds.append(Bind(place, target, writable=how != ["ro"]))
        return binds

    def _volume(self, name: str, image: Image, target: str) -> Path:
        """Return a named volume; a new one begins as what the image has there."""
        place = self._volumes[name]
        if not place.exists():
            place.parent.mkdir(exist_ok=True)
            begin = image.root / target[1:]
            if begin.is_dir():
                subprocess.run(["cp", "-a", begin, place], check=True)
            else:
                place.mkdir()
        return place

    # --- what may be asked and done ---------------------------------------------------------------------------------

    def healthy(self, name: str) -> bool:
        """Run the health check of a service once, in its room, as it is written."""
        check = self.services[name]["healthcheck"]["test"]
        assert check[0] == "CMD", check
        done = self._rooms[name].run(check[1:])
        self.told[name] = done.stdout + done.stderr
        return done.returncode == 0

    def until_healthy(self, name: str) -> None:
        """Wait until the health check of a service says yes. Docker asks for the first time after the interval."""
        until = time.monotonic() + _PATIENCE_S
        time.sleep(float(self.services[name]["healthcheck"]["interval"].removesuffix("s")))
        while not self.healthy(name):
            assert self._rooms[name].lives, self.log(name)
            assert time.monotonic() < until, (self.told[name], self.log(name))
            time.sleep(0.2)

    def exec(self, name: str, *command: str) -> str:
        """Run a command in the room of a service, as its user; returns what it said on stdout."""
        done = self._rooms[name].run(command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def kill(self, name: str) -> None:
        """`kill -9` the program of a service."""
        self._rooms[name].end(signal.SIGKILL)

    def stop(self, name: str) -> float:
        """Stop a service as the file says; returns how long it took, in seconds."""
        service, began = self.services[name], time.monotonic()
        grace = float(str(service.get("stop_grace_period", "10s")).removesuffix("s"))
        how = self._images[_untagged(service["image"])].image.stop_signal
        self._rooms[name].end(signal.Signals[how], grace)
        return time.monotonic() - began

    def lives(self, name: str) -> bool:
        """Say whether the program of a service runs."""
        return self._rooms[name].lives

    def log(self, name: str) -> str:
        """Return what a service said."""
        return self.said(name)[-4000:]

    def said(self, name: str) -> str:
        """Return all that a service said."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of this machine where people and devices are."""
        return subprocess.run(
            [*self.there(), *command], env={**os.environ, **(env or {})},
            capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip

    def close(self) -> None:
        """End everything."""
        for room in reversed(self._rooms.values()):
            room.end(signal.SIGTERM, 5)
        self.outside.kill()
        self.outside.wait(10)
        shutil.rmtree(self.folder / "rooms", ignore_errors=True)


def _untagged(image: Sequence[str] | str) -> str:
    return str(image).rpartition("/")[2].partition(":")[0]
