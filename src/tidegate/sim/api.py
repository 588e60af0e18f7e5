"""A small client of the admin API over any wire: real HTTP for the demo, or the application in this process. Patient while the server restarts."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from tidegate.core.bundle import CONTENT_TYPE
from tidegate.core.errors import HINTS, RequestError, TransferError
from tidegate.core.reasons import REASONS
from tidegate.sim.link import Answer, Wire

#: How long a server may be away while it restarts, in seconds.
PATIENCE_S: Final = 20.0
_JSON: Final = {"content-type": "application/json"}


class Api:
    """Calls `/api/v1` with an API token."""

    def __init__(self, wire: Wire, token: str) -> None:
        """Use this wire and token."""
        self._wire = wire
        self._token = token

    def get(self, path: str, **query: str | int) -> Any:
        """Return what stands at `path`.

        Raises:
            RequestError: the server refuses, with its code.
            TransferError: nobody answers for `PATIENCE_S`.
        """
        return _decoded(self._patient("GET", _with(path, query), None, {}))

    def get_text(self, path: str, **query: str | int) -> str:
        """Return what stands at `path`, as text."""
        return self._patient("GET", _with(path, query), None, {}).body.decode("utf-8", "replace")

    def pages(self, path: str, **query: str | int) -> Iterator[Any]:
        """Yield every item of a listing, page by page."""
        more: dict[str, str | int] = {}
        while True:
            page = self.get(path, **query, **more)
            yield from page["items"]
            if not page.get("next"):
                return
            more = {"cursor": page["next"]}

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str) -> Any:
        """Post a JSON body. The idempotency `key` lets it be repeated while the server restarts."""
        content = json.dumps(body or {}).encode()
        headers = {**_JSON, "idempotency-key": key}
        return _decoded(self._patient("POST", path, content, headers))

    def upload(self, path: str, file: Path) -> Any:
        """Post a bundle. Publishing the same bytes again changes nothing, so it may be repeated."""
        headers = {"content-type": CONTENT_TYPE}
        return _decoded(self._patient("POST", path, file.read_bytes(), headers))

    def _patient(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Answer:
        sent = {"authorization": f"Bearer {self._token}", **headers}
        end = time.monotonic() + PATIENCE_S
        answer = self._try(method, path, sent, body, last=False)
        while answer is None:
            time.sleep(0.1)
            answer = self._try(method, path, sent, body, last=time.monotonic() > end)
        if answer.status >= 400:
            raise _problem(answer)
        return answer

    def _try(
        self, method: str, path: str, sent: Mapping[str, str], body: bytes | None, *, last: bool
    ) -> Answer | None:
        """Send once; None when it is worth trying again."""
        try:
            answer = self._wire.send(method, f"/api/v1{path}", sent, body)
        except TransferError:
            if last:
                raise
            return None
        return None if answer.status == 503 and not last else answer


def _with(path: str, query: Mapping[str, str | int]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _decoded(answer: Answer) -> Any:
    return json.loads(answer.body) if answer.body else None


def _problem(answer: Answer) -> RequestError:
    try:
        found = json.loads(answer.body)
    except ValueError:
        found = {}
    code = str(found.get("code", ""))
    said = found.get("detail") or found.get("title") or answer.body[:200].decode("utf-8", "replace")
    known = code if code in HINTS or code in REASONS else "request.invalid"
    return RequestError(known, f"{answer.status}: {said}")
