"""A server in process, for attacks that need no process of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.server.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A server on a clock that the test turns."""
    made = Rig(tmp_path / "data")
    yield made
    made.close()
