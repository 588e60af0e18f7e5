"""Key files: a private key sealed with a passphrase, and its public half beside it.

A key file is one JSON object: a readable header, and the private key encrypted with AES-256-GCM under a key that Argon2id makes of the passphrase.
The header is authenticated with it. (PKCS#8's own encryption is not used: cryptography writes it with 2,048 rounds of PBKDF2, which a laptop tries
thousands of times a second.)
"""

import base64
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Meta

from tidegate.core.codec import canonical
from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.keys import SEED_BYTES, PublicKey, Signer, private_from_seed, public_key

#: Cost of trying one passphrase: 64 MiB and three passes, about half a second.
MEMORY_KIB: Final = 64 << 10
PASSES: Final = 3
#: Shortest passphrase for a new key.
PASSPHRASE_MIN: Final = 12
_FILE_MAX: Final = 16 << 10
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

KeyType = Literal["ed25519", "ecdsa"]
Role = Literal["root", "targets", "product", "incident", "any"]


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A key file. Costs are bounded, since the file is read before anything about it is known."""

    schema: Literal["tidegate.key/1"] = "tidegate.key/1"
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Role = "any"
    keytype: Literal["ed25519", "ecdsa"]
    public: Annotated[str, Meta(max_length=600)]
    keyid: Annotated[str, Meta(max_length=128)]
    kdf: Literal["argon2id"] = "argon2id"
    memory_kib: Annotated[int, Meta(ge=8, le=1 << 20)] = MEMORY_KIB
    passes: Annotated[int, Meta(ge=1, le=16)] = PASSES
    salt: Annotated[str, Meta(min_length=24, max_length=64)]
    nonce: Annotated[str, Meta(min_length=16, max_length=16)]
    sealed: Annotated[str, Meta(max_length=128)] = ""


class PublicFile(msgspec.Struct, frozen=True, kw_only=True):
    """`NAME.pub.json`: what a holder gives to whoever prepares the ceremony.

    `uri` names the private half where it lies in a token or a key service; it is no secret, and means something to its holder only.
    """

    schema: Literal["tidegate.public_key/1"] = "tidegate.public_key/1"
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Role = "any"
    keyid: Annotated[str, Meta(max_length=128)]
    keytype: Literal["ed25519", "ecdsa"]
    public: Annotated[str, Meta(max_length=600)]
    uri: Annotated[str, Meta(max_length=600)] = ""

    @property
    def key(self) -> PublicKey:
        """Return the key, checked: also that its id is its own, for in metadata one id is one key.

        Raises:
            PublisherError: `sig.malformed`.
        """
        key = public_key(self.keytype, self.public)
        if key.keyid != self.keyid:
            raise PublisherError("sig.malformed", "its key id belongs to another key")
        return key.called(self.name)


@dataclass(frozen=True)
class NewKey:
    """A key that was just made."""

    private_path: Path
    public_path: Path
    public: PublicFile


def new_key(
    path: Path,
    name: str,
    passphrase: str,
    *,
    role: Role = "any",
    keytype: KeyType = "ed25519",
    randomness: Callable[[int], bytes] = os.urandom,
    memory_kib: int | None = None,
) -> NewKey:
    """Make a key, seal it into `path`, write its public half to `NAME.pub.json` beside it.

    Args:
        path: must not exist: a key is never overwritten.
        name: for people.
        passphrase: at least 12 characters.
        role: what it is meant for.
        keytype: `ed25519` or `ecdsa` (P-256).
        randomness: unpredictable bytes.
        memory_kib: cost of trying a passphrase [`MEMORY_KIB`]; lower only for keys that are thrown away.

    Raises:
        ConfigError: `config.invalid`: the file exists, the passphrase is too short, or the name cannot be that of a file.
    """
    private = private_from_seed(randomness(SEED_BYTES[keytype]), keytype)
    return _keep(path, name, private, keytype, passphrase, role, randomness, memory_kib)


def import_key(
    source: Path,
    path: Path,
    name: str,
    ask: Callable[[], str],
    passphrase: Callable[[], str],
    *,
    role: Role = "any",
    randomness: Callable[[int], bytes] = os.urandom,
    memory_kib: int | None = None,
) -> NewKey:
    """Take a private key from a PEM file (PKCS#8, as `openssl genpkey` and `openssl pkcs8 -topk8 -scrypt` write it) and seal it anew into `path`.

    Args:
        source: the PEM file; it is left as it is.
        path: must not exist.
        name: for people.
        ask: gives the passphrase of `source`; called only when it is sealed.
        passphrase: gives that of the new file; called last.
        role: what the key is meant for.
        randomness: unpredictable bytes.
        memory_kib: as for `new_key`.

    Raises:
        ConfigError: `key.missing`; `key.malformed`: no private key that devices could verify; `key.passphrase`; `config.invalid` as `new_key`.
    """
    private, keytype = _from_pem(source, ask)
    return _keep(path, name, private, keytype, passphrase(), role, randomness, memory_kib)


def write_public(path: Path, public: PublicFile) -> None:
    """Write `NAME.pub.json` of a key that lies elsewhere.

    Raises:
        ConfigError: `config.invalid`: the file exists.
    """
    require_name(public.name)
    _write(path, _pretty(public), mode=0o644, replace=False)


def require_name(name: str) -> None:
    """Refuse names of keys that could not stand in a file's name.

    Raises:
        ConfigError: `config.invalid`.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "config.invalid", f"{name!r}: a key's name has letters, digits and . _ @ + - only"
        )


