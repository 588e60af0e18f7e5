"""Blobs that are read inside of transactions: never over a network.

The tree of a grant's cohort is asked at twenty places for each device that is brought back, by whoever writes for everybody. From an object store that would
hold up the whole server for as long as the store likes. So what is wanted there is fetched whole, beside, once, its digest checked; until it is here the device
is told to come again, which is what a busy server says. A start is delayed by that, never a stop.
"""

import logging
import threading
from pathlib import Path
from typing import Final

from tidegate.core.errors import BusyError, TidegateError
from tidegate.server.blobs import Blob, Blobs
from tidegate.server.blobs.local import LocalBlobs

_READ: Final = 1 << 20
_log = logging.getLogger("tidegate.nearby")


class Nearby:
    """Copies of some blobs of a store on this machine.

    Args:
        blobs: where they come from.
        folder: where copies lie, made when there is one; each process of a machine may use the same.
    """

    def __init__(self, blobs: Blobs, folder: Path) -> None:
        self._blobs = blobs
        self._folder = folder
        self._lock = threading.Lock()
        self._fetching: set[str] = set()
        self._absent: set[str] = set()

    def open(self, sha256: str) -> Blob | None:
        """Open a blob at once, or None: there is none.

        Raises:
            BusyError: `server.busy`: it is being fetched.
        """
        if not self._blobs.remote:
            return self._blobs.open(sha256)
        found = LocalBlobs(self._folder).open(sha256)
        if found is not None:
            return found
        with self._lock:
            if sha256 in self._absent:
                self._absent.discard(sha256)
                return None
            if sha256 not in self._fetching:
                self._fetching.add(sha256)
                threading.Thread(target=self._fetch, args=(sha256,), daemon=True).start()
        raise BusyError("server.busy", "what proves the way back is being fetched from the store")

    def _fetch(self, sha256: str) -> None:
        there = True
        try:
            there = self._copy(sha256)
        except TidegateError as error:
            _log.warning("%s could not be fetched: %s", sha256, error)
        finally:
            with self._lock:
                self._fetching.discard(sha256)
                if not there:
                    self._absent.add(sha256)

    def _copy(self, sha256: str) -> bool:
        blob = self._blobs.open(sha256)
        if blob is None:
            return False
        try:
            pieces = (blob.read_at(at, _READ) for at in range(0, blob.size, _READ))
            LocalBlobs(self._folder).put(sha256, pieces)
        finally:
            blob.close()
        return True
