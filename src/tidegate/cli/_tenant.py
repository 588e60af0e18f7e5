"""For commands that work on a server's folder or database themselves: whose of them, where it has several tenants."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from tidegate.server.config import Settings

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT: Final = "default"
#: Not shown in help: whoever has one tenant needs no word of it (docs/guides/tenants.md).
with_tenant: Callable[[F], F] = click.option(
    "--tenant", envvar="TIDEGATE_TENANT", default=DEFAULT, metavar="NAME", hidden=True
)


def placed(settings: "Settings", tenant: str) -> "Settings":
    """Return the settings of the tenant that was named.

    Raises:
        RequestError: `request.invalid`. ConfigError: `config.*`.
    """
    from tidegate.server.cells import settings_of
    from tidegate.server.tenants import check_name

    return settings_of(settings, check_name(tenant))
