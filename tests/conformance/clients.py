"""The two clients that scenarios are run against: the agent's own workflow, and python-tuf's."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from tests.conformance.repository import Repository
from tests.unit.core.repo import NOW
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from tidegate.agent.conformance import Client, main
from tidegate.core.errors import TidegateError

METADATA = "http://repo.test/metadata"
TARGETS = "http://repo.test/targets"


class Wrist:
    """`agent.ports.Clock` that is told the time."""

    def __init__(self, now: int) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)


class Ours:
    """The agent's workflow, through the classes that its command line uses. It may fail with its own errors only: any other is a fault."""

    refusals: tuple[type[Exception], ...] = (TidegateError,)

    def __init__(self, folder: Path, repo: Repository) -> None:
        self.folder = folder
        self._repo = repo

    def init(self, root: bytes) -> None:
        given = self.folder / "given.root"
        given.write_bytes(root)
        assert main(["--metadata-dir", str(self.folder / "metadata"), "init", str(given)]) == 0

    def refresh(self, now: int = NOW) -> None:
        self._client(now).refresh()

    def download(self, names: tuple[str, ...], now: int = NOW) -> None:
        client = self._client(now)
        client.refresh()
        for name in names:
            client.download(name, TARGETS, self.folder / "targets")

    def damage(self, role: str) -> None:
        """Have the power fail in the middle of what is kept of a role: of both copies where there are two."""
        state = self.folder / "metadata" / ".tidegate"
        for place in [*state.glob(f"tuf.{role}.json"), *state.glob(f"tuf.{role}.[01]")]:
            place.write_bytes(place.read_bytes()[:100])

    def _client(self, now: int) -> Client:
        return Client(
            self.folder / "metadata", METADATA, clock=Wrist(now), link=lambda _: self._repo
        )


class _Fetcher(FetcherInterface):
    def __init__(self, repo: Repository) -> None:
        self._repo = repo

    def _fetch(self, url: str) -> Iterator[bytes]:
        found = self._repo.get(urlsplit(url).path)
        if found is None:
            raise DownloadHTTPError("not there", 404)
        return iter([found])


class Theirs:
    """python-tuf's own client. It may fail with anything."""

    refusals: tuple[type[Exception], ...] = (Exception,)

    def __init__(self, folder: Path, repo: Repository) -> None:
        self.folder = folder
        self._repo = repo

    def init(self, root: bytes) -> None:
        (self.folder / "metadata" / "root.json").write_bytes(root)

    def refresh(self, now: int = NOW) -> None:
        self._updater(now).refresh()

    def download(self, names: tuple[str, ...], now: int = NOW) -> None:
        updater = self._updater(now)
        updater.refresh()
        for name in names:
            found = updater.get_targetinfo(name)
            if found is None:
                raise LookupError(name)
            if not updater.find_cached_target(found):
                updater.download_target(found)

    def damage(self, role: str) -> None:
        """Have the power fail in the middle of what is kept of a role; its root is a link, which is removed before it is made anew."""
        place = self.folder / "metadata" / f"{role}.json"
        if role == "root":
            place.unlink()
        else:
            place.write_bytes(place.read_bytes()[:100])

    def _updater(self, now: int) -> Updater:
        updater = Updater(
            str(self.folder / "metadata"),
            METADATA,
            str(self.folder / "targets"),
            TARGETS,
            fetcher=_Fetcher(self._repo),
            bootstrap=None,
        )
        updater._trusted_set.reference_time = datetime.fromtimestamp(now, UTC)
        return updater
