"""The agent's TUF workflow behind the command line that `theupdateframework/tuf-conformance` drives.

    python -m tidegate.agent.conformance --metadata-dir D init ROOT
    … --metadata-url U --metadata-dir D refresh
    … --metadata-url U --metadata-dir D --target-name N --target-base-url B --target-dir T download

It adds nothing to the workflow: `TrustStore` with its own state below D, of which D shows the documents byte for byte. Two things differ from a device.
Foreign repositories need not name length and digest of each document (`strict=False`); and the system's clock is believed, since the suite fakes it.
Exit code 0, or 1 with the reason on stderr.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from tidegate.agent.board import SystemClock
from tidegate.agent.files import StateDirectory, replace_file
from tidegate.agent.net import fetch
from tidegate.agent.net.link import HttpTransport
from tidegate.agent.ports import Clock, Transport
from tidegate.agent.trust.store import TrustStore
from tidegate.core.delegations import TargetInfo
from tidegate.core.errors import PublisherError, TidegateError

_STATE: Final = ".tidegate"
_KINDS: Final = ("sha256", "sha512")


def connect(origin: str) -> Transport:
    """Return the way to a server (`http://host:port`)."""
    return HttpTransport(origin)


class Client:
    """One client of one foreign repository.

    Args:
        folder: where `root.json` was put by `init`, and where documents are shown.
        url: the repository's metadata.
        clock: the reference for expiry, and the measure of rates.
        link: how a server is reached.

    Raises:
        PublisherError: `sig.*`: what `init` put there is no root.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        clock: Clock,
        link: Callable[[str], Transport] = connect,
    ) -> None:
        self._link = link
        self._folder = folder
        self._clock = clock
        transport, path = self._server(url)
        self._store = TrustStore(
            StateDirectory(str(folder / _STATE)),
            transport,
            (folder / "root.json").read_bytes(),
            int(self._clock.now()),
            clock=self._clock,
            repo=path,
            strict=False,
        )

    def refresh(self) -> None:
        """Walk the roots, take timestamp, snapshot and targets."""
        try:
            self._store.refresh_root()
            self._store.refresh_top()
        finally:
            self._show()

    def download(self, name: str, base_url: str, folder: Path) -> None:
        """Find a target, and have its bytes in `folder`, unless they are there already."""
        try:
            found = self._store.find(name)
        finally:
            self._show()
        if found is None:
            raise PublisherError("sig.director_mismatch", f"nobody speaks for {name}")
        place = folder / quote(name, "")
        if place.is_file() and _refusal(found, place.read_bytes()) is None:
            return
        place_body(self._bytes(found, base_url), place)

    def _bytes(self, target: TargetInfo, base_url: str) -> bytes:
        transport, path = self._server(base_url)
        name = target.path
        known = next((target.hashes[kind] for kind in _KINDS if kind in target.hashes), None)
        if known is None:
            raise PublisherError("sig.malformed", f"{name}: no digest of a kind known here")
        if self._store.trusted.root.signed.consistent_snapshot:
            head, slash, last = name.rpartition("/")
            name = f"{head}{slash}{known}.{last}"
        body = fetch.document(transport, path + quote(name), limit=target.length, clock=self._clock)
        refusal = "not there" if body is None else _refusal(target, body)
        if body is None or refusal:
            raise PublisherError("sig.mix_and_match", f"{target.path}: {refusal}")
        return body

    def _server(self, url: str) -> tuple[Transport, str]:
        parts = urlsplit(url)
        return self._link(f"{parts.scheme}://{parts.netloc}"), parts.path.rstrip("/") + "/"

    def _show(self) -> None:
        for name, body in self._store.documents():
            place = self._folder / name
            if not place.is_file() or place.read_bytes() != body:
                replace_file(place, body)


def place_body(body: bytes, place: Path) -> None:
    """Put believed bytes where they are wanted; a partial file never stands there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_file(place, body)


def _refusal(target: TargetInfo, body: bytes) -> str | None:
    """Say why bytes are not the target; None when they are. Every digest must fit, and be of a kind known here."""
    if len(body) != target.length:
        return f"{len(body)} bytes, not {target.length}"
    for kind, digest in target.hashes.items():
        if kind not in _KINDS or hashlib.new(kind, body).hexdigest() != digest:
            return f"{kind} differs"
    return None


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tidegate.agent.conformance")
    parser.add_argument("--metadata-url")
    parser.add_argument("--metadata-dir", required=True, type=Path)
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-base-url")
    parser.add_argument("--target-dir", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    found = parser.parse_args(arguments)
    if found.command != "init" and not found.metadata_url:
        parser.error("--metadata-url is needed")
    if found.command == "download" and not (
        found.target_name and found.target_base_url and found.target_dir
    ):
        parser.error("--target-name, --target-base-url and --target-dir are needed")
    return found


def main(arguments: list[str]) -> int:
    """Do one command; returns the exit code."""
    asked = _arguments(arguments)
    try:
        if asked.command == "init":
            replace_file(asked.metadata_dir / "root.json", asked.root.read_bytes())
            return 0
        client = Client(asked.metadata_dir, asked.metadata_url, clock=SystemClock())
        client.refresh()
        if asked.command == "download":
            for name in asked.target_name:
                client.download(name, asked.target_base_url, asked.target_dir)
    except (TidegateError, OSError) as error:
        sys.stderr.write(f"{asked.command}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
