"""Pages of people: one's own account (password, second factor, sessions), and for who manages accounts or tokens, everybody's."""

import io
from collections.abc import Callable
from typing import Annotated, Any, Final

import segno
from litestar import Controller, Response, get, post
from litestar.params import FromPath, QueryParameter
from markupsafe import Markup

from tidegate.core.errors import RequestError
from tidegate.server.auth import Auth as Accounts
from tidegate.server.auth import TokenFacts
from tidegate.server.people.second_factor import Enrolment
from tidegate.server.scopes import ABOUT, ANYBODY, LISTED, PERMISSION, WHOLE
from tidegate.server.web.guard import FORM_BYTES, WebRequest, local_path
from tidegate.server.web.pages import Name
from tidegate.server.web.site import Site, SiteDep, Visit
from tidegate.server.web.views import (
    AccountPage,
    PeoplePage,
    ProofPage,
    SecondFactorPage,
    Shown,
    ShownPage,
    TokensPage,
)

#: What one does to one's own account.
OWN_VERBS: Final = ("password", "remove-second-factor", "end-sessions")
PERSON_VERBS: Final = dict.fromkeys(
    ("edit", "disable", "enable", "link", "reset-second-factor", "end-sessions"), "account.manage"
)
CONSENT_VERBS: Final = dict.fromkeys(("approve", "decline"), "account.manage")
_ACCOUNTS: Final = {PERMISSION: "account.manage", ABOUT: WHOLE}
_TOKENS: Final = {PERMISSION: "token.manage", ABOUT: LISTED}


