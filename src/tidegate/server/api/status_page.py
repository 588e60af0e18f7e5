"""The status page: what was published of incidents, for everybody, as a page, as JSON and as a feed. Off unless the settings say otherwise.

The bytes are the same for whoever asks, carry an ETag and may be kept by caches for a minute; there is no cookie and no script.
"""

import asyncio
import datetime as dt
import hashlib
from collections.abc import Callable
from typing import Any, Final

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler

from tidegate.core import codec
from tidegate.core.errors import RequestError
from tidegate.rollout.incident.page import POLICY, page
from tidegate.rollout.incident.text import markup, paragraphs
from tidegate.rollout.incident.wording import when
from tidegate.server import publication
from tidegate.server.api.desk import ANYBODY, PERMISSION, Desk
from tidegate.server.publication import Publication

SCHEMA: Final = "tidegate.status/1"
#: For how long a cache may show it, in seconds: so late is a withdrawal seen at most.
KEPT_S: Final = 60
Found = tuple[Publication, ...]
Writer = Callable[[Found, str, str], bytes]


def status_routes(desk: Desk) -> list[HTTPRouteHandler]:
    """Make the handlers of `/status`, `/status.json` and `/status.atom`."""

    @get("/status", opt={PERMISSION: ANYBODY}, include_in_schema=False)
    async def as_page(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Answer with the page."""
        return await _answer(desk, request, to_html, "text/html")

    @get("/status.json", opt={PERMISSION: ANYBODY}, include_in_schema=False)
    async def as_json(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Answer with JSON."""
        return await _answer(desk, request, to_json, "application/json")

    @get("/status.atom", opt={PERMISSION: ANYBODY}, include_in_schema=False)
    async def as_feed(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Answer with an Atom feed."""
        return await _answer(desk, request, to_atom, "application/atom+xml; charset=utf-8")

    return [as_page, as_json, as_feed]


async def _answer(
    desk: Desk, request: Request[Any, Any, Any], write: Writer, kind: str
) -> Response[bytes]:
    settings = desk.services.settings
    if not settings.status_public:
        raise RequestError("request.not_found", "this server has no status page")
    found = await asyncio.to_thread(desk.read, publication.published)
    base = settings.external_url.rstrip("/")
    body = write(found, settings.status_title, base)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "ETag": etag,
        "Cache-Control": f"public, max-age={KEPT_S}",
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(b"", status_code=304, media_type=kind, headers=headers)
    return Response(body, media_type=kind, headers=headers)


def to_json(found: Found, title: str, base: str) -> bytes:
    """Write what is published as JSON (`tidegate.status/1`). Times are unix seconds."""
    body = {
        "schema": SCHEMA,
        "title": title,
        "url": f"{base}/status",
        "updated_at": _newest(found),
        "incidents": found,
    }
    return codec.encode(body)


def to_html(found: Found, title: str, base: str) -> bytes:
    """Write what is published as a page: what is not over first."""
    del base
    now = [one for one in found if one.status != "closed"]
    before = [one for one in found if one.status == "closed"]
    parts = [f"<h1>{markup(title)}</h1>"]
    parts.append("" if now else "<p>No incident is open.</p>")
    parts += [_incident(one) for one in now]
    if before:
        parts += ["<h2>Closed</h2>", *(_incident(one) for one in before)]
    parts.append('<footer><a href="/status.atom">Feed</a> <a href="/status.json">JSON</a></footer>')
    feed = '<link rel="alternate" type="application/atom+xml" href="/status.atom">'
    return page(title, "\n".join(parts), feed).encode()


def _incident(one: Publication) -> str:
    facts = (
        ("Status", one.status),
        ("Severity", one.severity),
        ("Published", f"{when(one.published_at)} UTC"),
        ("Updated", f"{when(one.updated_at)} UTC"),
        ("Impact", one.impact),
    )
    listed = "".join(f"<dt>{name}</dt><dd>{markup(value)}</dd>" for name, value in facts if value)
    summary = "".join(f"<p>{markup(part)}</p>" for part in paragraphs(one.summary))
    action = "".join(f"<p>{markup(part)}</p>" for part in paragraphs(one.action))
    lines = "".join(
        f"<li>{when(update.at)} UTC: {markup(update.text)}</li>" for update in reversed(one.updates)
    )
    return (
        f'<article id="{markup(one.name)}"><h2>{markup(one.title)}</h2><dl>{listed}</dl>{summary}'
        + (f"<h3>What is done about it</h3>{action}" if action else "")
        + (f"<h3>Updates</h3><ul>{lines}</ul>" if lines else "")
        + "</article>"
    )


def to_atom(found: Found, title: str, base: str) -> bytes:
    """Write what is published as an Atom feed (RFC 4287)."""
    parts = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<feed xmlns="http://www.w3.org/2005/Atom">',
        f"<title>{markup(title)}</title>",
        f"<id>{markup(base or 'urn:tidegate')}{'/status' if base else ':status'}</id>",
        f"<updated>{_stamp(_newest(found))}</updated>",
        f"<author><name>{markup(title)}</name></author>",
        f'<link rel="self" href="{markup(base)}/status.atom"/>',
        f'<link rel="alternate" type="text/html" href="{markup(base)}/status"/>',
    ]
    parts += [_entry(one, base) for one in found]
    return "\n".join([*parts, "</feed>\n"]).encode()


def _entry(one: Publication, base: str) -> str:
    said = [one.summary, one.impact, one.action]
    said += [f"{when(update.at)} UTC: {update.text}" for update in one.updates]
    text = "\n\n".join(
        "\n".join(markup(part) for part in paragraphs(whole)) for whole in said if whole
    )
    return (
        f"<entry><title>{markup(one.title)} ({one.status})</title>"
        f"<id>urn:tidegate:status:{markup(one.name)}:{one.published_at}</id>"
        f"<published>{_stamp(one.published_at)}</published><updated>{_stamp(one.updated_at)}</updated>"
        f'<link href="{markup(base)}/status#{markup(one.name)}"/>'
        f'<content type="text">{text}</content></entry>'
    )


def _newest(found: Found) -> int:
    return max((one.updated_at for one in found), default=0)


def _stamp(at: int) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
