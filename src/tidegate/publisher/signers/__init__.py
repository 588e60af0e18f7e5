"""Keys that never leave their hardware or their service: PKCS#11 tokens, and the key services of clouds, by securesystemslib's URIs.

A public key file that names a `uri` signs through whatever holds its private half. `hsm:2?label=NAME` is key 2 of a PKCS#11 token (ECDSA on P-256); the
environment variable `PYKCS11LIB` names the token's library. All other URIs are passed to securesystemslib as they are: `awskms:`, `gcpkms:`, `azurekms:`,
`hv:` (HashiCorp Vault), each with a library of its own that has to be installed. PINs are asked for when they are needed, and kept nowhere.

A signature that comes back is held against the public key before it is used: hardware and services are not trusted to be the right ones.
"""

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import (  # type: ignore[attr-defined]  # it re-exports without __all__
    SIGNER_FOR_URI_SCHEME,
    AWSSigner,
    AzureSigner,
    GCPSigner,
    HSMSigner,
    SSlibKey,
    VaultSigner,
)
from securesystemslib.signer import (  # type: ignore[attr-defined]  # the same
    Signer as LibrarySigner,
)

from tidegate.core.errors import ConfigError, PublisherError
from tidegate.core.keys import PublicKey, Signer, library_key, public_key_from

#: Asks a person for a secret; the argument says which (`pin`).
Ask = Callable[[str], str]

#: What has to be installed for each kind of URI.
LIBRARIES: Final = {
    "hsm": "pip install 'tidegate[pkcs11]'",
    "awskms": "pip install boto3",
    "gcpkms": "pip install google-cloud-kms",
    "azurekms": "pip install azure-identity azure-keyvault-keys",
    "hv": "pip install hvac",
}
#: Kinds whose keys lie in a file that anybody can copy: such a key is imported and sealed instead.
_FILES: Final = frozenset({"file", "file2"})


def is_uri(text: str) -> bool:
    """Say whether this names a key in hardware or in a service, and no file."""
    scheme, colon, _ = text.partition(":")
    return bool(colon) and (scheme in LIBRARIES or scheme in SIGNER_FOR_URI_SCHEME)


def open_signer(uri: str, public: PublicKey, ask: Ask) -> Signer:
    """Return a signer for the private half of `public`, wherever it is. Nothing is connected before it signs.

    Raises:
        ConfigError: `key.library`: a library is missing; `key.token`: the URI is not understood.
    """
    _known(uri)
    try:
        inner = LibrarySigner.from_priv_key_uri(uri, library_key(public), ask)
    except Exception as error:
        raise _translated(uri, error) from error
    return _Remote(uri, public, inner)


def import_public(uri: str, ask: Ask) -> tuple[str, PublicKey]:
    """Ask hardware or a service for the public half of a key.

    Returns:
        The URI to keep beside it (with the token's label, or the key's version, where the given one left it out), and the key.

    Raises:
        ConfigError: `key.library`, `key.token`; `key.passphrase`: a wrong PIN; `key.malformed`: a kind of key that devices do not verify.
    """
    _known(uri)
    try:
        kept, found = _ask_for_public(uri, ask)
    except ConfigError:
        raise
    except Exception as error:
        raise _translated(uri, error) from error
    try:
        return kept, public_key_from(found.to_dict(), found.keyid)
    except PublisherError as error:
        raise ConfigError(
            "key.malformed",
            f"{uri}: {error.detail}; devices verify Ed25519 and ECDSA on P-256",
        ) from error


class _Remote(Signer):
    """Signs elsewhere, and looks at what comes back."""

    def __init__(self, uri: str, public: PublicKey, inner: LibrarySigner) -> None:
        super().__init__(inner)
        self.public = public
        self._uri = uri

    def sign(self, message: bytes) -> bytes:
        """Sign bytes as they are.

        Raises:
            ConfigError: `key.token`, `key.passphrase`, `key.library`; `key.malformed`: another key answered.
        """
        try:
            made = super().sign(message)
        except Exception as error:
            raise _translated(self._uri, error) from error
        if not self.public.verifies(made, message):
            raise ConfigError(
                "key.malformed",
                f"{self._uri} signed with another key than {self.public.keyid[:12]}",
                hint="import it again: `tidegate keys import NAME --from URI`",
            )
        return made


def _known(uri: str) -> None:
    scheme = uri.partition(":")[0]
    if scheme in _FILES:
        raise ConfigError(
            "key.token",
            f"{uri}: a key file lies there unsealed",
            hint="seal it: `tidegate keys import NAME --from FILE`",
        )
    if scheme not in SIGNER_FOR_URI_SCHEME:
        known = ", ".join(sorted(LIBRARIES))
        raise ConfigError("key.token", f"{uri}: no such kind of key; known are {known}")


def _ask_for_public(uri: str, ask: Ask) -> tuple[str, SSlibKey]:
    parts = urlsplit(uri)
    inner: Any = SIGNER_FOR_URI_SCHEME[parts.scheme]
    if inner is HSMSigner:
        label = dict(parse_qsl(parts.query)).get("label")
        number = int(parts.path) if parts.path else None
        found: tuple[str, SSlibKey] = HSMSigner.import_(number, label, ask)
        return found
    path = uri.partition(":")[2].lstrip("/")
    if inner is AWSSigner:
        return AWSSigner.import_(path)
    if inner is GCPSigner:
        return GCPSigner.import_(path)
    if inner is VaultSigner:
        return VaultSigner.import_(path.partition("/")[0])
    if inner is AzureSigner:
        vault, _, rest = path.partition("/")
        return AzureSigner.import_(
            vault.partition(".")[0], rest.removeprefix("keys/").partition("/")[0]
        )
    raise ConfigError("key.token", f"{uri}: a key of this kind cannot be imported by its URI")


def _translated(uri: str, error: Exception) -> ConfigError:
    """Say what a library meant. Its words are shown: none of those here puts a PIN into them."""
    scheme = uri.partition(":")[0]
    if isinstance(error, UnsupportedLibraryError | ImportError):
        return ConfigError("key.library", f"{uri}: {error}", hint=LIBRARIES.get(scheme, ""))
    kind = type(error).__name__
    if kind in {"PinIncorrect", "PinInvalid", "PinLenRange"}:
        return ConfigError("key.passphrase", f"{uri}: the token does not take this PIN")
    if kind == "PinLocked":
        return ConfigError("key.token", f"{uri}: its PIN is locked after too many wrong ones")
    text = str(error) or kind
    return ConfigError("key.token", f"{uri}: {text}"[:300])
