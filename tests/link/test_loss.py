"""A radio that loses packets: server and device in network namespaces of their own, and between them a link that drops at random, both ways."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.link.device import Device, Goods, serving

pytestmark = pytest.mark.timeout(300)

#: Small: with 30 % of all packets gone, TCP is mostly waiting.
SIZE = 96 << 10
CLONE_NEWNET = 0x40000000
SERVER = "10.213.77.2"
DROP = """table inet loss {{
  chain in {{
    type filter hook input priority 0; policy accept
    iifname "{link}" numgen random mod 1000 < {permille} drop
  }}
}}
"""
HOLE = """table inet hole {{
  chain in {{
    type filter hook input priority 0; policy accept
    iifname "{link}" meta length > {most} counter drop
  }}
}}
"""


def run(*words: str, text: str | None = None) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, input=text, timeout=30)


class Link:
    """Two namespaces joined by a pair of cards, named after this process so that no other one is touched."""

    def __init__(self) -> None:
        self.device, self.server = (f"tg{os.getpid()}{end}" for end in "ds")
        for name in (self.device, self.server):
            run("ip", "netns", "add", name)
        near, far = "near0", "far0"
        run(
            *("ip", "link", "add", near, "netns", self.device, "type", "veth"),
            *("peer", "name", far, "netns", self.server),
        )
        for name, card, address in (
            (self.device, near, "10.213.77.1/30"),
            (self.server, far, f"{SERVER}/30"),
        ):
            run("ip", "-n", name, "addr", "add", address, "dev", card)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "set", card, "up")
        self._ends = ((self.device, near), (self.server, far))

    def lose(self, permille: int) -> None:
        """Drop so many of a thousand packets at each end."""
        for name, card in self._ends:
            rules = DROP.format(link=card, permille=permille)
            run("ip", "netns", "exec", name, "nft", "-f", "-", text=rules)

    def swallow(self, most: int) -> None:
        """Let every packet above so many bytes vanish at each end. No router is there to say so: what a tunnel does whose MTU nobody tells (RFC 2923)."""
        for name, card in self._ends:
            # The cards hand whole bursts over in one piece otherwise, as no wire does.
            run("ip", "-n", name, "link", "set", card, "gso_max_segs", "1")
            rules = HOLE.format(link=card, most=most)
            run("ip", "netns", "exec", name, "nft", "-f", "-", text=rules)

    def heal(self) -> None:
        """Take the rules away."""
        for name, _ in self._ends:
            run("ip", "netns", "exec", name, "nft", "flush", "ruleset")

    def dropped(self) -> bool:
        """Say whether the rules are in force at both ends."""
        return all("drop" in one for one in self._rules())

    def swallowed(self) -> int:
        """Return how many packets vanished on the way to the device."""
        return int(self._rules()[0].partition("counter packets ")[2].split()[0])

    def _rules(self) -> list[str]:
        return [
            subprocess.run(
                ["ip", "netns", "exec", name, "nft", "list", "ruleset"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for name, _ in self._ends
        ]

    def pull(self, state: str) -> None:
        """Take the device's cable out (`down`) or put it in (`up`)."""
        run("ip", "-n", self.device, "link", "set", "near0", state)

    def close(self) -> None:
        for name in (self.device, self.server):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextmanager
def within(name: str) -> Iterator[None]:
    """Start what is started here in a namespace: children inherit it from the thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        assert libc.setns(there, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(home, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(home)
        os.close(there)


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Goods:
    return Goods(tmp_path_factory.mktemp("goods"), SIZE)


@pytest.fixture
def link() -> Iterator[Link]:
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program) is None:
            pytest.skip(f"tier: {program} is not here; install the Debian package {package}")
    if os.geteuid() != 0:
        pytest.skip("tier: only root can make network namespaces; run as root")
    made = Link()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def joined(link: Link, goods: Goods, folder: Path, timeout_s: float = 20.0) -> Iterator[Device]:
    """Run a server at one end and a device's worker at the other."""
    before = ("ip", "netns", "exec", link.server)
    with serving(goods.served, SERVER, before=before) as port:
        device = Device(folder, goods, f"http://{SERVER}:{port}", timeout_s=timeout_s)
        try:
            yield device
        finally:
            device.close()


@pytest.mark.parametrize("permille", [10, 50, 150, 300])
def test_a_link_that_loses_packets_costs_time_and_nothing_else(
    link: Link, goods: Goods, tmp_path: Path, permille: int
) -> None:
    try:
        link.lose(permille)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"tier: this kernel drops nothing at random: {error.stderr.strip()[:200]}")
    assert link.dropped()
    with joined(link, goods, tmp_path / "device") as device, within(link.device):
        ends = device.fetch_all()
        assert device.holds_it()
    assert set(ends) <= {"whole", "download.timeout", "download.refused", "download.truncated"}, (
        ends
    )


def test_a_cable_that_is_pulled_and_put_in_again_is_waited_for(
    link: Link, goods: Goods, tmp_path: Path
) -> None:
    with joined(link, goods, tmp_path / "device") as device, within(link.device):
        link.pull("down")
        first = device.fetch()
        assert first in {"download.refused", "download.timeout", "download.dns"}, first
        link.pull("up")
        device.fetch_all()
        assert device.holds_it()


@pytest.mark.parametrize("restarts", [False, True], ids=["one worker", "a worker each"])
def test_a_hole_for_large_packets_costs_one_time_out(
    link: Link, goods: Goods, tmp_path: Path, restarts: bool
) -> None:
    link.swallow(1300)
    with joined(link, goods, tmp_path / "device", 2.0) as device, within(link.device):
        assert device.fetch() == "download.timeout"
        assert link.swallowed() > 0
        if restarts:
            # As the loop does when there is nothing to do for a while.
            device.worker.rest()
        assert device.fetch() == "whole"
        assert device.holds_it()


def test_a_hole_that_nothing_useful_passes_ends_with_a_time_out_until_it_is_mended(
    link: Link, goods: Goods, tmp_path: Path
) -> None:
    link.swallow(400)
    with joined(link, goods, tmp_path / "device", 1.0) as device, within(link.device):
        assert [device.fetch() for _ in range(3)] == ["download.timeout"] * 3
        link.heal()
        device.fetch_all(most=3)
        assert device.holds_it()
