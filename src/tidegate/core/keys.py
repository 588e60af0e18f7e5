"""Keys: what they are called, when two are the same, and DSSE envelopes.

The only door to `securesystemslib` and `cryptography` in `core`. Ed25519 and ECDSA on P-256 are spoken. Nothing here reads a file or makes randomness: a
private key is made from bytes that the caller brings.

Thresholds count *distinct public keys*. Both libraries underneath count key ids, so that one key listed under two ids would meet a threshold of two;
`open_envelope` and `core.verify` therefore count by `identity`.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Literal, TypeVar, cast

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope as DsseEnvelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import (  # type: ignore[attr-defined]  # it re-exports without __all__
    CryptoSigner,
    Signature,
    SSlibKey,
)
from securesystemslib.signer import (  # type: ignore[attr-defined]  # the same
    Signer as LibrarySigner,
)

from tidegate.core.codec import canonical, decode_document
from tidegate.core.errors import PublisherError
from tidegate.core.protocol import Envelope, EnvelopeSignature

T = TypeVar("T")
KeyType = Literal["ed25519", "ecdsa"]

#: Signing scheme of each key type, in TUF's words.
SCHEMES: Final[Mapping[str, str]] = {"ed25519": "ed25519", "ecdsa": "ecdsa-sha2-nistp256"}
#: Bytes of randomness that make a private key: 32 for Ed25519, 48 for P-256 (FIPS 186-5 A.2.1, extra random bits).
SEED_BYTES: Final[Mapping[str, int]] = {"ed25519": 32, "ecdsa": 48}
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_IDENTIFIED = (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey)
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm)
#: Field of a key in metadata that says, for people, whose it is.
_NAME: Final = "x-tidegate-name"
_NAME_MAX: Final = 64


@dataclass(frozen=True)
class PublicKey:
    """A public key as metadata carry it.

    Attributes:
        keyid: name of the key: SHA-256 of its canonical description, unless a document says otherwise.
        keytype: `ed25519` or `ecdsa`.
        public: 64 hex digits for Ed25519, PEM for P-256.
        name: for people, whose key it is; decides nothing, and keys that differ only by it are equal.
    """

    keyid: str
    keytype: str
    public: str
    name: str = field(default="", compare=False)

    @property
    def scheme(self) -> str:
        """Return the signing scheme, in TUF's words."""
        return SCHEMES[self.keytype]

    @property
    def identity(self) -> str:
        """Return what tells keys apart whatever they are called (see `identity`)."""
        return identity(self.keytype, self.public)

    def to_dict(self) -> dict[str, Any]:
        """Return the key as TUF metadata write it."""
        plain = {"keytype": self.keytype, "scheme": self.scheme, "keyval": {"public": self.public}}
        return {**plain, _NAME: self.name} if self.name else plain

    def called(self, name: str) -> "PublicKey":
        """Return the same key under another name for people."""
        return replace(self, name=name)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Say whether `signature` (untrusted) over `message` was made by this key."""
        return _verifies(_sslib(self), Signature(self.keyid, signature.hex()), message)


def public_key(keytype: str, public: str, keyid: str | None = None) -> PublicKey:
    """Take in a public key (untrusted text), checking that it is one.

    Raises:
        PublisherError: `sig.malformed`: another type of key, or no key at all.
    """
    if keytype not in SCHEMES:
        raise PublisherError("sig.malformed", f"key type {keytype[:40]!r} is not known here")
    key = _load(keytype, public)
    p256 = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if not (p256 if keytype == "ecdsa" else isinstance(key, ed25519.Ed25519PublicKey)):
        raise PublisherError("sig.malformed", f"not an {keytype} public key")
    return PublicKey(keyid or default_keyid(keytype, public), keytype, public)


def public_key_from(plain: Mapping[str, Any], keyid: str | None = None) -> PublicKey:
    """Take in a key as TUF metadata write it: `{"keytype", "scheme", "keyval": {"public"}}`.

    Raises:
        PublisherError: `sig.malformed`.
    """
    keytype, keyval = plain.get("keytype"), plain.get("keyval")
    public = keyval.get("public") if isinstance(keyval, Mapping) else None
    if not isinstance(keytype, str) or not isinstance(public, str):
        raise PublisherError("sig.malformed", "a key without keytype or keyval.public")
    if plain.get("scheme") != SCHEMES.get(keytype):
        raise PublisherError("sig.malformed", f"scheme {plain.get('scheme')!r} is not known here")
    return public_key(keytype, public, keyid).called(_name(plain.get(_NAME)))


def _name(found: object) -> str:
    """Take in a name (untrusted): what cannot be shown on one line is no name."""
    usable = isinstance(found, str) and len(found) <= _NAME_MAX and found.isprintable()
    return str(found) if usable else ""


def public_key_from_pem(text: str) -> PublicKey:
    """Take in a public key in PEM (untrusted text), as other signers write it: Ed25519 or P-256.

    Raises:
        PublisherError: `sig.malformed`.
    """
    try:
        found = load_pem_public_key(text.encode())
    except _UNREADABLE as error:
        raise PublisherError("sig.malformed", "not a public key in PEM") from error
    if isinstance(found, ed25519.Ed25519PublicKey):
        return public_key("ed25519", found.public_bytes_raw().hex())
    whole = found.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return public_key("ecdsa", whole)


def default_keyid(keytype: str, public: str) -> str:
    """Return the key's name: SHA-256 over the canonical JSON of its description."""
    plain = {"keytype": keytype, "scheme": SCHEMES[keytype], "keyval": {"public": public}}
    return hashlib.sha256(str(encode_canonical(plain)).encode()).hexdigest()


