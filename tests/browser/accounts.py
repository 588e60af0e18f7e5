"""Two people of the invented story, and how they sign in."""

from dataclasses import dataclass, field

from tidegate.core.errors import RequestError
from tidegate.server.web.reader import Account

ALL = frozenset(
    {
        "rollout.create",
        "rollout.halt",
        "audit.read",
        "rollout.widen",
        "rollout.approve",
        "rollout.fallback",
        "device.manage",
        "release.publish",
        "release.recall",
        "incident.write",
    }
)
PASSWORD = "correct-horse"


@dataclass
class FixtureAuth:
    """Two accounts that live in memory; a session token is `session-NAME`."""

    sessions: set[str] = field(default_factory=set)
    people: None = None
    single: None = None
    local: bool = True

    def account(self, session: str, now: int) -> Account | None:
        """Return the account of a session that was opened."""
        del now
        if session not in self.sessions:
            return None
        name = session.removeprefix("session-")
        return Account(
            name,
            "viewer" if name == "guest" else "approver",
            frozenset() if name == "guest" else ALL,
        )

    def check(self, account: Account, permission: str, about: str, name: str, now: int) -> None:
        """Refuse who lacks the permission; everybody reads."""
        del about, name, now
        if permission not in account.may | {"fleet.read"}:
            raise RequestError("request.forbidden", f"{account.name} has no {permission}")

    def sign_in(
        self, name: str, password: str, address: str, now: int, *, agent: str = ""
    ) -> str | None:
        """Open a session."""
        del address, now, agent
        if password != PASSWORD:
            return None
        self.sessions.add(f"session-{name}")
        return f"session-{name}"

    def redeem(self, ticket: str, now: int, *, address: str = "", agent: str = "") -> str | None:
        """Open a session for the one good ticket, once."""
        if ticket != "good" or "session-jonas.weber" in self.sessions:
            return None
        return self.sign_in("jonas.weber", PASSWORD, "", now)

    def sign_out(self, session: str, now: int) -> None:
        """Close a session."""
        del now
        self.sessions.discard(session)
