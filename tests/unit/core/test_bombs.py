"""What the worst document within the limits costs a device: each is parsed in a process of its own, whose peak is measured.

Two ways in: what a stranger can send (root and timestamp; everything else must have a digest that was signed), and what a holder of a product's key can sign.
"""

import subprocess
import sys

import pytest
from tests.unit.core.repo import Repo, release

from tidegate.core.caps import LIVE_TARGETS_MAX, ROLE_MAX, ROOT_MAX, SNAPSHOT_MAX
from tidegate.core.codec import VALUES_MAX

#: MiB of resident memory, over what the process had before.
LIMIT = 16.0

PROBE = """
import sys
from tests.unit.core.test_bombs import explode, known
from pathlib import Path

def mib(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(one.split()[1]) / 1024 for one in lines if one.startswith(name))

kind, bomb = sys.argv[1:]
body = known(kind, bomb)
explode("targets", b"{}")  # what is made once is no part of the cost
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
before = mib("VmRSS")
outcome = explode(kind, body)
print(mib("VmHWM") - before, outcome)
"""

HEADS = {
    "root": '{"signatures":[],"signed":{"_type":"root","spec_version":"1.0.0","version":1,"expires":"2036-01-01T00:00:00Z",'
    '"consistent_snapshot":true,"keys":{},"roles":{"root":R,"targets":R,"snapshot":R,"timestamp":R},'.replace(
        "R", '{"keyids":[],"threshold":1}'
    ),
    "targets": '{"signatures":[],"signed":{"_type":"targets","spec_version":"1.0.0","version":1,"expires":"2036-01-01T00:00:00Z","targets":{},',
    "snapshot": '{"signatures":[],"signed":{"_type":"snapshot","spec_version":"1.0.0","version":1,"expires":"2036-01-01T00:00:00Z","meta":{},',
}
SIZES = {"root": ROOT_MAX, "targets": ROLE_MAX, "snapshot": SNAPSHOT_MAX}
UNITS = {
    "empty lists": "[]",
    "empty objects": "{}",
    "nested lists": "[" * 20 + "]" * 20,
    "digits": "9",
    "large numbers": "4503599627370496",
    "empty texts": '""',
    "escapes": '"\\ud83d\\ude00"',
    "small objects": '{"a":1}',
    "objects of eight": '{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1}',
}


def known(kind: str, bomb: str) -> bytes:
    """Return a document of the largest size, filled with one thing."""
    head, tail = HEADS[kind], "}}"
    room = SIZES[kind] - len(head) - len(tail) - 10
    if bomb == "distinct names":
        fields: list[str] = []
        while room > 0:
            fields.append(f'"k{len(fields)}":0')
            room -= len(fields[-1]) + 1
        return (head + ",".join(fields[:-1]) + tail).encode()
    if bomb == "one wide text":
        return (head + f'"x":"\U0001f600{"a" * (room - 20)}"' + tail).encode()
    if bomb == "just within the count":
        return (head + '"x":[' + ",".join(["[]"] * 16_000) + "]" + tail).encode()
    unit = UNITS[bomb]
    return (head + '"x":[' + ",".join([unit] * (room // (len(unit) + 1))) + "]" + tail).encode()


def explode(kind: str, body: bytes) -> str:
    """Do all that a device does with it, up to the signatures."""
    from tidegate.core.errors import PublisherError
    from tidegate.core.metadata import parse_root, parse_snapshot, parse_targets

    try:
        if kind == "root":
            signed = parse_root(body).inner.signed_bytes
        elif kind == "snapshot":
            signed = parse_snapshot(body).inner.signed_bytes
        else:
            signed = parse_targets(body).inner.signed_bytes
    except PublisherError as error:
        return error.code
    return f"parsed {len(signed)}"


BOMBS = [*UNITS, "distinct names", "one wide text", "just within the count"]


@pytest.mark.parametrize("kind", ["root", "targets"])
def test_a_bomb_costs_less_than_sixteen_mebibytes(kind: str) -> None:
    for bomb in BOMBS:
        result = subprocess.run(
            [sys.executable, "-c", PROBE, kind, bomb],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        cost, outcome = result.stdout.split(maxsplit=1)
        assert outcome.startswith(("parsed", "sig.")), bomb
        assert float(cost) < LIMIT, (bomb, outcome, cost)


def test_the_bombs_are_as_large_as_they_may_be() -> None:
    for kind, size in SIZES.items():
        assert size * 0.99 < len(known(kind, "digits")) <= size


def test_a_role_as_full_as_may_be_published_is_far_from_the_count() -> None:
    releases = tuple(release(n) for n in range(2, LIVE_TARGETS_MAX + 2))
    body = Repo(releases=releases).product_body()
    assert sum(body.count(one) for one in (b",", b"[", b"{")) < VALUES_MAX / 2
    assert len(body) < ROLE_MAX
