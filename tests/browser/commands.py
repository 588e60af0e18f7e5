"""What people tell the invented story, and what it makes of that: nothing but a note, and a halt that halts."""

from dataclasses import dataclass, field
from typing import Any, BinaryIO

from tests.browser import weighed
from tests.browser.records import Records

from tidegate.core.errors import RequestError
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import presets
from tidegate.server.acts import Outcome
from tidegate.server.amendments import Terms
from tidegate.server.reach import Reach
from tidegate.server.web.reader import Account


@dataclass
class Commands(Records):
    """Commands over a story that commands change."""

    at: int = 100
    site: str = "Bod\u00f8 harbour"
    said: list[tuple[str, ...]] = field(default_factory=list)
    published: bytes = b""

    def tell_rollout(
        self, verb: str, name: str, account: Account, reason: str, fields: dict[str, str], now: int
    ) -> str:
        """Take note; a halt halts."""
        del now
        self.said.append((verb, name, account.name, reason, str(fields)))
        if verb == "halt":
            self.state = "halted"
        if verb == "cancel":
            raise RequestError("request.conflict", "It is halted; nothing is left to cancel.")
        self.at += 1
        return f"{verb.capitalize()}: effective now."

    def reach(self, policy: dict[str, Any], account: Account, now: int) -> Reach:
        """Return the reach of the invented story."""
        del account, now
        return weighed.reach(str(policy["release"]))

    def create(
        self, policy: dict[str, Any], account: Account, reason: str, now: int
    ) -> tuple[str, str]:
        """Take note."""
        del now
        self.said.append(("create", str(policy), account.name, reason))
        return "gw1-2.6.0", "Created: it is a draft."

    def terms(self, name: str) -> Terms:
        """Return the terms of a ready preset."""
        return Terms(
            name=name, state="active", generation=9,
            policy=presets.preset("normal"), delivery=DeliveryPolicy(),
            release="gw1-2.5.0", begun=True,
        )  # fmt: skip

    def amend(
        self,
        name: str,
        parts: dict[str, Any],
        account: Account,
        reason: str,
        now: int,
        *,
        generation: int,
        dry_run: bool = False,
    ) -> Outcome:
        """Take note; it always asks for a second person."""
        del now
        if not dry_run:
            self.said.append(("edit", name, str(parts), account.name, reason, str(generation)))
        return Outcome(
            name=name, verb="edit", state="active", generation=9, text="asked", request=4
        )

    def wider(self, name: str, parts: dict[str, Any]) -> tuple[str, ...]:
        """Invent a way."""
        del name
        return ("ring fleet has no step at 10 % any more",) if "steps" in parts else ()

    def decide(
        self, request_id: str, account: Account, *, approve: bool, reason: str, now: int
    ) -> str:
        """Take note."""
        del now
        self.said.append(("approve" if approve else "decline", request_id, account.name, reason))
        return "Decided."

    def tell_device(
        self, verb: str, device_id: str, account: Account, reason: str, now: int
    ) -> str:
        """Take note."""
        del reason, now
        self.said.append((verb, device_id, account.name))
        return "Done."

    def recall(self, release: str, account: Account, reason: str, now: int) -> str:
        """Take note."""
        del now
        self.said.append(("recall", release, account.name, reason))
        return "Recalled."

    def open_incident(self, account: Account, fields: dict[str, str], now: int) -> tuple[str, str]:
        """Take note."""
        del now
        self.said.append(("open", fields.get("summary", ""), account.name))
        return "INC-2026-019", "INC-2026-019 is open."

    def tell_incident(
        self, verb: str, name: str, account: Account, fields: dict[str, str], now: int
    ) -> str:
        """Take note."""
        del now
        told = tuple(value for key, value in sorted(fields.items()) if key != "csrf")
        self.said.append((verb, name, account.name, *told))
        return "Written down."

    def try_channel(self, channel: str, account: Account, now: int) -> str:
        """Note it."""
        del account, now
        self.said.append(("test", channel))
        return f"A test message to {channel} is on its way."

    def send_again(self, number: int, account: Account, now: int) -> str:
        """Note it."""
        del account, now
        self.said.append(("replay", str(number)))
        return "It goes once more."

    def publish(self, bundle: BinaryIO, account: Account, now: int) -> tuple[str, str]:
        """Keep the bytes; refuse what does not begin like a bundle."""
        del account, now
        self.published = bundle.read()
        if not self.published.startswith(b"TGB"):
            raise RequestError("release.malformed", "This is not a bundle.")
        return "gw1-2.5.0", "Published gw1-2.5.0."
