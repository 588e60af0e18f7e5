"""Mail by SMTP, encrypted unless the settings say otherwise; one message to all recipients of a channel. The Message-ID is the same for every try."""

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any, Final, Literal

from tidegate.rollout.incident.text import line
from tidegate.server.messages import TEST, Deadline, Message, UndeliveredError

TIMEOUT_S: Final = 10.0
Security = Literal["starttls", "tls", "none"]
#: Fields of a message in the order in which people want to read them.
_ORDER: Final = (
    "summary", "reason", "text", "title", "incident", "severity", "state", "rollout", "release",
    "variant", "subject", "child", "kind", "by",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Whom to write to, and by which server. `base`: address of this server's pages, for a link; `password` is never logged."""

    name: str
    host: str
    port: int
    security: Security
    sender: str
    to: tuple[str, ...]
    user: str = ""
    password: str = ""
    events: tuple[str, ...] = ()
    ca_file: str = ""
    base: str = ""

    kind = "mail"

    @property
    def place(self) -> str:
        """The mail server, and how many are written to."""
        return f"{self.host}:{self.port}, {len(self.to)} recipients"

    def deliver(self, message: Message, now: int) -> None:
        """Hand the mail to the server.

        Raises:
            UndeliveredError: it did not take it.
        """
        mail = self.compose(message, now)
        server: smtplib.SMTP | None = None
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.security == "tls":
                server = smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=context)
            else:
                server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)
            self._hand_over(server, mail, context)
        except (OSError, smtplib.SMTPException, ValueError) as problem:
            raise UndeliveredError(_said(problem)) from problem
        finally:
            if server is not None:
                server.close()

    def _hand_over(self, server: smtplib.SMTP, mail: EmailMessage, context: ssl.SSLContext) -> None:
        with Deadline(lambda: server.sock):
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user:
                server.login(self.user, self.password)
            server.send_message(mail, self.sender, list(self.to))

    def compose(self, message: Message, now: int) -> EmailMessage:
        """Write the mail; nothing in it can become another header."""
        data = message.data
        mail = EmailMessage()
        about = line(data.get("incident") or data.get("rollout") or "", 60)
        mail["Subject"] = line(f"[Tidegate] {about} {_event(message)}".replace("  ", " "), 150)
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.to)
        mail["Date"] = formatdate(now, usegmt=True)
        mail["Message-ID"] = (
            f"<{message.id}.{self.name}@{self.sender.rpartition('@')[2].rstrip('>')}>"
        )
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content("\n".join(self._lines(message, data)) + "\n")
        return mail

    def _lines(self, message: Message, data: Any) -> list[str]:
        if message.event == TEST:
            return [f"This is a test of the channel {self.name}. Nothing has happened."]
        known = [key for key in _ORDER if data.get(key)]
        lines = [f"{key:<9} {line(data[key], 900)}" for key in known]
        if self.base and data.get("incident"):
            lines += ["", f"{self.base}/incidents/{line(data['incident'], 40)}"]
        return lines


def _event(message: Message) -> str:
    thing, _, verb = message.event.partition(".")
    return verb if thing == "incident" else f"{thing} {verb}"


def _said(problem: Exception) -> str:
    """Say what went wrong without the words of the conversation: a server may repeat what it was told."""
    if isinstance(problem, smtplib.SMTPResponseException):
        return f"{type(problem).__name__}: {problem.smtp_code}"
    if isinstance(problem, smtplib.SMTPRecipientsRefused):
        return f"all {len(problem.recipients)} recipients refused"
    if isinstance(problem, smtplib.SMTPException):
        return type(problem).__name__
    return f"{type(problem).__name__}: {problem}"
