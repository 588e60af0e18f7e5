"""An OpenID provider, seen from here: its description, its keys, its answers. Everything that it says is untrusted until its signature and claims were checked.

Sources: OpenID Connect Core 1.0 (3.1 for the code flow, 3.1.3.7 for what an ID token must say), Discovery 1.0, RFC 7636 (PKCE), RFC 9207 (`iss` of an answer),
RFC 8725 (algorithms are named beforehand; a key is used for its own algorithms alone).
"""

import base64
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import urllib3
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tidegate.core.errors import ConfigError, RequestError
from tidegate.server.people.limits import Oidc

T = TypeVar("T")
#: What an ID token may be signed with: public-key algorithms alone, so that no public key can be taken for a shared secret.
ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
ANSWER_MAX: Final = 1 << 20
TIMEOUT_S: Final = 10.0
#: For how long the description and the keys are kept, and how soon they may be asked for again when a key is unknown, in seconds.
KEPT_S: Final = 3_600
AGAIN_S: Final = 60
#: An ID token that was made longer ago than this is not the answer to a sign-in of now, in seconds.
AGE_MAX_S: Final = 600


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of itself, as far as it is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(msgspec.Struct, frozen=True, kw_only=True):
    id_token: str
    access_token: str = ""


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    alg: str
    kid: str = ""


def refused(what: str) -> RequestError:
    """Return the error of a sign-in that the provider, or somebody in its name, spoilt."""
    return RequestError("auth.provider", what)


