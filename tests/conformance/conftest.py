"""Where clients keep their documents: in memory where the machine has that, since every write of ours is flushed to the medium."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = "/dev/shm"


@pytest.fixture
def folder() -> Iterator[Path]:
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tidegate-", dir=place) as made:
        yield Path(made)
