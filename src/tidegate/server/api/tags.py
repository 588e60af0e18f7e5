"""ETags: what an answer is, as a short digest; `If-None-Match` spares an answer that is known, `If-Match` refuses a change of what changed meanwhile.

The tag of a thing that can be changed has two parts: `"EDIT.WHOLE"`. The first is what people can edit of it (of a rollout its generation, of others a
digest), without what comes and goes by itself, such as when a device was last heard: `If-Match` compares that, so a tag stays good as long as nobody
edited. The second is a digest of the answer: `If-None-Match` compares both.
"""

import hashlib
from typing import Any, Final

import msgspec
from litestar import Request

from tidegate.server.acts import ChangedError

#: Key of a handler's `opt`: it heeds `If-Match`.
MATCH: Final = "match"
_HEADER_MAX: Final = 2000


def tag_of(*what: Any) -> str:
    """Return the tag of plain values or structs."""
    return f'"{hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()[:32]}"'


def whole_tag(edit: str | None, body: bytes) -> str:
    """Return the tag of an answer, and of what can be edited of the thing that it shows, if it shows one."""
    whole = hashlib.sha256(body).hexdigest()[:32]
    return f'"{whole}"' if edit is None else f'{edit[:-1]}.{whole}"'


def is_known(header: str | None, tag: str) -> bool:
    """Say whether `If-None-Match` (untrusted) names a tag, weakly compared."""
    given = [one.strip().removeprefix("W/") for one in (header or "")[:_HEADER_MAX].split(",")]
    return "*" in given or tag in given


def require_match(request: Request[Any, Any, Any], tag: str) -> None:
    """Refuse where the call has an `If-Match` that does not name the present tag. Call it in the transaction of the change.

    Raises:
        ChangedError: `request.conflict`.
    """
    header = request.headers.get("if-match")
    if header is not None and not any(
        one == "*" or edit_of(one) == tag for one in header[:_HEADER_MAX].split(",")
    ):
        raise ChangedError(
            "request.conflict",
            "it changed since you read it",
            hint=f"read it again, look at what changed, and send its new ETag in If-Match: {tag}",
        )


def edit_of(tag: str) -> str:
    """Return the part of a tag (untrusted) that says what can be edited."""
    plain = tag.strip().removeprefix("W/").strip('"').partition(".")[0]
    return plain if plain == "*" else f'"{plain}"'
