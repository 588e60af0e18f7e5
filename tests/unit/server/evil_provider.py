"""An OpenID provider on loopback that does as it is told, also what no provider should."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey

CLIENT = "tidegate"
Claims = dict[str, Any]


@dataclass
class EvilProvider:
    """Answers sign-ins of `subject`; `twist` changes the claims, `sign` signs them, the other fields change the rest."""

    now: Callable[[], int]
    port: int = 0
    subject: str = "s-1"
    claims: Claims = field(
        default_factory=lambda: {"preferred_username": "olga", "groups": ["ops"]}
    )
    twist: Callable[[Claims], Claims] = lambda claims: claims
    sign: Callable[["EvilProvider", Claims], str] | None = None
    described: Claims = field(default_factory=dict)
    userinfo: Claims = field(default_factory=dict)
    redirect: bool = False
    padding: int = 0
    key: RSAKey = field(
        default_factory=lambda: RSAKey.generate_key(2048, {"kid": "k1"}, auto_kid=False)
    )
    keys: list[Any] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    flows: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://localhost:{self.port}"

    def authorize(self, address: str) -> dict[str, str]:
        """Do what a person does at the provider; return what the browser brings back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = f"code-{len(self.flows)}"
        self.flows[code] = asked
        return {"code": code, "state": asked["state"]}

    def answer(self, method: str, path: str, body: str, headers: Any) -> tuple[int, Claims]:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "none", "HS256"],
            } | self.described
        if path == "/jwks":
            shown = self.keys or [self.key]
            return 200, {"keys": [one.as_dict(private=False) for one in shown]}
        if path == "/userinfo":
            return 200, self.userinfo
        form = {name: values[0] for name, values in parse_qs(body).items()}
        flow = self.flows.pop(form.get("code", ""), None)
        if method != "POST" or path != "/token" or flow is None:
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != flow["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        if form["redirect_uri"] != flow["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = self.now()
        claims = self.twist(
            {
                "iss": self.issuer, "sub": self.subject, "aud": CLIENT, "nonce": flow["nonce"],
                "iat": now, "exp": now + 300, **self.claims,
            }
        )  # fmt: skip
        sign = self.sign or signed_by_its_key
        return 200, {"id_token": sign(self, claims), "access_token": "a", "token_type": "Bearer"}


def signed_by_its_key(provider: EvilProvider, claims: Claims) -> str:
    return _signed({"alg": "RS256", "kid": "k1"}, claims, provider.key)


def signed_by_nobody(provider: EvilProvider, claims: Claims) -> str:
    del provider
    return f"{_part({'alg': 'none'})}.{_part(claims)}."


def signed_by_another(provider: EvilProvider, claims: Claims) -> str:
    del provider
    other = RSAKey.generate_key(2048, {"kid": "k1"}, auto_kid=False)
    return _signed({"alg": "RS256", "kid": "k1"}, claims, other)


def signed_by_the_public_key_as_a_secret(provider: EvilProvider, claims: Claims) -> str:
    secret = OctKey.import_key(provider.key.as_pem(private=False))
    return jws.serialize_compact(
        {"alg": "HS256", "kid": "k1"}, json.dumps(claims), secret, ["HS256"]
    )


def signed_by_a_key_of_another_kind(provider: EvilProvider, claims: Claims) -> str:
    del provider
    other = ECKey.generate_key("P-256", {"kid": "k1"}, auto_kid=False)
    return _signed({"alg": "ES256", "kid": "k1"}, claims, other)


def signed_by_a_key_that_it_brings_along(provider: EvilProvider, claims: Claims) -> str:
    del provider
    other = RSAKey.generate_key(2048, {"kid": "mine"}, auto_kid=False)
    head = {"alg": "RS256", "kid": "mine", "jwk": other.as_dict(private=False)}
    return _signed(head, claims, other)


def _signed(head: Claims, claims: Claims, key: Any) -> str:
    return jws.serialize_compact(head, json.dumps(claims), key, algorithms=[str(head["alg"])])


def _part(value: Claims) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@contextmanager
def served(provider: EvilProvider) -> Iterator[EvilProvider]:
    """Serve a provider on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            if provider.redirect:
                self.send_response(302)
                self.send_header("Location", f"{provider.issuer}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, found = provider.answer(self.command, self.path, body, self.headers)
            raw = json.dumps(found).encode() + b" " * provider.padding
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = _do  # noqa: N815 - the names that the library calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
