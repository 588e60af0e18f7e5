"""What a server process does with its memory before it serves."""

import gc
import subprocess
import sys

import pytest

from tidegate.server import serve

_PROBE = """
import gc
from tidegate.server import serve
kept = []
passes = []
gc.callbacks.append(lambda phase, info: passes.append(info["generation"]) if phase == "start" else None)
with serve._lasting():
    kept += [[number] for number in range(200_000)]
    during = len(passes)
passes.clear()
more = [[number] for number in range(10_000)]
print(during, gc.isenabled(), gc.get_freeze_count() > 200_000, len(passes))
"""


def test_a_fleet_in_memory_is_not_searched_for_garbage_again() -> None:
    """Ten thousand connections with a request each made Python go through a million devices over and over: half of a processor."""
    said = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == ["0", "True", "True", "0"]


def test_a_start_that_fails_leaves_the_collector_as_it_was() -> None:
    """Whoever serves inside another program has it back."""
    before = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(ZeroDivisionError), serve._lasting():
        raise ZeroDivisionError
    assert gc.isenabled()
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
