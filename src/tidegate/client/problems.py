"""What a server says when it refuses, as the error that it names. What it says is untrusted: a code that is not known is not believed."""

import json
from typing import Final

from tidegate.core.errors import (
    HINTS,
    BusyError,
    PublisherError,
    RequestError,
    TidegateError,
    TransferError,
)
from tidegate.core.reasons import REASONS

_SIGN_IN: Final = "set TIDEGATE_TOKEN (tidegate token create makes one), or, where the server runs, TIDEGATE_DATA_DIR to its data"
_PUBLISHER: Final = frozenset({"sig", "compat", "release", "key", "meta", "supply", "audit"})
WAIT_MAX_S: Final = 30.0
#: What a proxy says when no server answers it; ours gives a code with everything that it refuses.
_IN_FRONT: Final = frozenset({502, 504})
#: What a server says of a route, and not of a thing that a route is about.
_NO_ROUTE: Final = "Not Found"


def wait_of(retry_after: str | None) -> float:
    """Return for how many seconds to wait, of a `Retry-After` (untrusted); one where it says nothing that can be read."""
    text = (retry_after or "").strip()
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        return 1.0
    return min(float(text), WAIT_MAX_S)


def problem(status: int, body: bytes) -> TidegateError:
    """Turn an RFC 9457 problem (untrusted) into the error that it names."""
    try:
        found = json.loads(body)
    except ValueError:
        found = {}
    found = found if isinstance(found, dict) else {}
    code = str(found.get("code", ""))
    if not code and status in _IN_FRONT:
        return TransferError(
            "link.unreachable", f"what stands in front of the server answers {status} by itself"
        )
    if code == "request.not_found" and found.get("detail") == _NO_ROUTE:
        return TransferError("link.answer", "the server has no such route")
    detail = str(found.get("detail") or found.get("title") or f"HTTP {status}")[:1000]
    if code not in REASONS and code not in HINTS:
        detail = f"{code}: {detail}" if code else detail
        code = _by_status(status)
    if code == "request.unauthenticated":
        return RequestError(code, detail, hint=_SIGN_IN)
    return error_of(code, detail, str(found.get("hint") or "")[:1000])


def error_of(code: str, detail: str, hint: str = "") -> TidegateError:
    """Return an error of the class that says who must act on this code; `hint`: what to do, where the server knows better than the code."""
    family = code.partition(".")[0]
    if family in _PUBLISHER:
        return PublisherError(code, detail, hint=hint)
    if family in ("download", "link"):
        return TransferError(code, detail, hint=hint)
    if code in ("server.busy", "request.rate_limited", "data.locked", "blobs.unreachable"):
        return BusyError(code, detail, hint=hint)
    return RequestError(code, detail, hint=hint)


def _by_status(status: int) -> str:
    return {
        401: "request.unauthenticated",
        403: "request.forbidden",
        404: "request.not_found",
        409: "request.conflict",
        412: "request.conflict",
        413: "request.too_large",
        429: "request.rate_limited",
        503: "server.busy",
    }.get(status, "server.internal" if status >= 500 else "request.invalid")