def _keep(
    path: Path,
    name: str,
    private: bytes,
    keytype: KeyType,
    passphrase: str,
    role: Role,
    randomness: Callable[[int], bytes],
    memory_kib: int | None,
) -> NewKey:
    require_name(name)
    _require_long(passphrase)
    key = Signer.from_private(private, keytype).public
    public = PublicFile(name=name, role=role, keyid=key.keyid, keytype=keytype, public=key.public)
    body = _seal(private, public, passphrase, randomness, memory_kib or MEMORY_KIB)
    _write(path, body, mode=0o600, replace=False)
    beside = path.with_name(f"{path.name.removesuffix('.key')}.pub.json")
    _write(beside, _pretty(public), mode=0o644, replace=True)
    return NewKey(path, beside, public)


def _require_long(passphrase: str) -> None:
    if len(passphrase) < PASSPHRASE_MIN:
        raise ConfigError("config.invalid", f"a passphrase has {PASSPHRASE_MIN} characters or more")


def _from_pem(source: Path, ask: Callable[[], str]) -> tuple[bytes, KeyType]:
    body = _read(source)
    if b"-----BEGIN " not in body or b"PRIVATE KEY-----" not in body:
        raise ConfigError("key.malformed", f"{source} holds no private key in PEM")
    if b"BEGIN OPENSSH" in body:
        hint = f"turn a copy of it into PKCS#8: ssh-keygen -p -m PKCS8 -f {source}"
        raise ConfigError("key.malformed", f"{source} is an OpenSSH key", hint=hint)
    sealed = b"ENCRYPTED" in body
    try:
        key = load_pem_private_key(body, ask().encode() if sealed else None)
    except UnsupportedAlgorithm as error:
        raise ConfigError("key.malformed", f"{source}: {error}") from error
    except (ValueError, TypeError) as error:
        if sealed:
            detail = f"{source} does not open with it, or is damaged"
            raise ConfigError("key.passphrase", detail) from error
        raise ConfigError("key.malformed", f"{source} is damaged or cut off") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.private_bytes_raw(), "ed25519"
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key.private_numbers().private_value.to_bytes(32, "big"), "ecdsa"
    raise ConfigError(
        "key.malformed", f"{source} is of another kind; devices verify Ed25519 and ECDSA on P-256"
    )