@lru_cache(maxsize=4096)
def identity(keytype: str, public: str) -> str:
    """Return SHA-256 over the SubjectPublicKeyInfo of a key, or over its text when no key can be read from it.

    Also of kinds that are not signed with here: a foreign root may list them, and one key in two spellings is one key.
    """
    key = _load(keytype, public)
    if not isinstance(key, _IDENTIFIED):
        return hashlib.sha256(f"{keytype}\0{public}".encode()).hexdigest()
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


def device_key_sha256(keytype: str, public: str) -> str:
    """Return the digest that stands for a device's key in assignments (`device_key`)."""
    return identity(keytype, public)


class _Outside:
    """A private key that is elsewhere, in the form that the DSSE library asks for."""

    def __init__(self, public: "PublicKey", sign: Callable[[bytes], bytes]) -> None:
        self.public_key = _sslib(public)
        self._sign = sign

    def sign(self, payload: bytes) -> Signature:
        return Signature(self.public_key.keyid, self._sign(payload).hex())


class Signer:
    """A private key, in memory or in hardware. It signs, and tells its public half; it does not show its private half."""

    def __init__(self, inner: LibrarySigner) -> None:
        """Wrap a securesystemslib signer; use `from_seed` or `from_private`."""
        self._inner = inner
        key = inner.public_key
        self.public = PublicKey(key.keyid, key.keytype, key.keyval["public"])

    @classmethod
    def from_seed(cls, seed: bytes, keytype: str = "ed25519") -> "Signer":
        """Make a key from unpredictable bytes (`SEED_BYTES` of them). The same seed gives the same key."""
        return cls.from_private(private_from_seed(seed, keytype), keytype)

    @classmethod
    def from_private(cls, private: bytes, keytype: str = "ed25519") -> "Signer":
        """Take a raw private key: 32 bytes, the seed of Ed25519 or the scalar of P-256, big-endian.

        Raises:
            PublisherError: `key.malformed`.
        """
        try:
            if keytype == "ed25519":
                return cls(CryptoSigner(ed25519.Ed25519PrivateKey.from_private_bytes(private)))
            if keytype == "ecdsa" and len(private) == 32:
                scalar = int.from_bytes(private, "big")
                return cls(CryptoSigner(ec.derive_private_key(scalar, ec.SECP256R1())))
        except _UNREADABLE as error:
            raise PublisherError("key.malformed", f"not an {keytype} private key") from error
        raise PublisherError("key.malformed", f"not an {keytype} private key")

    @classmethod
    def outside(cls, public: PublicKey, sign: Callable[[bytes], bytes]) -> "Signer":
        """Take a key that never comes here: `sign` returns a signature over a message, as the key's scheme has it (P-256: DER)."""
        return cls(cast("LibrarySigner", _Outside(public, sign)))

    def sign(self, message: bytes) -> bytes:
        """Sign bytes as they are."""
        return bytes.fromhex(self._inner.sign(message).signature)


def private_from_seed(seed: bytes, keytype: str = "ed25519") -> bytes:
    """Turn unpredictable bytes into the 32 bytes of a private key."""
    if len(seed) != SEED_BYTES[keytype]:
        raise PublisherError("key.malformed", f"a seed of {SEED_BYTES[keytype]} bytes is wanted")
    if keytype == "ed25519":
        return seed
    return (int.from_bytes(seed, "big") % (_P256_ORDER - 1) + 1).to_bytes(32, "big")


# --- DSSE -------------------------------------------------------------------------------------------------------------


