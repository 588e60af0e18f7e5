"""Commands that stay: they wait for a poll, and show what changed."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tidegate.agent import following
from tidegate.core.errors import TransferError


def found(**more: Any) -> dict[str, Any]:
    steady = dict.fromkeys(("running", "update", "because", "enrolled", "holds"), None)
    return {**steady, "problem": "", "next_poll_s": 0, **more}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the agent give these answers, one after the other; an error stands for an agent that is away."""

    def tell(*answers: dict[str, Any] | TransferError) -> None:
        left = iter(answers)

        def status(_path: str) -> dict[str, Any]:
            one = next(left)
            if isinstance(one, TransferError):
                raise one
            return one

        monkeypatch.setattr(following, "status", status)

    return tell


def test_a_poll_is_waited_for_and_what_came_of_it_is_told(told: Callable[..., None]) -> None:
    slept: list[float] = []
    told(found(), found(), found(next_poll_s=7, problem="download.dns: nobody knows it"))
    seen = following.polled("sock", slept.append)
    assert seen["problem"] == "download.dns: nobody knows it"
    assert slept == [following.LOOK_S] * 2


def test_an_agent_that_never_polls_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "status", lambda _path: found())
    times = itertools.count(0.0, 60.0)
    with pytest.raises(TransferError) as caught:
        following.polled("sock", lambda _s: None, lambda: next(times))
    assert caught.value.code == "download.timeout"


def test_each_change_is_shown_once_and_a_restart_is_waited_for(told: Callable[..., None]) -> None:
    away = TransferError("link.unreachable", "no agent")
    first, second = found(next_poll_s=3), found(holds=["x"])
    told(first, found(next_poll_s=2), away, away, second, found(holds=["x"], next_poll_s=9), first)
    shown = following.changes("sock", lambda _s: None)
    assert [next(shown) for _ in range(3)] == [first, second, first]
