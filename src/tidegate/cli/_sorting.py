"""`--sort` of lists: the orders that the API offers for what a command asks."""

from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

import click

F = TypeVar("F", bound=Callable[..., Any])


def with_sort(asks: Callable[..., Any]) -> Callable[[F], F]:
    """Give a command `--sort`, for the method of the client that it asks; `None` where it is not given."""
    inner = next(one for one in get_args(get_type_hints(asks)["sort"]) if get_args(one))
    orders = sorted(get_args(inner), key=lambda one: (one.lstrip("-"), one.startswith("-")))
    fields = [one for one in orders if not one.startswith("-")]
    return click.option(
        "--sort",
        type=click.Choice(orders),
        metavar="FIELD",
        help=f"By {', '.join(fields)}; with - before it the other way round.",
    )
