"""What a server's settings say about people: lives of sessions and tokens, second factors, and where signing in is possible."""

from typing import Final

import msgspec

from tidegate.server.actors import Grant

SESSION_S: Final = 12 * 3600


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of people and tokens.

    Attributes:
        session_s: life of a session, in seconds.
        token_default_s: life of a token for which nobody says one; 0 = for ever.
        token_max_s: longest life of a token; 0 = no bound.
        second_factor: roles whose holders must have a second factor before they can do anything.
        local: whether people sign in with a password here.
    """

    session_s: int = SESSION_S
    token_default_s: int = 90 * 86_400
    token_max_s: int = 366 * 86_400
    second_factor: tuple[str, ...] = ()
    local: bool = True

    def wants_second_factor(self, held: tuple[Grant, ...]) -> bool:
        """Say whether who holds this must have a second factor."""
        return any(one.role in self.second_factor for one in held)
