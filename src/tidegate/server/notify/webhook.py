"""Signed HTTP calls by the Standard Webhooks scheme.

Headers are `webhook-id`, `webhook-timestamp`, and `webhook-signature: v1,BASE64`, an HMAC-SHA256 over `id.timestamp.body`. A receiver checks the
signature, that the time is near, and drops an id that it has seen. Redirects are not followed and no proxy of the environment is asked: a call goes to the
address of the settings or nowhere. A receiver that drips its answer is cut off after `messages.WHOLE_S`.

Source: the Standard Webhooks specification, standardwebhooks.com, version 1.0.0.
"""

import base64
import binascii
import hashlib
import hmac
import http.client
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tidegate.core.errors import ConfigError
from tidegate.server.messages import Deadline, Message, UndeliveredError

#: For a step of a call, in seconds.
TIMEOUT_S: Final = 5.0
#: Fewer bytes of a secret are guessed.
SECRET_MIN: Final = 24
_PREFIX: Final = b"whsec_"
_GONE: Final = 410

#: Sends one call and returns the HTTP status; raises OSError or HTTPException when there was no answer.
Post = Callable[[str, bytes, dict[str, str]], int]


@dataclass(frozen=True, slots=True)
class Hook:
    """Where to call. `events` empty = all; each of `secrets` signs, so that one can be changed for another (never logged)."""

    name: str
    url: str
    secrets: tuple[bytes, ...]
    events: tuple[str, ...] = ()
    post: Post | None = None

    kind = "webhook"

    @property
    def place(self) -> str:
        """The host that is called; a path may be a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}"

    def deliver(self, message: Message, now: int) -> None:
        """Call.

        Raises:
            UndeliveredError: anything but an answer 2xx.
        """
        body = message.body()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "tidegate",
            "webhook-id": message.id,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(
                sign(secret, message.id, now, body) for secret in self.secrets
            ),
        }
        try:
            status = (self.post or call)(self.url, body, headers)
        except (OSError, http.client.HTTPException) as problem:
            raise UndeliveredError(f"{type(problem).__name__}: {problem}") from problem
        if not 200 <= status < 300:
            raise UndeliveredError(f"answered {status}", final=status == _GONE)


def sign(secret: bytes, message: str, at: int, body: bytes) -> str:
    """Return one signature: `v1,` and the HMAC-SHA256 over `message.at.body` in base64."""
    signed = f"{message}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def secrets_of(text: bytes, key: str) -> tuple[bytes, ...]:
    """Return the secrets of a file, one a line: `whsec_BASE64`, or any other text as it is.

    Raises:
        ConfigError: `config.invalid`: there is none, or one is too short.
    """
    found = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        secret = line
        if line.startswith(_PREFIX):
            try:
                secret = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
            except binascii.Error as error:
                raise ConfigError(
                    "config.invalid", f"{key}: whsec_ is followed by base64"
                ) from error
        if len(secret) < SECRET_MIN:
            raise ConfigError(
                "config.invalid",
                f"{key}: a secret of {len(secret)} bytes; at least {SECRET_MIN} are wanted, as `openssl rand -base64 32` makes them",
            )
        found.append(secret)
    if not found:
        raise ConfigError("config.invalid", f"{key}: the file is empty")
    return tuple(found)


def check_url(url: str, key: str = "webhook.url") -> None:
    """Check an address from the settings.

    Raises:
        ConfigError: `config.invalid`.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and not parts.username
        good = bool(good and parts.port != 0 and url.isprintable() and " " not in url)
    except ValueError:
        good = False
    if not good:
        raise ConfigError("config.invalid", f"{key}: an http or https address without a user name")


def call(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Make one call and return the status of its answer; the rest of the answer is not read."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    with Deadline(lambda: connection.sock):
        try:
            connection.request("POST", path, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()
