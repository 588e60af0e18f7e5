"""A server in process for every test here, over one store or the other.

`--store=postgres` (`make test-postgres`) runs every suite over PostgreSQL, but for tests that name themselves as being about SQLite's file
(`pytest.mark.sqlite`). Without it, those in `OVER_BOTH` run over both: they hold every statement that is written by hand, and what is decided by whom.
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
        "test_doctor",
        "test_exactly_once",
        "test_greatest_values",
        "test_every_act",
        "test_incidents",
        "test_jobs",
        "test_mandates",
        "test_metrics",
        "test_named_metrics",
        "test_offline_permits",
        "test_precedence",
        "test_prefetch",
        "test_series",
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [one for one in items if one.get_closest_marker("sqlite") and _back_end(one) == "postgres"]  # fmt: skip
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [one for one in items if one not in set(left_out)]


def _back_end(item: pytest.Item) -> str:
    call = getattr(item, "callspec", None)
    return str(call.params.get("over", "sqlite")) if call is not None else "sqlite"


@pytest.fixture(autouse=True)
def over(request: pytest.FixtureRequest) -> Iterator[None]:
    with stores.present(getattr(request, "param", "sqlite")):
        yield


@pytest.fixture
def rig(tmp_path: Path, over: None) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    yield made
    made.close()
