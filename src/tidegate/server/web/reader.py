"""What the web needs from the rest of the server: pages to read, commands to give, and who is asking.

All three are plain synchronous calls; the pages run them on worker threads. Every command is done and durable when the call returns.
"""

from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from tidegate.server.actors import SEES_ALL, Actor, Sight
from tidegate.server.acts import Outcome
from tidegate.server.amendments import Terms
from tidegate.server.auth import Auth as Accounts
from tidegate.server.people.single_sign_on import SingleSignOn
from tidegate.server.reach import Reach
from tidegate.server.web.views import (
    AdvisoriesPage,
    AdvisoryPage,
    AuditPage,
    ComponentsPage,
    Counts,
    DevicePage,
    DevicesPage,
    FleetPage,
    HistoryPage,
    IncidentPage,
    IncidentsPage,
    NoticesPage,
    ParticipantsPage,
    ReleasePage,
    ReleasesPage,
    RolloutPage,
    RolloutsPage,
)


@dataclass(frozen=True, slots=True)
class Account:
    """Who is signed in. `may` holds permissions by name, such as `rollout.halt`, wherever they are held; `actor` is who that is to the domain."""

    name: str
    role: str
    may: frozenset[str]
    actor: Actor | None = None

    @property
    def sight(self) -> Sight:
        """What is shown of lists."""
        return SEES_ALL if self.actor is None else self.actor.sight

    @property
    def initials(self) -> str:
        """Two letters for the top bar."""
        parts = [
            part
            for part in self.name.replace(".", " ").replace("-", " ").replace("_", " ").split()
            if part
        ]
        letters = "".join(part[0] for part in parts[:2]) if len(parts) > 1 else self.name[:2]
        return letters.upper()


class Auth(Protocol):
    """Accounts and their sessions.

    Attributes:
        people: what the pages of people and of one's own account act on; None where there are none.
        single: sign-in by a provider, where there is one.
        local: whether people sign in with a password.
    """

    @property
    def people(self) -> Accounts | None: ...  # noqa: D102

    @property
    def single(self) -> SingleSignOn | None: ...  # noqa: D102

    @property
    def local(self) -> bool: ...  # noqa: D102

    def account(self, session: str, now: int) -> Account | None:
        """Return who the session token (untrusted) belongs to, or None."""
        ...

    def check(self, account: Account, permission: str, about: str, name: str, now: int) -> None:
        """Refuse an account that lacks a permission on a thing (`server.scopes`).

        Raises:
            TidegateError: `request.forbidden`, `request.not_found`.
        """
        ...

    def sign_in(
        self, name: str, password: str, address: str, now: int, *, agent: str = ""
    ) -> str | None:
        """Return a new session token, or None when name and password do not match.

        Raises:
            TidegateError: too many attempts (`request.rate_limited`).
        """
        ...

    def redeem(self, ticket: str, now: int, *, address: str = "", agent: str = "") -> str | None:
        """Exchange a one-time sign-in ticket (untrusted) for a session token; None when it is not good, or no longer."""
        ...

    def sign_out(self, session: str, now: int) -> None:
        """End the session; nothing happens when there is none."""
        ...


