"""What is known of a request while it is answered (`logs.Traced`): its id, and where it came from. The operators' log records both with each act."""

import re
import secrets
from collections.abc import MutableMapping
from typing import Any, Final

from tidegate.server.store.origin import Origin

Scope = MutableMapping[str, Any]

HEADER: Final = b"x-request-id"
#: Ids that are taken over from a proxy or a client, which is believed in nothing else.
_ID: Final = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_IP_MAX: Final = 64


def origin_of(scope: Scope) -> Origin:
    """Return id and address of a request; an id that is not well-formed is replaced."""
    found = next((value for name, value in scope["headers"] if name == HEADER), b"")
    request = found.decode() if _ID.fullmatch(found) else secrets.token_hex(8)
    client = scope.get("client")
    return Origin(request, str(client[0])[:_IP_MAX] if client else "")
