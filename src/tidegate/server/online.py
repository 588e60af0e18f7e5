"""The online keys: snapshot, timestamp, director, audit. Made at the first start, kept in the data directory with mode 0600.

They are what a thief of the server gets; what each can and cannot do stands in SECURITY.md. Everything that decides what code runs is signed offline.
"""

import hashlib
import hmac
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

    @property
    def digest(self) -> str:
        """Return what tells whether two servers have the same keys, and tells no key."""
        of_all = hashlib.sha256(json.dumps(self.public(), sort_keys=True).encode())
        of_all.update(hmac.digest(self.secret, b"which online keys", "sha256"))
        return of_all.hexdigest()


def open_keys(
    data_dir: Path, randomness: Callable[[int], bytes], *, held: str | None = None
) -> OnlineKeys:
    """Load the online keys; make all of them when there is none yet.

    Args:
        data_dir: of this server.
        randomness: source of unpredictable bytes.
        held: the digest of the keys that other servers of the same database have: these must be those, and none are made. None = there are no others.

    Raises:
        ConfigError: `key.other_server`: they are others, or not there, than those of the other servers.
        ConfigError: `key.missing`: some are there and some are not: restore the folder, since new keys would need a new root.
            `data.read_only`: they cannot be written.
    """
    folder = data_dir / FOLDER
    names = [*(f"{role}.key" for role in ROLES), SECRET_NAME]
    there = [name for name in names if (folder / name).is_file()]
    made = not there
    if made and held is not None:
        raise ConfigError(
            "key.other_server", f"{folder}: the keys of this database's servers are not there"
        )
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
    require(keys, held, data_dir)
    text = json.dumps(keys.public(), indent=2) + "\n"
    path = data_dir / PUBLIC_NAME
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
    return keys


def require(keys: OnlineKeys, held: str | None, data_dir: Path) -> None:
    """Insist that these are the keys with the digest `held`, where there is one.

    Raises:
        ConfigError: `key.other_server`.
    """
    if held not in {None, keys.digest}:
        raise ConfigError(
            "key.other_server",
            f"{data_dir / FOLDER}: not the keys that the other servers of this database have",
        )


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
