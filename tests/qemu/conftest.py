"""The boot lab's tier: `make lab`. It is not part of `make test`, which does not look into this folder."""

from pathlib import Path

import pytest
from lab import kvm, tools


@pytest.fixture(scope="session")
def accelerator() -> str:
    """What QEMU runs with; skips the tier where a package is missing."""
    try:
        tools.require()
        return kvm.accelerator()
    except tools.MissingError as missing:
        pytest.skip(f"tier: the boot lab: {missing}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.qemu)