class Reader(Protocol):
    """One method a page. None = there is no such thing. Lists and the top bar show what is in `sight`."""

    def position(self) -> int:
        """Return a number that grows whenever anything a page shows has changed. Cheap: it is asked about once a second."""
        ...

    def counts(self, now: int, sight: Sight = SEES_ALL) -> Counts:
        """Return what the top bar shows."""
        ...

    def fleet(self, now: int, sight: Sight = SEES_ALL) -> FleetPage:
        """Return the fleet overview."""
        ...

    def rollouts(self, now: int, cursor: str, sight: Sight = SEES_ALL) -> RolloutsPage:
        """Return one page of the list of rollouts; `cursor` is untrusted."""
        ...

    def rollout(self, name: str, account: Account, now: int) -> RolloutPage | None:
        """Return one rollout, as `account` sees its requests."""
        ...

    def participants(self, name: str, state: str, cursor: str, now: int) -> ParticipantsPage | None:
        """Return one page of a rollout's devices by where they stand; state and cursor are untrusted."""
        ...

    def devices(self, query: str, cursor: str, now: int, sight: Sight = SEES_ALL) -> DevicesPage:
        """Return one page of the devices that match `query`; query and cursor are untrusted."""
        ...

    def device(self, device_id: str, now: int) -> DevicePage | None:
        """Return one device."""
        ...

    def releases(self, now: int, sight: Sight = SEES_ALL) -> ReleasesPage:
        """Return the list of releases."""
        ...

    def release(self, name: str, now: int) -> ReleasePage | None:
        """Return one release."""
        ...

    def incidents(self, now: int, sight: Sight = SEES_ALL) -> IncidentsPage:
        """Return the list of incidents."""
        ...

    def incident(self, name: str, now: int) -> IncidentPage | None:
        """Return one incident report."""
        ...

    def audit(
        self,
        actor: str,
        action: str,
        thing: str,
        cursor: str,
        account: Account,
        now: int,
        *,
        check: bool,
    ) -> AuditPage:
        """Return one page of the operators' log, as `account` may read it; all that is asked for is untrusted.

        `check` holds every row against chain, tree and checkpoint.
        """
        ...

    def history(self, days: int, now: int, sight: Sight = SEES_ALL) -> HistoryPage:
        """Return what the fleet did over time, so many days back (untrusted)."""
        ...

    def rollout_history(self, name: str, now: int) -> HistoryPage | None:
        """Return what a rollout did over time."""
        ...

    def notices(self, in_state: str, cursor: str, now: int) -> NoticesPage:
        """Return the channels and one page of messages to them; state and cursor are untrusted."""
        ...

    def components(
        self, name: str, below: str, cursor: str, now: int, sight: Sight = SEES_ALL
    ) -> ComponentsPage:
        """Return the releases and devices that have a part, below a version; all three texts are untrusted."""
        ...

    def advisories(self, cursor: str, now: int, sight: Sight = SEES_ALL) -> AdvisoriesPage:
        """Return one page of advisories; `cursor` is untrusted."""
        ...

    def advisory(self, number: int, now: int, sight: Sight = SEES_ALL) -> AdvisoryPage | None:
        """Return one advisory."""
        ...


class Commands(Protocol):
    """What a person can do here. Each returns the sentence that says what happened.

    Raises (all of them):
        TidegateError: it was refused; nothing has changed.
    """

    def tell_rollout(
        self, verb: str, name: str, account: Account, reason: str, fields: dict[str, str], now: int
    ) -> str:
        """Act on a rollout: halt, pause, resume, start, advance, cancel, isolate, readmit, fallback. `fields` carry the verb's own settings."""
        ...

    def reach(self, policy: dict[str, Any], account: Account, now: int) -> Reach:
        """Say whom a rollout of this policy (untrusted) would reach; writes nothing."""
        ...

    def create(
        self, policy: dict[str, Any], account: Account, reason: str, now: int
    ) -> tuple[str, str]:
        """Make a rollout of a policy (untrusted); return its name, and the sentence that says what happened."""
        ...

    def terms(self, name: str) -> Terms:
        """Return what of a rollout can be changed."""
        ...

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
        """Change parts of a rollout's policy (untrusted), if it is still at that generation; `dry_run`: only say what would be done."""
        ...

    def wider(self, name: str, parts: dict[str, Any]) -> tuple[str, ...]:
        """Say in which ways those parts would make a rollout wider."""
        ...

    def decide(
        self, request_id: str, account: Account, *, approve: bool, reason: str, now: int
    ) -> str:
        """Approve or decline what somebody asked for."""
        ...

    def tell_device(
        self, verb: str, device_id: str, account: Account, reason: str, now: int
    ) -> str:
        """Act on a device: accept, reject, hold, unhold."""
        ...

    def recall(self, release: str, account: Account, reason: str, now: int) -> str:
        """Never offer a release again."""
        ...

    def open_incident(self, account: Account, fields: dict[str, str], now: int) -> tuple[str, str]:
        """Open an incident by hand; return its name, and the sentence that says what happened."""
        ...

    def tell_incident(
        self, verb: str, name: str, account: Account, fields: dict[str, str], now: int
    ) -> str:
        """Act on an incident: a verb of `forms.INCIDENT_VERBS`. `fields` carry the verb's own settings; untrusted."""
        ...

    def try_channel(self, channel: str, account: Account, now: int) -> str:
        """Send a channel (untrusted) a message that says nothing but that it is one."""
        ...

    def send_again(self, number: int, account: Account, now: int) -> str:
        """Deliver a message once more, under the same id."""
        ...

    def publish(self, bundle: BinaryIO, account: Account, now: int) -> tuple[str, str]:
        """Publish a signed bundle (untrusted), checked as a device would check it.

        Returns:
            The name of the release (empty = the bundle brought roles only), and the sentence that says what happened.
        """
        ...

    def take_advisories(self, body: bytes, account: Account, now: int) -> str:
        """Take in a file of advisories or statements (untrusted)."""
        ...