def read_public(path: Path) -> PublicFile:
    """Read the public half of a key, from `NAME.pub.json` or from the key file itself.

    Raises:
        ConfigError: `key.missing` or `key.malformed`.
    """
    body = _read(path)
    try:
        plain = msgspec.json.decode(body)
        is_public = isinstance(plain, dict) and plain.get("schema") == "tidegate.public_key/1"
        public = (
            msgspec.convert(plain, type=PublicFile)
            if is_public
            else _public(msgspec.convert(plain, type=_Sealed))
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(path, body, error) from error
    try:
        public.key  # noqa: B018 - checks that it is a key
    except PublisherError as error:
        raise ConfigError("key.malformed", f"{path}: {error.detail}") from error
    return public


def _unreadable(path: Path, body: bytes, error: Exception) -> ConfigError:
    """Say what a file is that is no key file, as far as that can be told."""
    if body.lstrip().startswith(b"-----BEGIN"):
        return ConfigError("key.foreign", f"{path} is a PEM file, not a key sealed by Tidegate")
    if b"tidegate.public_key/1" in body:
        hint = "name the .key file; one in a token signs by its .pub.json with a uri"
        return ConfigError("key.malformed", f"{path} is a public half; it cannot sign", hint=hint)
    if b"tidegate.key/1" in body:
        return ConfigError("key.malformed", f"{path} is damaged or cut off: {error}")
    return ConfigError("key.malformed", f"{path} is no key file: {error}")


def _public(sealed: _Sealed) -> PublicFile:
    return PublicFile(
        name=sealed.name,
        role=sealed.role,
        keyid=sealed.keyid,
        keytype=sealed.keytype,
        public=sealed.public,
    )


def open_key(path: Path, passphrase: str | Callable[[], str]) -> Signer:
    """Unseal a key file; a passphrase that has to be asked for is asked for only when the file can be read.

    Raises:
        ConfigError: `key.missing`, `key.malformed`, or `key.passphrase`: wrong passphrase or a changed file.
    """
    sealed, private = _open(path, passphrase)
    signer = Signer.from_private(private, sealed.keytype)
    if signer.public.public != sealed.public:
        raise ConfigError(
            "key.malformed", f"{path}: private and public half do not belong together"
        )
    return signer


def change_passphrase(
    path: Path, old: str, new: str, *, randomness: Callable[[int], bytes] = os.urandom
) -> None:
    """Seal a key file anew; the old content is replaced in one step.

    Raises:
        ConfigError: as `open_key`; `config.invalid`: the new passphrase is too short.
    """
    _require_long(new)
    sealed, private = _open(path, old)
    public = _public(sealed)
    _write(path, _seal(private, public, new, randomness, MEMORY_KIB), mode=0o600, replace=True)


def _open(path: Path, passphrase: str | Callable[[], str]) -> tuple[_Sealed, bytes]:
    body = _read(path)
    try:
        sealed = msgspec.json.decode(body, type=_Sealed)
        salt, nonce = base64.b64decode(sealed.salt), base64.b64decode(sealed.nonce)
        secret = base64.b64decode(sealed.sealed)
    except (msgspec.DecodeError, ValueError) as error:
        raise _unreadable(path, body, error) from error
    typed = passphrase if isinstance(passphrase, str) else passphrase()
    wrapping = _derive(typed, salt, sealed.memory_kib, sealed.passes)
    try:
        return sealed, AESGCM(wrapping).decrypt(nonce, secret, _header(sealed))
    except (InvalidTag, ValueError) as error:
        raise ConfigError("key.passphrase", f"{path} does not open with it") from error


def _seal(
    private: bytes,
    public: PublicFile,
    passphrase: str,
    randomness: Callable[[int], bytes],
    memory_kib: int,
) -> bytes:
    salt, nonce = randomness(16), randomness(12)
    sealed = _Sealed(
        name=public.name,
        role=public.role,
        keytype=public.keytype,
        public=public.public,
        keyid=public.keyid,
        memory_kib=memory_kib,
        salt=base64.b64encode(salt).decode(),
        nonce=base64.b64encode(nonce).decode(),
    )
    wrapping = _derive(passphrase, salt, sealed.memory_kib, sealed.passes)
    secret = AESGCM(wrapping).encrypt(nonce, private, _header(sealed))
    text = base64.b64encode(secret).decode()
    return _pretty(msgspec.structs.replace(sealed, sealed=text))


def _derive(passphrase: str, salt: bytes, memory_kib: int, passes: int) -> bytes:
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=1, memory_cost=memory_kib)
    return kdf.derive(passphrase.encode())


def _header(sealed: _Sealed) -> bytes:
    """Return what is authenticated beside the secret: everything else in the file."""
    return canonical(msgspec.structs.replace(sealed, sealed=""))


def _pretty(value: object) -> bytes:
    return json.dumps(msgspec.to_builtins(value), indent=1).encode() + b"\n"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            body = file.read(_FILE_MAX + 1)
    except FileNotFoundError as error:
        raise ConfigError("key.missing", f"{path} is not there") from error
    except OSError as error:
        raise ConfigError("key.missing", f"{path}: {error.strerror}") from error
    if len(body) > _FILE_MAX:
        raise ConfigError("key.malformed", f"{path} is no key: too large")
    return body


def _write(path: Path, body: bytes, *, mode: int, replace: bool) -> None:
    """Write a file whole or not at all; durable on return."""
    if path.exists() and not replace:
        raise ConfigError("config.invalid", f"{path} exists, and a key is never overwritten")
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        raise ConfigError("config.unreadable", f"{path}: {error.strerror}") from error
