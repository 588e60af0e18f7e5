"""The online keys: snapshot, timestamp, director, audit. Made at the first start, kept in the data directory with mode 0600.

They are what a thief of the server gets; what each can and cannot do stands in SECURITY.md. Everything that decides what code runs is signed offline.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.keys import SEED_BYTES, Signer, private_from_seed

ROLES: Final = ("snapshot", "timestamp", "director", "audit")
FOLDER: Final = "online"
PUBLIC_NAME: Final = "online.pub.json"
SECRET_NAME: Final = "session.key"  # noqa: S105 - the name of a file
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """The server's own signers, and the secret behind device sessions."""

    snapshot: Signer
    timestamp: Signer
    director: Signer
    audit: Signer
    secret: bytes
    made: bool = False

    def public(self) -> dict[str, dict[str, object]]:
        """Return the public halves by role, as the root ceremony takes them."""
        return {
            role: {"keyid": signer.public.keyid, **signer.public.to_dict()}
            for role in ROLES
            if isinstance(signer := getattr(self, role), Signer)
        }


def open_keys(data_dir: Path, randomness: Callable[[int], bytes]) -> OnlineKeys:
    """Load the online keys; make all of them when there is none yet.

    Raises:
        ConfigError: `key.missing`: some are there and some are not: restore the folder, since new keys would need a new root.
            `data.read_only`: they cannot be written.
    """
    folder = data_dir / FOLDER
    names = [*(f"{role}.key" for role in ROLES), SECRET_NAME]
    there = [name for name in names if (folder / name).is_file()]
    made = not there
    try:
        if made:
            _make(folder, randomness)
        elif len(there) != len(names):
            missing = ", ".join(sorted(set(names) - set(there)))
            raise ConfigError("key.missing", f"{folder}: {missing} is not there")
        signers = {role: _load(folder / f"{role}.key") for role in ROLES}
        secret = (folder / SECRET_NAME).read_bytes()
    except OSError as error:
        raise ConfigError("data.read_only", f"{folder}: {error.strerror}") from error
    if len(secret) != _SECRET_BYTES:
        raise ConfigError("key.malformed", f"{folder / SECRET_NAME}: not {_SECRET_BYTES} bytes")
    keys = OnlineKeys(**signers, secret=secret, made=made)
    text = json.dumps(keys.public(), indent=2) + "\n"
    path = data_dir / PUBLIC_NAME
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
    return keys


def _load(path: Path) -> Signer:
    try:
        return Signer.from_private(path.read_bytes())
    except PublisherError as error:
        raise ConfigError("key.malformed", f"{path} is not a key") from error


def _make(folder: Path, randomness: Callable[[int], bytes]) -> None:
    """Write every key, or none: they are made in a folder beside and moved into place together."""
    beside = folder.with_name(f"{folder.name}.new")
    beside.mkdir(mode=0o700, parents=True, exist_ok=True)
    for role in ROLES:
        private = private_from_seed(randomness(SEED_BYTES["ed25519"]), "ed25519")
        _write_secret(beside / f"{role}.key", private)
    _write_secret(beside / SECRET_NAME, randomness(_SECRET_BYTES))
    _sync(beside)
    if folder.is_dir():
        folder.rmdir()  # only an empty one: keys are never overwritten
    beside.replace(folder)
    _sync(folder.parent)


def _write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