class OwnAccount(Controller):
    """`/account`: everybody's own."""

    include_in_schema = False
    opt = {PERMISSION: ANYBODY}  # noqa: RUF012 - the framework's way
    request_max_body_size = FORM_BYTES

    @get("/account")
    async def show(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Show one's own account."""
        visit = await site.visit(request)
        people = people_of(site)

        def look() -> AccountPage:
            name = visit.account.name
            return AccountPage(
                now=visit.now,
                account=people.account_of(name),
                sessions=tuple(people.sessions(visit.now, of=name, present=visit.session)),
                must=is_enrolling(visit),
                by_link=people.came_by_link(visit.session, visit.now),
            )

        return await site.show(request, visit, "account", await site.run(look), section="account")

    @get("/account/second-factor")
    async def set_up(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Show the picture for an authenticator app."""
        visit = await site.visit(request)
        people = people_of(site)
        made = await site.run(
            lambda: people.begin_second_factor(visit.session, _issuer(request), visit.now)
        )
        page = SecondFactorPage(secret=_spaced(made), picture=picture(made.address))
        return await site.show(request, visit, "second_factor", page, section="account")

    @post("/account/second-factor", status_code=200)
    async def confirm(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Have a second factor count, since a code of it was shown; the recovery codes are shown this once."""
        visit, fields = await site.act(request)
        people, code = people_of(site), fields.get("code", "")[:32]
        codes = await site.run(lambda: people.confirm_second_factor(visit.session, code, visit.now))
        page = ShownPage(
            title="Recovery codes",
            text="Each signs you in once when your phone is lost. They are shown this once: keep them where the phone is not.",
            shown=(Shown("Codes", "\n".join(codes)),),
            back="/account",
        )
        return await site.show(request, visit, "shown", page, section="account")

    @get("/account/proof")
    async def ask_for_proof(
        self,
        request: WebRequest,
        site: SiteDep,
        next_: Annotated[str, QueryParameter(name="next", max_length=1000)] = "/",
    ) -> Response[Any]:
        """Ask who sits there, before something is widened."""
        visit = await site.visit(request)
        return await _proof(request, site, visit, local_path(next_))

    @post("/account/proof")
    async def take_proof(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Take a password, and where there is a second factor a code of it, from who is signed in."""
        visit, fields = await site.act(request)
        people, to = people_of(site), local_path(fields.get("next", "/"))
        password, code = fields.get("password", "")[:1000], fields.get("code", "")[:32]
        try:
            proved = await site.run(
                lambda: people.prove_whole(visit.session, password, code, visit.now)
            )
            problem = "That does not fit."
        except RequestError as error:
            proved, problem = False, error.detail
        if not proved:
            return await _proof(request, site, visit, to, problem)
        return site.done(request, to, "Thank you. Now do it again: nothing was done before.")

    @post("/account/{verb:str}")
    async def act(self, request: WebRequest, site: SiteDep, verb: Name) -> Response[Any]:
        """Change one's own password, remove a second factor, end one's other sessions."""
        if verb not in OWN_VERBS:
            raise RequestError("request.not_found", "There is no such act.")
        visit, fields = await site.act(request)
        people, session, now = people_of(site), visit.session, visit.now
        if verb == "password":
            old, new = fields.get("old", "")[:1000], fields.get("new", "")[:1000]
            if new != fields.get("again", ""):
                raise RequestError("request.invalid", "The two new passwords differ.")
            await site.run(lambda: people.change_password(session, old, new, now))
            text = "Your password is changed; your other sessions are ended."
        elif verb == "remove-second-factor":
            password = fields.get("old", "")[:1000]
            await site.run(lambda: people.remove_second_factor(session, password, now))
            text = "Your second factor is removed."
        else:
            name, actor = visit.account.name, actor_of(visit)
            await site.run(lambda: people.end_sessions_of(name, actor, now, present=session))
            text = "Your other sessions are ended."
        return site.done(request, "/account", text)

    @post("/account/sessions/{name:str}/end")
    async def end(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """End one of one's own sessions."""
        visit, _ = await site.act(request)
        people, actor = people_of(site), actor_of(visit)
        own = visit.account.name
        await site.run(lambda: people.end_session(name, actor, visit.now, of=own))
        return site.done(request, "/account", "The session is ended.")


async def _proof(
    request: WebRequest, site: Site, visit: Visit, to: str, problem: str = ""
) -> Response[Any]:
    people = people_of(site)
    account = await site.run(lambda: people.account_of(visit.account.name))
    page = ProofPage(
        next=to,
        problem=problem,
        local=account.origin == "local",
        second_factor=account.second_factor,
        single=site.auth.single.label if site.auth.single is not None else "",
    )
    return await site.show(request, visit, "proof", page, section="account")


class PeoplePages(Controller):
    """`/people` and `/tokens`: everybody's."""

    include_in_schema = False
    request_max_body_size = FORM_BYTES

    @get("/people", opt=_ACCOUNTS)
    async def people(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """List accounts and sessions."""
        visit = await site.visit(request)
        people = people_of(site)

        def look() -> PeoplePage:
            sessions = people.sessions(visit.now, present=visit.session)
            return PeoplePage(
                now=visit.now,
                accounts=tuple(people.accounts()),
                sessions=tuple(sessions),
                consents=tuple(people.consents(visit.now)),
            )

        return await site.show(request, visit, "people", await site.run(look), section="account")

    @post("/people", opt=_ACCOUNTS, status_code=200)
    async def invite(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Make an account; a link that signs its owner in once is shown."""
        visit, fields = await site.act(request)
        people, actor = people_of(site), actor_of(visit)
        name, grants = fields.get("name", "").strip()[:64], _grants(fields)
        person = fields.get("person", "").strip()[:64]
        return await _link(
            request,
            site,
            visit,
            name,
            lambda: people.invite(name, grants, actor, visit.now, person=person),
        )

    @post(
        "/people/{name:str}/{verb:str}",
        opt={PERMISSION: PERSON_VERBS, ABOUT: WHOLE},
        status_code=200,
    )
    async def act(
        self, request: WebRequest, site: SiteDep, name: Name, verb: Name
    ) -> Response[Any]:
        """Change an account."""
        visit, fields = await site.act(request)
        people, actor, now = people_of(site), actor_of(visit), visit.now
        if verb == "link":
            return await _link(
                request,
                site,
                visit,
                name,
                lambda: people.sign_in_link_ticket(name, now, actor=actor),
            )
        acts: dict[str, tuple[Callable[[], object], str]] = {
            "edit": (
                lambda: people.edit_account(name, actor, now, grants=_grants(fields)),
                f"{name} has new roles, and has to sign in again.",
            ),
            "disable": (
                lambda: people.edit_account(name, actor, now, disabled=True),
                f"{name} is disabled, and signed out.",
            ),
            "enable": (
                lambda: people.edit_account(name, actor, now, disabled=False),
                f"{name} may sign in again.",
            ),
            "reset-second-factor": (
                lambda: people.reset_second_factor(name, actor, now),
                f"{name} has no second factor any more.",
            ),
            "end-sessions": (
                lambda: people.end_sessions_of(name, actor, now, present=visit.session),
                f"The sessions of {name} are ended.",
            ),
        }
        work, text = acts[verb]
        await site.run(work)
        return site.done(request, "/people", text)

    @post("/people/sessions/{name:str}/end", opt=_ACCOUNTS)
    async def end(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """End a session."""
        visit, _ = await site.act(request)
        people, actor = people_of(site), actor_of(visit)
        await site.run(lambda: people.end_session(name, actor, visit.now))
        return site.done(request, "/people", "The session is ended.")

    @post("/consents/{number:int}/{verb:str}", opt={PERMISSION: CONSENT_VERBS, ABOUT: WHOLE})
    async def consent(
        self, request: WebRequest, site: SiteDep, number: FromPath[int], verb: Name
    ) -> Response[Any]:
        """Consent to what somebody else wants to do to an account, or decline it."""
        visit, _ = await site.act(request)
        people, actor = people_of(site), actor_of(visit)
        done = await site.run(
            lambda: people.consent(number, actor, visit.now, approve=verb == "approve")
        )
        text = f"{done.asked_by} may do it now, once." if verb == "approve" else "It is declined."
        return site.done(request, "/people", text)

    @get("/tokens", opt=_TOKENS)
    async def tokens(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """List tokens."""
        visit = await site.visit(request)
        people, actor = people_of(site), actor_of(visit)

        def look() -> TokensPage:
            found = sorted(
                people.tokens(actor), key=lambda one: (_is_over(one, visit.now), -one.id)
            )
            return TokensPage(now=visit.now, tokens=tuple(found))

        return await site.show(request, visit, "tokens", await site.run(look), section="account")

    @post("/tokens", opt=_TOKENS, status_code=200)
    async def create(self, request: WebRequest, site: SiteDep) -> Response[Any]:
        """Make a token; its text is shown this once."""
        visit, fields = await site.act(request)
        people, actor = people_of(site), actor_of(visit)
        name, days = fields.get("name", "").strip()[:64], fields.get("days", "").strip()
        if days and not (days.isascii() and days.isdigit() and 0 < len(days) < 5):
            raise RequestError("request.invalid", "Days: a whole number.")
        expires = visit.now + int(days) * 86_400 if days else None
        addresses = fields.get("addresses", "").replace(",", " ").split()
        _, token = await site.run(
            lambda: people.create_token(
                name, "", actor, visit.now,
                expires_at=expires, grants=_grants(fields), addresses=addresses,
            )
        )  # fmt: skip
        page = ShownPage(
            title=f"Token {name}",
            text="It is shown this once: put it into a file that only its program reads.",
            shown=(Shown("Token", token),),
            back="/tokens",
        )
        return await site.show(request, visit, "shown", page, section="account")

    @post("/tokens/{name:str}/revoke", opt=_TOKENS)
    async def revoke(self, request: WebRequest, site: SiteDep, name: Name) -> Response[Any]:
        """End a token."""
        visit, _ = await site.act(request)
        people, actor = people_of(site), actor_of(visit)
        await site.run(lambda: people.revoke_token(name, actor, visit.now))
        return site.done(request, "/tokens", f"{name} is revoked.")


def people_of(site: Site) -> Accounts:
    """Return the accounts.

    Raises:
        RequestError: this site has none.
    """
    if site.auth.people is None:
        raise RequestError("request.not_found", "There are no accounts here.")
    return site.auth.people


def actor_of(visit: Visit) -> Any:
    """Return who acts.

    Raises:
        RequestError: `request.forbidden`: a second factor has to be set up first.
    """
    if visit.account.actor is None or is_enrolling(visit):
        raise RequestError("request.forbidden", "Set up a second factor first.")
    return visit.account.actor


def is_enrolling(visit: Visit) -> bool:
    """Say whether somebody has yet to set up the second factor that their roles want."""
    return visit.account.actor is not None and visit.account.actor.kind == "enrol"


def picture(address: str) -> Markup:
    """Return a QR code as SVG without styles or scripts: a safe fragment of our own."""
    out = io.BytesIO()
    made = segno.make(address, error="m", micro=False)
    made.save(out, kind="svg", xmldecl=False, svgns=True, scale=4, border=3, omitsize=True,
              dark="#000", light="#fff", svgclass="qr", lineclass=None)  # fmt: skip
    return Markup(out.getvalue().decode())  # noqa: S704 - drawn by segno, no text of anybody in it


async def _link(
    request: WebRequest, site: Site, visit: Visit, name: str, make: Callable[[], str]
) -> Response[Any]:
    ticket = await site.run(make)
    base = f"{request.url.scheme}://{request.headers.get('host', '')}"
    page = ShownPage(
        title=f"A link for {name}",
        text="It signs its owner in once, within an hour; they set a password or a second factor then. Give it to nobody else.",
        shown=(Shown("Link", f"{base}/sign-in/ticket?t={ticket}"),),
        back="/people",
    )
    return await site.show(request, visit, "shown", page, section="account")


def _grants(fields: dict[str, str]) -> list[str]:
    """Read roles as they are typed: one a line, or separated by commas or blanks (untrusted)."""
    return fields.get("grants", "")[:4000].replace(",", " ").split()


def _issuer(request: WebRequest) -> str:
    return f"Tidegate {request.headers.get('host', '')[:60]}".strip()


def _spaced(made: Enrolment) -> str:
    text = made.secret
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def _is_over(token: TokenFacts, now: int) -> bool:
    return token.revoked_at is not None or (
        token.expires_at is not None and token.expires_at <= now
    )
