"""The `file` boot loader's own promise: one atomic replacement a change."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.agent import bootloaders
from tidegate.core.errors import DeviceError


def test_each_change_is_one_atomic_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = bootloaders.load(
        "file", {"path": str(tmp_path / "boot.json"), "slots": ("A", "B"), "current": "A"}
    )
    loader.arm_trial("B", 3)
    before = (loader.state("B"), loader.tries_left("B"), loader.primary())
    real = os.rename
    renames = []

    def cut(source: str, target: str) -> None:
        renames.append(target)
        raise OSError(5, "the power went away")

    changes: tuple[Callable[[], None], ...] = (
        lambda: loader.commit("B"),
        lambda: loader.mark_bad("B"),
    )
    for change in changes:
        monkeypatch.setattr(os, "rename", cut)
        with pytest.raises(DeviceError):
            change()
        monkeypatch.setattr(os, "rename", real)
        assert (loader.state("B"), loader.tries_left("B"), loader.primary()) == before
    assert len(renames) == 2
