"""What stops never asks; what widens always does."""

import click
import pytest

from tidegate.cli import halt, job, release, rollout, upload

#: Stopping, and looking.
NARROW = ("halt", "pause", "isolate", "cancel")
WIDE = ("create", "start", "activate", "resume", "advance", "readmit", "edit", "fallback")
OTHER = ("approve", "decline", "devices", "evidence", "explain", "list", "log", "requests", "series", "show", "stragglers", "wait")  # fmt: skip


def _options(command: click.Command) -> set[str]:
    return {str(one.name) for one in command.params}


def _of(name: str) -> click.Command:
    found = rollout.command.get_command(click.Context(rollout.command), name)
    assert found is not None
    return found


def test_every_verb_stands_in_this_test() -> None:
    """A new one has to say here whether it stops or widens."""
    assert {*NARROW, *WIDE, *OTHER} <= set(rollout.command.commands)
    assert set(rollout.command.commands) <= {*NARROW, *WIDE, *OTHER}


@pytest.mark.parametrize("name", NARROW)
def test_stopping_asks_nothing(name: str) -> None:
    assert "yes" not in _options(_of(name))


@pytest.mark.parametrize("name", WIDE)
def test_widening_is_confirmed(name: str) -> None:
    assert {"yes", "reason"} <= _options(_of(name))


def test_the_short_halt_and_the_recall_ask_nothing() -> None:
    assert "yes" not in _options(halt.command)
    assert "yes" not in _options(release.recall)
    assert "yes" not in _options(job.cancel)
    assert "yes" not in _options(upload.abort)