def sign_envelope(payload: bytes, payload_type: str, signer: Signer) -> Envelope:
    """Put `payload` into a DSSE envelope with one signature."""
    made = signer.sign(DsseEnvelope(payload, payload_type, {}).pae())
    return Envelope(
        payload=base64.b64encode(payload).decode(),
        payload_type=payload_type,
        signatures=(EnvelopeSignature(keyid=signer.public.keyid, sig=_b64(made)),),
    )


def add_signature(envelope: Envelope, signer: Signer) -> Envelope:
    """Add one more signature to an envelope; one by the same key id is replaced."""
    made = signer.sign(_inner(envelope).pae())
    keyid = signer.public.keyid
    kept = tuple(one for one in envelope.signatures if one.keyid != keyid)
    new = EnvelopeSignature(keyid=keyid, sig=_b64(made))
    return msgspec.structs.replace(envelope, signatures=(*kept, new))


def open_envelope(
    envelope: Envelope, payload_type: str, keys: Mapping[str, PublicKey], threshold: int
) -> bytes:
    """Return the payload of an envelope that enough distinct keys signed.

    Args:
        envelope: untrusted.
        payload_type: the only type taken: a document cannot stand in for one of another type.
        keys: trusted keys by key id.
        threshold: how many distinct *public keys* must have signed; at least 1.

    Raises:
        PublisherError: `sig.malformed`, `sig.unknown_key` (nobody known signed) or `sig.threshold`.
    """
    if envelope.payload_type != payload_type:
        raise PublisherError("sig.malformed", f"not a document of type {payload_type}")
    inner = _inner(envelope)
    if threshold < 1:
        raise PublisherError("sig.threshold", "a threshold below one trusts everybody")
    known = [one for one in inner.signatures.values() if one.keyid in keys]
    if not known:
        raise PublisherError("sig.unknown_key")
    message = inner.pae()
    good = {
        keys[one.keyid].identity
        for one in known
        if _verifies(_sslib(keys[one.keyid]), one, message)
    }
    if len(good) < threshold:
        raise PublisherError("sig.threshold", f"{len(good)} of {threshold} distinct keys signed")
    return inner.payload


def open_document(
    envelope: Envelope,
    payload_type: str,
    kind: type[T],
    keys: Mapping[str, PublicKey],
    threshold: int = 1,
) -> T:
    """Open an envelope and read the document in it: signatures first, then strict JSON, then types and `crit`.

    Raises:
        PublisherError: `sig.*`.
    """
    return decode_document(open_envelope(envelope, payload_type, keys, threshold), kind)


def sign_document(body: object, payload_type: str, signer: Signer) -> Envelope:
    """Encode a Struct as canonical JSON and sign it."""
    return sign_envelope(canonical(body), payload_type, signer)


def peek_payload(envelope: Envelope) -> bytes:
    """Return the payload without verifying anything: only to find out whose key is to verify it.

    Raises:
        PublisherError: `sig.malformed`.
    """
    return _inner(envelope).payload


def by_keyid(keys: Iterable[PublicKey]) -> dict[str, PublicKey]:
    """Index keys by key id."""
    return {key.keyid: key for key in keys}


def _inner(envelope: Envelope) -> DsseEnvelope:
    """Convert to securesystemslib's envelope; refuse what is not base64 or signed twice under one id."""
    signatures: dict[str, Signature] = {}
    for one in envelope.signatures:
        if one.keyid in signatures:
            raise PublisherError("sig.malformed", "two signatures under one key id")
        signatures[one.keyid] = Signature(one.keyid, _unb64(one.sig).hex())
    return DsseEnvelope(_unb64(envelope.payload), envelope.payload_type, signatures)


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PublisherError("sig.malformed", "not base64") from error


def _b64(signature: bytes) -> str:
    return base64.b64encode(signature).decode()


def _verifies(key: SSlibKey, signature: Signature, message: bytes) -> bool:
    try:
        key.verify_signature(signature, message)
    except UnverifiedSignatureError:
        return False
    return True


@lru_cache(maxsize=4096)
def _sslib(key: PublicKey) -> SSlibKey:
    return SSlibKey(key.keyid, key.keytype, key.scheme, {"public": key.public})


def _load(keytype: str, public: str) -> object:
    """Read a public key of any kind; None when there is none in the text."""
    try:
        if keytype == "ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        return load_pem_public_key(public.encode())
    except _UNREADABLE:
        return None


def library_key(key: PublicKey) -> SSlibKey:
    """Return the key as `tuf` wants it, for `core.metadata`."""
    more = {_NAME: key.name} if key.name else None
    return SSlibKey(key.keyid, key.keytype, key.scheme, {"public": key.public}, more)
