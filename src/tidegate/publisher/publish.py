"""Learn what a server has published, verified from a root that is believed.

How a request travels is the caller's (`Api`): the command line brings its client, the simulator its own.
"""

from typing import Protocol

from tidegate.core.errors import RequestError
from tidegate.core.metadata import file_name, product_role
from tidegate.core.verify import TrustedSet


class Api(Protocol):
    """What this module needs of an HTTP client; `tidegate.client.Client` is one."""

    def get_bytes(self, path: str) -> bytes:
        """Read bytes as they are."""
        ...


def first_root(api: Api) -> bytes | None:
    """Return the first root that a server has, unverified; None when it has none.

    Raises:
        TidegateError: the server cannot be reached.
    """
    return _optional(api, file_name("root", 1))


def published(api: Api, anchor: bytes, product: str | None, *, now: int) -> TrustedSet | None:
    """Return what a server has published, verified as a device would that starts from `anchor`; None when nothing is published.

    What comes out is the base of the next document that offline keys sign. Without this a stolen server could slip targets of its own into it.

    Args:
        api: how to ask.
        anchor: a trusted root.
        product: the product whose role is taken as well, where there is one.
        now: unix seconds.

    Raises:
        PublisherError: `sig.*`. TidegateError: the server cannot be reached.
    """
    trusted = TrustedSet(anchor, now=now)
    while body := _optional(api, file_name("root", trusted.root.version + 1)):
        trusted.update_root(body)
    timestamp = _optional(api, file_name("timestamp", None))
    if timestamp is None:
        return None
    trusted.update_timestamp(timestamp)
    trusted.update_snapshot(_named(api, trusted, "snapshot"))
    if trusted.expected("targets") is None:
        return None
    trusted.update_targets(_named(api, trusted, "targets"))
    if product is not None and trusted.expected(product_role(product)) is not None:
        trusted.update_product(product, _named(api, trusted, product_role(product)))
    return trusted


def _named(api: Api, trusted: TrustedSet, role: str) -> bytes:
    info = trusted.expected(role)
    return api.get_bytes(f"/d/v1/repo/{file_name(role, info.version if info else 0)}")


def _optional(api: Api, name: str) -> bytes | None:
    try:
        return api.get_bytes(f"/d/v1/repo/{name}")
    except RequestError as error:
        if error.code == "request.not_found":
            return None
        raise
