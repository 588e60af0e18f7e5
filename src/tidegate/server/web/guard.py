"""What every page and form passes through: the session cookie, the form token, the origin of a POST, and the headers of every answer."""

import base64
import hashlib
import hmac
from typing import Any, Final
from urllib.parse import quote, urlsplit

from litestar import Request
from litestar.datastructures import Cookie

from tidegate.core.errors import RequestError

SESSION: Final = "tidegate_session"
NOTICE: Final = "tidegate_notice"
HALF: Final = "tidegate_half"
FLOW: Final = "tidegate_flow"
FORM_BYTES: Final = 65_536
_NOTICE_BYTES: Final = 1_500
#: Marks that stand for themselves, or for something, in an address.
_OF_ADDRESSES: Final = "/?#[]@!$&'()*+,;=:%~"

#: No inline script, no inline style, nothing from elsewhere; nobody may frame a page that has a Halt button.
HEADERS: Final[dict[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

WebRequest = Request[Any, Any, Any]


def form_token(session: str) -> str:
    """Return the token that a form of this session carries. It says nothing about the session's own secret."""
    return hmac.new(session.encode(), b"tidegate form", hashlib.sha256).hexdigest()


def check_origin(request: WebRequest) -> None:
    """Refuse a POST that another site's page sent.

    Browsers name the origin of every POST; a client that names none is no browser and carries no cookie by accident.

    Raises:
        RequestError: the origin is another one.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise RequestError("request.forbidden", "This form was sent from another site.")
    origin = request.headers.get("origin")
    if origin is not None and _host_of(origin) != request.headers.get("host", ""):
        raise RequestError("request.forbidden", "This form was sent from another site.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def check_token(fields: dict[str, str], session: str) -> None:
    """Refuse a form without the session's token.

    Raises:
        RequestError: it is missing or another one.
    """
    given = fields.get("csrf", "")
    if not hmac.compare_digest(given.encode(), form_token(session).encode()):
        raise RequestError(
            "request.forbidden",
            "The page was open for too long, or the form came from elsewhere. Open it again.",
        )


async def read_form(request: WebRequest) -> dict[str, str]:
    """Read the text fields of a small form (untrusted)."""
    data = await request.form()
    return {key: value for key, value in data.items() if isinstance(value, str)}


def session_cookie(request: WebRequest, token: str, *, keep_s: int) -> Cookie:
    """Make the cookie of a session: never readable by script, never sent along from another site."""
    return _strict(request, SESSION, token, keep_s)


def half_cookie(request: WebRequest, token: str, *, keep_s: int) -> Cookie:
    """Make the cookie of half a sign-in, whose second factor is still asked for."""
    return _strict(request, HALF, token, keep_s)


def flow_cookie(request: WebRequest, secret: str, *, keep_s: int) -> Cookie:
    """Make the cookie that binds a sign-in at a provider to this browser. It must come along when the provider sends the browser back: lax, not strict."""
    return Cookie(
        key=FLOW,
        value=secret,
        max_age=keep_s,
        path="/sign-in",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def _strict(request: WebRequest, key: str, token: str, keep_s: int) -> Cookie:
    return Cookie(
        key=key,
        value=token,
        max_age=keep_s,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def notice_cookie(request: WebRequest, text: str) -> Cookie:
    """Carry one sentence over the redirect after a form."""
    packed = base64.urlsafe_b64encode(text.encode()[:_NOTICE_BYTES]).decode()
    return Cookie(
        key=NOTICE,
        value=packed,
        max_age=30,
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )


def read_notice(request: WebRequest) -> str:
    """Return the sentence carried over, or nothing. It is shown escaped like any foreign text."""
    try:
        return base64.urlsafe_b64decode(request.cookies.get(NOTICE, "").encode()).decode(
            errors="replace"
        )
    except ValueError:
        return ""


def local_path(target: str) -> str:
    """Return `target` (untrusted) as an address if it is a path on this server, else `/`: a sign-in never leads elsewhere."""
    plain = target.startswith("/") and not target.startswith("//") and "\\" not in target
    # a header holds ASCII: a group may be called by letters of any language
    return quote(target, safe=_OF_ADDRESSES) if plain and target.isprintable() else "/"
