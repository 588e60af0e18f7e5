"""The demo's own small client of the admin API: JSON over one kept connection, patient while the server restarts."""

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from tidegate.core.errors import HINTS, RequestError, TransferError
from tidegate.core.reasons import REASONS

#: How long a server may be away while it restarts, in seconds.
PATIENCE_S: Final = 20.0


class Api:
    """Calls `http://host:port/api/v1`."""

    def __init__(self, host: str, port: int, token: str) -> None:
        """Use this server with this API token."""
        self.host, self.port, self.token = host, port, token

    def get(self, path: str, **query: str | int) -> Any:
        """Return what stands at `path`.

        Raises:
            RequestError: the server refuses, with its code.
            TransferError: nobody answers for `PATIENCE_S`.
        """
        return self._patient("GET", f"{path}?{urlencode(query)}" if query else path, None)

    def pages(self, path: str, **query: str | int) -> Iterator[Any]:
        """Yield every item of a listing, page by page."""
        cursor: str | None = ""
        while cursor is not None:
            more = {"cursor": cursor} if cursor else {}
            page = self.get(path, **query, **more)
            yield from page["items"]
            cursor = page.get("next") or None

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, key: str = "") -> Any:
        """Post a JSON body. With an idempotency `key` it is repeated while the server restarts."""
        content = json.dumps(body or {}).encode()
        if key:
            return self._patient("POST", path, content, {"idempotency-key": key})
        return self._once("POST", path, content, {})

    def upload(self, path: str, file: Path) -> Any:
        """Post a file as it is."""
        with file.open("rb") as content:
            size = str(file.stat().st_size)
            kind = "application/vnd.tidegate.bundle"
            headers = {"content-length": size, "content-type": kind}
            return self._once("POST", path, content, headers)

    def _patient(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> Any:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._once(method, path, body, headers or {})
            except TransferError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _once(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        sent = {"authorization": f"Bearer {self.token}", "accept": "application/json"}
        if body is not None:
            sent["content-type"] = "application/json"
        sent.update(headers)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, f"/api/v1{path}", body=body, headers=sent)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise TransferError("download.refused", str(error)[:200]) from error
        finally:
            connection.close()
        if answer.status == 503:
            raise TransferError("download.refused", "the server is busy")
        if answer.status >= 400:
            raise _problem(answer.status, content)
        return json.loads(content) if content else None


def _problem(status: int, content: bytes) -> RequestError:
    try:
        found = json.loads(content)
    except ValueError:
        found = {}
    code = str(found.get("code", ""))
    detail = f"{status}: {found.get('detail') or found.get('title') or content[:200]!r}"
    return RequestError(code if code in HINTS or code in REASONS else "request.invalid", detail)
