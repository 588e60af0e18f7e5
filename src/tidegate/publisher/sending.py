"""Send a large bundle in parts, and go on where the line broke: in this call, or when it is made again tomorrow.

Nothing is remembered here: the server finds the upload of the same file by its digest and says how far it came. Parts go through the server, or by links right
into its object store; either way the server reads back what arrived, and verifies the bundle as a device would.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from tidegate.client import Client, File, Progress, structs
from tidegate.core.errors import HINTS, PublisherError, TidegateError, TransferError
from tidegate.core.reasons import REASONS

T = TypeVar("T")
#: Parts in one request: proxies bound what a body may have, and what a cut costs.
PARTS: Final = 8
#: How often in a row nothing may get through, and the pauses between, in seconds: doubled up to the last.
TRIES: Final = 8
PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
#: How often it is asked what became of a whole file.
ASK_S: Final = 0.3
ASK_MAX_S: Final = 3.0


def send_bundle(
    client: Client,
    path: Path,
    *,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> structs.Published:
    """Send a bundle, have it published, and return what it brought.

    Args:
        client: of the server.
        path: of the bundle.
        progress: told bytes that were sent, and of how many.
        sleep: waits, in seconds.

    Raises:
        TidegateError: as the server says, with the codes that a device would give; `link.unreachable` when nothing gets through for minutes.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    length = path.stat().st_size
    patience = _Patience(sleep)
    wanted = structs.NewUpload(sha256=sha256, length=length)
    found = patience.until(lambda: client.uploads_create(wanted))
    name = found.id
    while found.offset < length:
        before = found.offset
        try:
            _send_on(client, path, found, progress)
        except TidegateError as error:
            if not _may_pass(error):
                raise
            patience.wait(error)
        found = patience.until(lambda: client.uploads_show(name))
        if found.offset > before:
            patience.rested()
    return _published(client, name, patience, sleep)


def _send_on(client: Client, path: Path, found: structs.Upload, progress: Progress | None) -> None:
    """Send the next parts."""
    offset = found.offset
    if not found.direct:
        count = min(PARTS * found.part_bytes, found.length - offset)
        client.uploads_change(found.id, File(path, offset, count, progress), offset=offset)
        return
    wanted = structs.WantedLinks(offset=offset, count=PARTS)
    for one in client.uploads_links(found.id, wanted).items:
        client.put_part(one.url, File(path, one.offset, one.length, progress))


def _published(
    client: Client, name: str, patience: "_Patience", sleep: Callable[[float], None]
) -> structs.Published:
    """Have a whole file taken in, and wait until it is."""
    found = patience.until(lambda: client.uploads_complete(name))
    pause_s = ASK_S
    while found.published is None:
        if found.state == "failed":
            raise _error(found)
        if found.state == "open":
            # it could not be looked at, or whoever did so is gone
            patience.wait(_error(found) if found.code else None)
            found = patience.until(lambda: client.uploads_complete(name))
            continue
        patience.rested()
        sleep(pause_s)
        pause_s = min(ASK_MAX_S, pause_s * 1.5)
        found = patience.until(lambda: client.uploads_show(name))
    return found.published


class _Patience:
    """How long nothing may get through."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep = sleep
        self._failed = 0

    def rested(self) -> None:
        """Note that something got through."""
        self._failed = 0

    def wait(self, error: TidegateError | None) -> None:
        """Wait before the next try; raise what happened where there were enough."""
        self._failed += 1
        if self._failed >= TRIES:
            raise error or TransferError("link.unreachable", "the server stops again and again")
        self._sleep(min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** (self._failed - 1)))

    def until(self, call: Callable[[], T]) -> T:
        """Call until it is answered."""
        while True:
            try:
                return call()
            except TidegateError as error:
                if not _may_pass(error):
                    raise
                self.wait(error)


def _may_pass(error: TidegateError) -> bool:
    """Say whether the same may work later: the line, a busy server, or two of us at one file."""
    return error.retryable or error.code in {"request.conflict", "server.internal"}


def _error(found: structs.Upload) -> TidegateError:
    """Return what the server says of a file that it did not take."""
    code, detail = found.code, found.detail
    if code not in REASONS and code not in HINTS:
        code, detail = "release.malformed", f"{code}: {detail}"
    return PublisherError(code, detail)