class Provider:
    """One provider. Safe to call from any thread; every call may wait for the network."""

    def __init__(self, settings: Oidc) -> None:
        """Take what the settings say.

        Raises:
            ConfigError: `config.invalid`, `config.unreadable`.
        """
        self.settings = settings
        require_address(settings.issuer, "[oidc] issuer", settings.issuer)
        self._secret = _read_secret(settings.client_secret_file)
        self._http = urllib3.PoolManager(
            retries=False,
            timeout=urllib3.Timeout(total=TIMEOUT_S),
            cert_reqs="CERT_REQUIRED",
            ca_certs=settings.ca_file or None,
            maxsize=2,
        )
        self._guard = threading.Lock()
        self._described: tuple[int, Described] | None = None
        self._keys: tuple[int, KeySet] | None = None

    # --- what it says of itself ----------------------------------------------------------------------------------

    def described(self, now: int) -> Described:
        """Return its description, at most an hour old.

        Raises:
            RequestError: `auth.provider`.
        """
        with self._guard:
            kept = self._described
        if kept is not None and 0 <= now - kept[0] < KEPT_S:
            return kept[1]
        issuer = self.settings.issuer
        where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        found = self._read("GET", where, Described)
        if found.issuer != issuer:
            raise refused("the provider calls itself by another name than [oidc] issuer")
        for address in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            _require_answer(address, issuer)
        for address in (found.userinfo_endpoint, found.end_session_endpoint):
            if address:
                _require_answer(address, issuer)
        with self._guard:
            self._described = (now, found)
        return found

    def _key_set(self, now: int, *, at_least: int = 0) -> tuple[int, KeySet]:
        """Return when its keys were fetched, and the keys: fetched anew when they are an hour old, or older than `at_least`."""
        with self._guard:
            kept = self._keys
        if kept is not None and 0 <= now - kept[0] < KEPT_S and kept[0] >= at_least:
            return kept
        plain = self._read("GET", self.described(now).jwks_uri, dict[str, Any])
        keys = plain.get("keys")
        listed = keys if isinstance(keys, list) else []
        known = [
            one
            for one in listed
            if isinstance(one, dict) and one.get("kty") in {"RSA", "EC", "OKP"}
        ]
        try:
            found = KeySet.import_key_set({"keys": [_public(one) for one in known]})
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise refused("the provider's keys cannot be read") from error
        with self._guard:
            self._keys = (now, found)
        return now, found

    # --- the flow ------------------------------------------------------------------------------------------------

    def address(
        self,
        redirect: str,
        state: str,
        nonce: str,
        challenge: str,
        now: int,
        *,
        again: bool = False,
    ) -> str:
        """Return where a browser is sent to sign in; `again`: where the person is asked who they are, whatever the provider remembers.

        Raises:
            RequestError: `auth.provider`.
        """
        where = self.described(now).authorization_endpoint
        asked = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(self.settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if again:
            asked |= {"prompt": "login", "max_age": "0"}
        return f"{where}{'&' if urlsplit(where).query else '?'}{urlencode(asked)}"

    def claims(
        self, code: str, redirect: str, verifier: str, nonce: str, now: int
    ) -> dict[str, Any]:
        """Exchange a code (untrusted) for the checked claims of the person who signed in.

        Raises:
            RequestError: `auth.provider`: the provider refused, or what it said does not hold.
        """
        described = self.described(now)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": verifier,
            "client_id": self.settings.client_id,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._secret:
            if "client_secret_basic" in described.token_endpoint_auth_methods_supported:
                pair = f"{quote(self.settings.client_id, safe='')}:{quote(self._secret, safe='')}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            else:
                form["client_secret"] = self._secret
        tokens = self._read(
            "POST",
            described.token_endpoint,
            _Tokens,
            body=urlencode(form).encode(),
            headers=headers,
        )
        found = self.checked(tokens.id_token, nonce, now)
        if self.settings.groups_claim not in found and described.userinfo_endpoint:
            bearer = {"Authorization": f"Bearer {tokens.access_token}"}
            more = self._read("GET", described.userinfo_endpoint, dict[str, Any], headers=bearer)
            if more.get("sub") != found["sub"]:
                raise refused("the provider speaks of two people at once")
            found = {**more, **found}
        return found

    def checked(self, token: str, nonce: str, now: int) -> dict[str, Any]:
        """Return the claims of an ID token (untrusted) whose signature and claims hold (OpenID Connect Core 3.1.3.7).

        Raises:
            RequestError: `auth.provider`.
        """
        algorithms = [
            one
            for one in self.described(now).id_token_signing_alg_values_supported
            if one in ALGORITHMS
        ]
        claims = self._signed(token, algorithms, now)
        mine, leeway = self.settings.client_id, self.settings.leeway
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.settings.issuer:
            raise refused("the ID token is of another issuer")
        if mine not in audiences:
            raise refused("the ID token is for somebody else")
        if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != mine:
            raise refused("the ID token was asked for by somebody else")
        if nonce != claims.get("nonce"):
            raise refused("the ID token is the answer to another sign-in")
        expires, made = _time(claims, "exp"), _time(claims, "iat")
        if now >= expires + leeway or now > made + AGE_MAX_S + leeway:
            raise refused("the ID token is too old")
        if made > now + leeway or _time(claims, "nbf", made) > now + leeway:
            raise refused("the ID token is of the future: compare the clocks")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise refused("the ID token names nobody")
        return claims

    def _signed(self, token: str, algorithms: list[str], now: int) -> dict[str, Any]:
        head = _head_of(token)
        if head.alg not in algorithms:
            raise refused(f"the ID token is signed by {head.alg[:20]!r}, which is not taken")
        fetched, keys = self._key_set(now)
        if head.kid and head.kid not in {one.kid for one in keys.keys} and now - fetched >= AGAIN_S:
            _, keys = self._key_set(now, at_least=now)
        try:
            found = jws.deserialize_compact(token, keys, algorithms=algorithms)
            claims = json.loads(found.payload)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise refused("the signature of the ID token does not hold") from error
        if not isinstance(claims, dict):
            raise refused("the ID token says nothing")
        return claims

    # --- the network ---------------------------------------------------------------------------------------------

    def _read(
        self,
        method: str,
        address: str,
        kind: type[T],
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Ask the provider; no redirect is followed, and no more than 1 MiB is read."""
        sent = {"Accept": "application/json", **(headers or {})}
        try:
            answer = self._http.request(
                method, address, body=body, headers=sent, redirect=False, preload_content=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise refused(f"the provider cannot be reached: {type(error).__name__}") from error
        try:
            raw = answer.read(ANSWER_MAX + 1, decode_content=True)
        except urllib3.exceptions.HTTPError as error:
            raise refused(f"the provider's answer broke off: {type(error).__name__}") from error
        finally:
            answer.close()
        if answer.status != 200:
            raise refused(f"the provider answered with status {answer.status}")
        if len(raw) > ANSWER_MAX:
            raise refused("the provider's answer is too long")
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.DecodeError as error:
            raise refused("the provider's answer is not what it should be") from error


def _head_of(token: str) -> _Head:
    if len(token) > ANSWER_MAX or token.count(".") != 2:
        raise refused("the ID token cannot be read")
    first = token.partition(".")[0]
    try:
        raw = base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))
        return msgspec.json.decode(raw, type=_Head)
    except (ValueError, msgspec.DecodeError) as error:
        raise refused("the ID token cannot be read") from error


def _public(key: dict[str, Any]) -> dict[str, Any]:
    """Return a key without private parts, should the provider have lost its mind."""
    return {
        name: value
        for name, value in key.items()
        if name not in {"d", "p", "q", "dp", "dq", "qi", "k"}
    }


def auth_time(claims: Mapping[str, Any]) -> int:
    """Return when the person of checked claims last showed the provider who they are, unix seconds; 0 = it does not say."""
    value = claims.get("auth_time")
    return value if type(value) is int and 0 < value < 1 << 40 else 0


def _time(claims: dict[str, Any], name: str, default: int | None = None) -> int:
    value = claims.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1 << 40:
        raise refused(f"the ID token has no {name}")
    return int(value)


def require_address(address: str, key: str, issuer: str) -> None:
    """Insist on an https address; http only for a provider on this machine.

    Raises:
        ConfigError: `config.invalid`.
    """
    if not _is_safe(address, issuer):
        raise ConfigError("config.invalid", f"{key}: an https address without query is wanted")


def _require_answer(address: str, issuer: str) -> None:
    if not _is_safe(address, issuer):
        raise refused("the provider names an address that is not https")


def _is_safe(address: str, issuer: str) -> bool:
    parts, of = urlsplit(address), urlsplit(issuer)
    here = of.scheme == "http" and of.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme == "http" and here:
        return parts.hostname == of.hostname
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc


def _read_secret(path: str) -> str:
    if not path:
        return ""
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config.unreadable", f"[oidc] client_secret_file: {path}") from error
    if not secret:
        raise ConfigError("config.invalid", f"[oidc] client_secret_file: {path} is empty")
    return secret
