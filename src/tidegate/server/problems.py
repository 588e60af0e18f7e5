"""Errors as RFC 9457 problems: the same code everywhere, and the HTTP status that fits it."""

from typing import Final

from tidegate.core.errors import TidegateError
from tidegate.core.protocol import Problem
from tidegate.core.reasons import family

_STATUS: Final = {
    "request.invalid": 400,
    "request.too_large": 413,
    "request.method": 405,
    "request.not_found": 404,
    "request.forbidden": 403,
    "request.unauthenticated": 401,
    "request.conflict": 409,
    "request.confirmation_needed": 409,
    "request.approval_needed": 409,
    "auth.provider": 403,
    "auth.second_factor": 401,
    "auth.stale": 403,
    "request.rate_limited": 429,
    "device.unknown": 404,
    "device.pending": 403,
    "device.revoked": 403,
    "device.quarantined": 403,
    "claim.invalid": 403,
    "session.expired": 401,
    "release.exists": 409,
    "release.malformed": 422,
    "meta.no_root": 409,
    "supply.too_large": 413,
    "tenant.suspended": 503,
    "tenant.unavailable": 503,
    "tenant.unknown_host": 421,
    "quota.devices": 403,
    "quota.storage": 507,
    "quota.events": 429,
    "quota.requests": 429,
    "server.busy": 503,
    "server.internal": 500,
    "blobs.unreachable": 503,
    "blobs.refused": 500,
    "blobs.untrue": 502,
    "upload.quota": 507,
    "data.unreachable": 503,
    "data.outcome_unknown": 503,
    "data.full": 507,
    "data.read_only": 503,
    "data.denied": 503,
    "data.damaged": 500,
}
_FAMILY_STATUS: Final = {
    "sig": 422,
    "compat": 422,
    "key": 422,
    "meta": 422,
    "download": 422,
    "supply": 422,
}
#: Whoever is answered with one of these is told when to come again.
MAY_PASS: Final = frozenset({429, 503})
TYPE: Final = b"application/problem+json"


def status_of(code: str) -> int:
    """Return the HTTP status for an error code."""
    return _STATUS.get(code) or _FAMILY_STATUS.get(family(code), 500)


def detail_of(error: TidegateError) -> str:
    """Return what a caller is told of an error: of the database behind the server neither where it is nor who comes to it, for anybody may be asking."""
    if family(error.code) == "data":
        return error.detail.partition(": ")[0]
    return error.detail


def problem(error: TidegateError) -> Problem:
    """Describe an error for whoever called."""
    return Problem(
        type=f"urn:tidegate:error:{error.code}",
        title=error.code,
        status=status_of(error.code),
        detail=detail_of(error)[:1000],
        code=error.code,
        hint=error.hint,
    )
