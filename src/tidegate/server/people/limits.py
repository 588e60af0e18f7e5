"""What a server's settings say about people: lives of sessions and tokens, second factors, and where signing in is possible."""

from typing import Final

import msgspec

from tidegate.core.errors import ConfigError
from tidegate.server.actors import Grant

SESSION_S: Final = 12 * 3600


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of people and tokens.

    Attributes:
        session_s: life of a session, in seconds.
        fresh_s: how long ago who sits at a session may have shown it, for what `actors.asks_for_proof` names, in seconds; 0 = is not asked for.
        token_default_s: life of a token for which nobody says one; 0 = for ever.
        token_max_s: longest life of a token; 0 = no bound.
        second_factor: roles whose holders must have a second factor before they can do anything.
        local: whether people sign in with a password here.
        consent: whether making, widening and taking over accounts takes two people, where there are two; `consent_s`: how long a request waits.
    """

    session_s: int = SESSION_S
    fresh_s: int = 0
    token_default_s: int = 90 * 86_400
    token_max_s: int = 366 * 86_400
    second_factor: tuple[str, ...] = ()
    local: bool = True
    consent: bool = True
    consent_s: int = 86_400

    def wants_second_factor(self, held: tuple[Grant, ...]) -> bool:
        """Say whether who holds this must have a second factor."""
        return any(one.role in self.second_factor for one in held)


class Oidc(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[oidc]`: sign-in by an OpenID provider.

    Attributes:
        issuer: its name, an https address, exactly as it calls itself.
        client_id: of this server there.
        client_secret_file: a file with the client's secret; none = a public client (PKCE is used either way).
        scopes: what is asked for.
        name_claim: which claim becomes the account's name.
        groups_claim: which claim lists the person's groups.
        groups: group → roles, `ROLE` or `ROLE@SCOPE`; who is in none of them does not get in.
        label: what the button says.
        ca_file: authorities to believe instead of the system's.
        leeway: how far the two clocks may differ, in seconds.
    """

    issuer: str
    client_id: str
    client_secret_file: str = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    groups: dict[str, tuple[str, ...]] = {}
    label: str = "Sign in with single sign-on"
    ca_file: str = ""
    leeway: int = 60


def require_a_way_in(oidc: Oidc | None, *, local: bool, external_url: str) -> None:
    """Make sure that somebody can sign in, and that a provider could send them back.

    Raises:
        ConfigError: `config.missing`.
    """
    if oidc is None and not local:
        raise ConfigError(
            "config.missing", "[oidc]: nobody could sign in, since [accounts] local is off"
        )
    if oidc is not None and not external_url:
        raise ConfigError(
            "config.missing", "[http] external_url: where [oidc] sends browsers back to"
        )
