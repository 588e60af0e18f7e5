"""One release, several boards: an artifact may have its own hardware and contract, and a release may choose its way back."""

from pathlib import Path

import pytest
from tests.unit.core.repo import NOW

from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.hardware import HardwareRange
from tidegate.publisher.bundle import Built, build, read
from tidegate.publisher.manifest import read_release

RELEASE = """
product = "gw1"
version = "{version}"
counter = {counter}
contract = "health.toml"
{more}
[hardware]
model = "gw1"
[[component]]
name = "rootfs"
image = "small"
[[component]]
name = "rootfs-dev"
image = "large"
contract = "dev.toml"
[component.hardware]
model = "gw1-dev"
revisions = "1"
"""


def _built(shop: Path, counter: int, previous: Built | None = None, more: str = "") -> Built:
    (shop / "small").write_bytes(b"\x01" * 8192)
    (shop / "large").write_bytes(b"\x02" * 16384)
    (shop / "health.toml").write_text('warm_up = "10m"\n')
    (shop / "dev.toml").write_text('warm_up = "3s"\n')
    path = shop / "release.toml"
    path.write_text(RELEASE.format(version=f"1.{counter}", counter=counter, more=more))
    body = read(previous.bundle).product.body if previous is not None else None
    return build(read_release(path), shop / "out", previous=body, now=NOW, level=1)


def test_an_artifact_keeps_its_own_hardware_and_contract(tmp_path: Path) -> None:
    small, large = (one.release for one in _built(tmp_path, 1).targets)
    assert (small.hardware, small.health.warmup_s) == ((HardwareRange("gw1"),), 600)
    assert (large.hardware, large.health.warmup_s) == ((HardwareRange("gw1-dev", 1, 1),), 3)


def test_a_release_may_choose_its_way_back_past_a_bad_predecessor(tmp_path: Path) -> None:
    first = _built(tmp_path, 1)
    second = _built(tmp_path, 2, first)
    third = _built(tmp_path, 3, second, "fallback_to = [1]")
    assert [one.counter for one in third.targets[0].release.fallback_to] == [1]


def test_a_way_back_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PublisherError) as error:
        _built(tmp_path, 2, _built(tmp_path, 1), "fallback_to = [7]")
    assert error.value.code == "release.malformed"
    with pytest.raises(ConfigError):
        _built(tmp_path, 2, None, "fallback_to = [-1]")
