"""The device's own keys: the present one, and the next one while it is on its way to the server. Worker side: this signs.

What is kept in the state directory is a *handle*: the 32 raw bytes of an Ed25519 key, or the name of a key that never leaves a token (PKCS#11, TPM). Both go
the same way: the next handle is written down first, the server is asked, and the next takes the present one's place when the answer is known. A cut in
between leaves both, and asking again is safe. A device whose configuration moved from a file to a token signs with the file until it has a new key.
"""

from typing import Final, Protocol

from tidegate.agent.enrolment import (
    FINGERPRINT_NAME,
    KEY_NAME,
    NEXT_FINGERPRINT_NAME,
    NEXT_KEY_NAME,
)
from tidegate.agent.ports import Clock, Storage
from tidegate.core.errors import ConfigError, DeviceError
from tidegate.core.keys import SEED_BYTES, Signer, private_from_seed

#: How handles of keys in a token begin, and how long a key is that is its own handle.
_IN_TOKEN: Final = b"pkcs11:"
_FILE_BYTES: Final = 32
#: `[device] key` where keys are files of the state directory.
FILE: Final = "file"


class KeySource(Protocol):
    """Where private keys are: makes them, and signs with them."""

    def find(self) -> bytes | None:
        """Return the handle of a key that was put there before this agent came, or None."""
        ...

    def make(self) -> bytes:
        """Make a key and return its handle."""
        ...

    def open(self, handle: bytes) -> Signer:
        """Return the key of a handle.

        Raises:
            DeviceError: `key.missing`. PublisherError: `key.malformed`.
        """
        ...

    def discard(self, handle: bytes) -> None:
        """Destroy a key that is not needed any more. Safe to repeat."""
        ...


class FileKeys:
    """Ed25519 keys whose handle is the key itself, in a file of mode 0600."""

    def __init__(self, clock: Clock) -> None:
        """Take the device's randomness."""
        self._clock = clock

    def find(self) -> bytes | None:
        """Return None: what is in the state directory is found there."""
        return None

    def make(self) -> bytes:
        """Make a key."""
        return private_from_seed(self._clock.random_bytes(SEED_BYTES["ed25519"]))

    def open(self, handle: bytes) -> Signer:
        """Return the key.

        Raises:
            PublisherError: `key.malformed`: the file is damaged.
        """
        return Signer.from_private(handle)

    def discard(self, handle: bytes) -> None:
        """Do nothing: the file was replaced."""


def source_of(setting: str, clock: Clock) -> KeySource:
    """Return where `[device] key` says that keys are.

    Raises:
        ConfigError: `config.invalid`; `config.missing`: the library that it needs is not installed.
    """
    if setting == FILE:
        return FileKeys(clock)
    if setting.startswith("pkcs11:"):
        from tidegate.agent.trust import pkcs11_keys

        return pkcs11_keys.create(setting, clock)
    raise ConfigError("config.invalid", f'device.key = "{setting[:80]}": file, or pkcs11:...')


class DeviceKeys:
    """One device's keys.

    Args:
        storage: the state directory.
        source: where private keys are.
    """

    def __init__(self, storage: Storage, source: KeySource) -> None:
        self._storage = storage
        self._source = source

    def _open(self, handle: bytes) -> Signer:
        if isinstance(self._source, FileKeys) and handle.startswith(_IN_TOKEN):
            raise DeviceError(
                "key.missing", "the key is in a token", hint='set [device] key = "pkcs11:..."'
            )
        if len(handle) == _FILE_BYTES and not handle.startswith(_IN_TOKEN):
            return Signer.from_private(handle)
        return self._source.open(handle)

    def present(self, *, make: bool = False) -> Signer:
        """Return the key that the server knows, or is to know; make and keep one where there is none, if told so.

        Raises:
            DeviceError: `key.missing`: none, and none was to be made; `key.exposed`. PublisherError: `key.malformed`.
        """
        handle = self._storage.read(KEY_NAME)
        if handle is None:
            if not make:
                raise DeviceError("key.missing", "this device has no key yet: enrol it first")
            handle = self._source.find() or self._source.make()
            signer = self._open(handle)
            self._storage.write(KEY_NAME, handle)
            self._show(FINGERPRINT_NAME, signer)
            return signer
        signer = self._open(handle)
        if self._storage.read(FINGERPRINT_NAME) != signer.public.identity.encode():
            self._show(FINGERPRINT_NAME, signer)
        return signer

    def next(self, *, make: bool = False) -> Signer | None:
        """Return the key that is to follow, or None; make and keep one where there is none, if told so."""
        handle = self._storage.read(NEXT_KEY_NAME)
        if handle is not None and handle == self._storage.read(KEY_NAME):
            # the power failed between the two last steps of `promote`
            self._forget_next()
            handle = None
        if handle is None:
            if not make:
                return None
            handle = self._source.make()
            self._storage.write(NEXT_KEY_NAME, handle)
        signer = self._open(handle)
        self._show(NEXT_FINGERPRINT_NAME, signer)
        return signer

    def promote(self) -> None:
        """Put the next key in the present one's place: the server has taken it. Safe to repeat."""
        handle, old = self._storage.read(NEXT_KEY_NAME), self._storage.read(KEY_NAME)
        if handle is None:
            return
        self._storage.write(KEY_NAME, handle)
        self._forget_next()
        self._show(FINGERPRINT_NAME, self._open(handle))
        if old is not None and old != handle:
            self._source.discard(old)

    def _forget_next(self) -> None:
        self._storage.delete(NEXT_KEY_NAME)
        self._storage.delete(NEXT_FINGERPRINT_NAME)

    def _show(self, name: str, signer: Signer) -> None:
        """Write a fingerprint where the loop, which reads no keys, finds it for `status`."""
        text = signer.public.identity.encode()
        if self._storage.read(name) != text:
            self._storage.write(name, text)
