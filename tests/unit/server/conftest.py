"""A server in process for every test here, over one store or the other.

`--store=postgres` runs every suite over PostgreSQL. Without it, those in `OVER_BOTH` run over both: they hold every statement that is written by hand,
and what is decided by whom.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests import stores
from tests.unit.server.rig import Rig

OVER_BOTH: Final = frozenset(
    {
        "test_caps",
        "test_consent",
        "test_device_logs",
        "test_device_side",
        "test_exactly_once",
        "test_incidents",
        "test_jobs",
        "test_named_metrics",
        "test_shared",
        "test_supply",
        "test_tenant_isolation",
        "test_tenants",
    }
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = metafunc.config.getoption("--store")
    both = asked == "both" or (asked is None and metafunc.module.__name__.split(".")[-1] in OVER_BOTH)  # fmt: skip
    kinds = stores.BACK_ENDS if both else (asked or "sqlite",)
    if kinds != ("sqlite",):
        metafunc.parametrize("over", kinds, indirect=True)


@pytest.fixture(autouse=True)
def over(request: pytest.FixtureRequest) -> Iterator[None]:
    with stores.present(getattr(request, "param", "sqlite")):
        yield


@pytest.fixture
def rig(tmp_path: Path, over: None) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    yield made
    made.close()
