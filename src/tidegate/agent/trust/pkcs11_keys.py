"""Device keys in a token: PKCS#11, which is also how a TPM 2.0 is reached (libtpm2-pkcs11). ECDSA on P-256; the private key is made inside and never leaves.

`[device] key = "pkcs11:token=NAME;object=NAME?module-path=FILE&pin-source=FILE"` (RFC 7512). The one door to `python-pkcs11`, and loaded by the worker only.
"""

import base64
import contextlib
import glob
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote, unquote_to_bytes

from tidegate.agent.ports import Clock
from tidegate.core.errors import ConfigError, DeviceError
from tidegate.core.keys import PublicKey, Signer, public_key

#: How a handle of a key in a token begins; its id in hex follows.
PREFIX: Final = b"pkcs11:"
#: Where modules usually are: a TPM's before a software token's.
MODULES: Final = (
    "/usr/lib/*/libtpm2_pkcs11.so*",
    "/usr/lib/*/pkcs11/libtpm2_pkcs11.so*",
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/*/softhsm/libsofthsm2.so",
)
MODULE_VARIABLE: Final = "TIDEGATE_PKCS11_MODULE"
_ID_BYTES: Final = 8
#: SubjectPublicKeyInfo of a P-256 key, up to the point (RFC 5480).
_SPKI: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
#: DER of the object identifier of P-256.
_P256: Final = bytes.fromhex("06082a8648ce3d030107")
_HINT: Final = "check module-path, token, object and pin-source of [device] key"


def create(uri: str, clock: Clock) -> "TokenKeys":
    """Return the keys of the token that a URI names.

    Raises:
        ConfigError: `config.invalid`: no such URI; `config.missing`: no module; `key.library`: `python-pkcs11` is not installed.
    """
    path, query = _parse(uri)
    if "token" not in path or "object" not in path:
        raise ConfigError("config.invalid", "device.key: token= and object= are needed")
    try:
        import pkcs11
    except ImportError as error:
        raise ConfigError(
            "key.library", "device.key: install tidegate[pkcs11] for keys in a token"
        ) from error
    return TokenKeys(pkcs11, path, query, clock)


def _parse(uri: str) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Split a PKCS#11 URI into the attributes of its path and of its query; `id` stays percent-encoded."""
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    found: list[dict[str, str]] = []
    for text, mark in ((path, ";"), (query, "&")):
        attributes: dict[str, str] = {}
        for one in filter(None, text.split(mark)):
            name, equals, value = one.partition("=")
            if not equals or name in attributes:
                raise ConfigError("config.invalid", f"device.key: {one[:40]!r} is no attribute")
            attributes[name] = value if name == "id" else unquote(value)
        found.append(attributes)
    unknown = set(found[0]) - {"token", "object", "id", "type", "serial"}
    unknown |= set(found[1]) - {"module-path", "pin-source", "pin-value"}
    if unknown:
        raise ConfigError("config.invalid", f"device.key: {min(unknown)[:40]!r} is not known here")
    return found[0], found[1]


class TokenKeys:
    """`agent.trust.device_keys.KeySource` of one token. Each use opens a session of its own and closes it."""

    def __init__(
        self, library: Any, path: Mapping[str, str], query: Mapping[str, str], clock: Clock
    ) -> None:
        """Take the imported library and the parts of the URI."""
        self._pkcs11 = library
        self._path = path
        self._module = _module(query.get("module-path"))
        self._pin = _pin(query)
        self._clock = clock

    def find(self) -> bytes | None:
        """Return the handle of the one key of this name that is there already.

        Raises:
            DeviceError: `key.malformed`: there are several.
        """
        constants = self._pkcs11
        wanted = {
            constants.Attribute.CLASS: constants.ObjectClass.PRIVATE_KEY,
            constants.Attribute.KEY_TYPE: constants.KeyType.EC,
            constants.Attribute.LABEL: self._path["object"],
        }
        if "id" in self._path:
            wanted[constants.Attribute.ID] = unquote_to_bytes(self._path["id"])
        with self._session() as session:
            ids = [bytes(one[constants.Attribute.ID]) for one in session.get_objects(wanted)]
        if len(ids) > 1:
            raise DeviceError(
                "key.malformed",
                f"{len(ids)} keys are called {self._path['object']}",
                hint="add id=",
            )
        return PREFIX + ids[0].hex().encode() if ids else None

    def make(self) -> bytes:
        """Make a key pair inside the token."""
        constants = self._pkcs11
        identifier = self._clock.random_bytes(_ID_BYTES)
        with self._session(writable=True) as session:
            parameters = session.create_domain_parameters(
                constants.KeyType.EC, {constants.Attribute.EC_PARAMS: _P256}, local=True
            )
            parameters.generate_keypair(
                store=True,
                id=identifier,
                label=self._path["object"],
                private_template={
                    constants.Attribute.SENSITIVE: True,
                    constants.Attribute.EXTRACTABLE: False,
                },
            )
        return PREFIX + identifier.hex().encode()

    def open(self, handle: bytes) -> Signer:
        """Return the key of a handle.

        Raises:
            DeviceError: `key.token`: the token or the key is not there.
        """
        try:
            identifier = bytes.fromhex(handle.removeprefix(PREFIX).decode("ascii"))
        except ValueError as error:
            raise DeviceError("key.malformed", "this is no name of a key in a token") from error
        constants = self._pkcs11
        with self._session() as session:
            found = session.get_key(
                object_class=constants.ObjectClass.PUBLIC_KEY,
                key_type=constants.KeyType.EC,
                id=identifier,
            )
            point = bytes(found[constants.Attribute.EC_POINT])
        return Signer.outside(_public(point), lambda message: self._sign(identifier, message))

    def discard(self, handle: bytes) -> None:
        """Destroy a key pair. What cannot be destroyed is left: the server does not take it any more."""
        constants = self._pkcs11
        if not handle.startswith(PREFIX):
            return
        identifier = bytes.fromhex(handle.removeprefix(PREFIX).decode("ascii"))
        with contextlib.suppress(DeviceError), self._session(writable=True) as session:
            for one in list(session.get_objects({constants.Attribute.ID: identifier})):
                one.destroy()

    def _sign(self, identifier: bytes, message: bytes) -> bytes:
        constants = self._pkcs11
        with self._session() as session:
            key = session.get_key(
                object_class=constants.ObjectClass.PRIVATE_KEY,
                key_type=constants.KeyType.EC,
                id=identifier,
            )
            digest = hashlib.sha256(message).digest()
            raw = bytes(key.sign(digest, mechanism=constants.Mechanism.ECDSA))
        return _der(raw)

    @contextlib.contextmanager
    def _session(self, *, writable: bool = False) -> Iterator[Any]:
        """Open a session; every failure of the token is an error that says where to look."""
        constants = self._pkcs11
        try:
            token = constants.lib(self._module).get_token(token_label=self._path["token"])
            with token.open(rw=writable, user_pin=self._pin) as session:
                yield session
        except constants.exceptions.PKCS11Error as error:
            said = f"{type(error).__name__} {error}".strip()
            detail = f"token {self._path['token']}, object {self._path['object']}: {said}"
            raise DeviceError("key.token", detail[:300], hint=_HINT) from error
        except RuntimeError as error:  # a module that cannot be loaded
            raise DeviceError(
                "key.missing", f"{self._module}: {error}"[:300], hint=_HINT
            ) from error


def _module(given: str | None) -> str:
    named = given or os.environ.get(MODULE_VARIABLE)
    if named:
        return named
    for pattern in MODULES:
        found = sorted(glob.glob(pattern))  # noqa: PTH207 - patterns with a root
        if found:
            return found[0]
    raise ConfigError("config.missing", "device.key: no PKCS#11 module; give ?module-path=FILE")


def _pin(query: Mapping[str, str]) -> str | None:
    """Return the PIN: from a file that nobody else may read, or from the URI itself."""
    path = query.get("pin-source")
    if path is None:
        return query.get("pin-value")
    path = path.removeprefix("file:")
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - as everywhere in the agent
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError(
                    "config.invalid",
                    f"device.key: pin-source {path} has mode {mode:04o}: others may read it",
                    hint=f"chmod 600 {path}",
                )
            return file.readline().rstrip("\r\n")
    except OSError as error:
        raise ConfigError(
            "config.unreadable", f"device.key: pin-source {path}: {error.strerror}"
        ) from error


def _public(point: bytes) -> PublicKey:
    """Return the public key of an EC_POINT: an OCTET STRING with an uncompressed point, or (from some tokens) the bare point."""
    bare = point[2:] if len(point) == 67 and point[:2] == b"\x04\x41" else point
    if len(bare) != 65 or bare[0] != 4:
        raise DeviceError("key.malformed", "the token's key is not on P-256")
    text = base64.b64encode(_SPKI + bare).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return public_key("ecdsa", f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n")


def _der(raw: bytes) -> bytes:
    """Turn r and s, as PKCS#11 puts them side by side, into the DER that ECDSA signatures have elsewhere (RFC 3279)."""
    half = len(raw) // 2
    body = b"".join(_integer(one) for one in (raw[:half], raw[half:]))
    return b"\x30" + bytes([len(body)]) + body


def _integer(raw: bytes) -> bytes:
    trimmed = raw.lstrip(b"\0") or b"\0"
    padded = b"\0" + trimmed if trimmed[0] & 0x80 else trimmed
    return b"\x02" + bytes([len(padded)]) + padded
