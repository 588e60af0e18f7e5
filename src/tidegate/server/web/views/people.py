"""One's own account, everybody's, tokens, and what is shown once."""

from dataclasses import dataclass

from markupsafe import Markup

from tidegate.server.auth import AccountFacts, SessionFacts, TokenFacts
from tidegate.server.people.consent import ConsentFacts


@dataclass(frozen=True, slots=True)
class AccountPage:
    """One's own account. `must`: a second factor has to be set up before anything else; `by_link`: no old password is asked for."""

    now: int
    account: AccountFacts
    sessions: tuple[SessionFacts, ...]
    must: bool
    by_link: bool = False


@dataclass(frozen=True, slots=True)
class SecondFactorPage:
    """A second factor that is being set up: as text, and as a picture (SVG made here)."""

    secret: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class PeoplePage:
    """Accounts and sessions."""

    now: int
    accounts: tuple[AccountFacts, ...]
    sessions: tuple[SessionFacts, ...]
    consents: tuple[ConsentFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class TokensPage:
    """API tokens: those that are good first."""

    now: int
    tokens: tuple[TokenFacts, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """Something that is shown this once."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class ShownPage:
    """A page that cannot be had again."""

    title: str
    text: str
    shown: tuple[Shown, ...]
    back: str
