"""Mail to a real mail server on this machine: encrypted, signed in, without other headers than ours, and at least once."""

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tidegate.core.errors import ConfigError
from tidegate.server.channels import channels_of
from tidegate.server.config import Mail, Settings
from tidegate.server.messages import TEST, Message, UndeliveredError
from tidegate.server.notify.mail import Mailbox
from tidegate.server.tls import own_certificate

MESSAGE = Message(
    id="msg_1_2",
    event="incident.opened",
    at=1_800_000_000,
    data={"incident": "INC-2027-001", "rollout": "gw1-2.5.1", "summary": "6 of 23 ended badly"},
)


class Session(socketserver.StreamRequestHandler):
    """Enough of SMTP (RFC 5321, 3207, 4954) to take a mail."""

    def handle(self) -> None:
        server: Any = self.server
        self._say("220 test")
        secure = server.implicit
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            server.heard.append(line if verb != "AUTH" else f"AUTH {secure}")
            if verb == "EHLO":
                self._say(
                    "250-test\r\n250-AUTH PLAIN"
                    + ("\r\n250 STARTTLS" if server.context else "\r\n250 HELP")
                )
            elif verb == "STARTTLS":
                self._say("220 go")
                self.connection = server.context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = (
                    self.connection.makefile("rb"),
                    self.connection.makefile("wb", 0),
                )
                secure = True
            elif verb == "AUTH":
                self._say("235 ok" if server.sign_in else "535 no: s3cret-password-of-tidegate")
            elif verb == "RCPT" and "nobody@" in line:
                self._say("550 unknown")
            elif verb == "DATA":
                self._say("354 go on")
                server.mails.append(self._mail())
                self._say("250 taken")
            elif verb == "QUIT":
                return
            else:
                self._say("250 ok")

    def _mail(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line[1:] if line.startswith(b"..") else line)
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    return own_certificate(folder, ("localhost",), datetime.now(UTC))


@contextlib.contextmanager
def _server(certificate: tuple[Path, Path] | None, *, sign_in: bool = True) -> Iterator[Any]:
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
    server.daemon_threads = True
    server.heard, server.mails, server.sign_in, server.implicit = [], [], sign_in, False
    server.context = None
    if certificate is not None:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(*certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _mailbox(server: Any, ca_file: str = "", **changes: Any) -> Mailbox:
    fields: dict[str, Any] = {
        "name": "ops", "host": "localhost", "port": server.server_address[1],
        "security": "starttls" if server.context else "none", "sender": "tidegate@example.com",
        "to": ("olga@example.com", "gus@example.com"), "ca_file": ca_file,
        "base": "https://ota.example.com",
    }  # fmt: skip
    return Mailbox(**{**fields, **changes})


def _read(body: bytes) -> EmailMessage:
    return message_from_bytes(body, policy=policy.default)


def _authority(certificate: tuple[Path, Path]) -> str:
    return str(next(certificate[0].parent.glob("*ca*.pem"), certificate[0]))


def test_a_mail_goes_over_an_encrypted_line_after_signing_in(
    certificate: tuple[Path, Path],
) -> None:
    with _server(certificate) as server:
        box = _mailbox(server, _authority(certificate), user="u", password="p")
        box.deliver(MESSAGE, 1_800_000_100)
        box.deliver(MESSAGE, 1_800_000_200)
    assert "AUTH True" in server.heard
    first, second = (_read(body) for body in server.mails)
    assert first["Subject"] == "[Tidegate] INC-2027-001 opened"
    assert first["To"] == "olga@example.com, gus@example.com"
    assert first["Message-ID"] == second["Message-ID"] == "<msg_1_2.ops@example.com>"
    assert first["Auto-Submitted"] == "auto-generated"
    text = first.get_content()
    assert "6 of 23 ended badly" in text
    assert "https://ota.example.com/incidents/INC-2027-001" in text


def test_a_server_whose_certificate_is_unknown_is_told_nothing(
    certificate: tuple[Path, Path],
) -> None:
    with (
        _server(certificate) as server,
        pytest.raises(UndeliveredError, match="SSLCertVerificationError"),
    ):
        _mailbox(server, user="u", password="p").deliver(MESSAGE, 1)
    assert not any(line.upper().startswith(("AUTH", "MAIL", "DATA")) for line in server.heard)


def test_a_server_that_cannot_encrypt_is_told_nothing() -> None:
    with _server(None) as server, pytest.raises(UndeliveredError):
        _mailbox(server, security="starttls").deliver(MESSAGE, 1)
    assert server.mails == []


def test_what_the_server_repeats_of_a_password_is_not_kept() -> None:
    with _server(None, sign_in=False) as server, pytest.raises(UndeliveredError) as caught:
        _mailbox(server, user="u", password="s3cret-password-of-tidegate").deliver(MESSAGE, 1)
    assert str(caught.value) == "SMTPAuthenticationError: 535"


def test_no_text_becomes_a_header_of_its_own() -> None:
    hostile = "x\r\nBcc: thief@example.com\r\n\r\n\u202e<b>"
    message = Message(
        id="m", event="rollout.halted", at=1, data={"rollout": hostile, "reason": hostile}
    )
    with _server(None) as server:
        _mailbox(server).deliver(message, 1)
    mail = _read(server.mails[0])
    assert mail["Bcc"] is None
    assert [line for line in server.heard if line.upper().startswith("RCPT")] == [
        "rcpt TO:<olga@example.com>", "rcpt TO:<gus@example.com>",
    ]  # fmt: skip
    assert "\u202e" not in str(mail["Subject"])
    assert mail["Subject"].startswith("[Tidegate] x Bcc: thief@example.com")


def test_a_mail_that_nobody_may_get_is_undelivered_and_one_that_somebody_got_is_not() -> None:
    with _server(None) as server:
        with pytest.raises(UndeliveredError, match="all 1 recipients refused"):
            _mailbox(server, to=("nobody@example.com",)).deliver(MESSAGE, 1)
        _mailbox(server, to=("nobody@example.com", "olga@example.com")).deliver(MESSAGE, 1)
    assert len(server.mails) == 1


def test_a_test_says_that_it_is_one() -> None:
    with _server(None) as server:
        _mailbox(server).deliver(Message(id="m", event=TEST, at=1, data={}), 1)
    assert "Nothing has happened" in _read(server.mails[0]).get_content()


@pytest.mark.parametrize(
    "change",
    [
        {"sender": "no address"},
        {"to": ("a@b\r\nBcc: c@d",)},
        {"user": "u"},
        {"user": "u", "password_file": "/nowhere"},
        {"user": "u", "password_file": __file__, "security": "none", "host": "mail.example.com"},
    ],
)
def test_a_mistake_in_the_settings_is_said_at_the_start(change: dict[str, Any]) -> None:
    fields = {
        "name": "ops",
        "host": "mail.example.com",
        "sender": "a@b.example",
        "to": ("c@d.example",),
    }
    settings = Settings(mails=(Mail(**{**fields, **change}),))
    with pytest.raises(ConfigError) as caught:
        channels_of(settings)
    assert "[[mail]] ops" in caught.value.detail
