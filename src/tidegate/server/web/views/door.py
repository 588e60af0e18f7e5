"""Sign-in, problems, and what was just done."""

from dataclasses import dataclass, field

from tidegate.server.web.words import Tone


@dataclass(frozen=True, slots=True)
class SignInPage:
    """The door."""

    host: str
    next: str = "/"
    name: str = ""
    problem: str = ""
    local: bool = True
    single: str = ""
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class CodePage:
    """The second step of the door: a code is asked for."""

    next: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ProofPage:
    """Who is signed in shows anew that it is they who sit there. `local`: by a password here, and a code where `second_factor`; else by `single`."""

    next: str
    problem: str
    local: bool
    second_factor: bool
    single: str


@dataclass(frozen=True, slots=True)
class SignedInPage:
    """A session was opened by a way that came from elsewhere; the page leads on."""

    next: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something went wrong: what it means and what to do, with its stable code."""

    status: int
    code: str
    title: str
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """The result of what was just done, shown once after the redirect."""

    text: str
    tone: Tone = "ok"
    fields: tuple[str, ...] = field(default=())
