"""People over REST: who asks, accounts, one-time sign-in links, API tokens, the inbox of approvals."""

from litestar import Controller, delete, get, patch, post
from litestar.params import JSONBody

from tidegate.server import approvals, scopes
from tidegate.server.acts import Outcome
from tidegate.server.api.desk import (
    ABOUT,
    ANYBODY,
    LISTED,
    PERMISSION,
    WHOLE,
    ApiRequest,
    DeskDep,
    InState,
    Name,
    Number,
    Text,
)
from tidegate.server.api.wire import (
    AccountChange,
    Accounts,
    Because,
    ConsentList,
    Decision,
    MadeAccount,
    MadeToken,
    Me,
    NewAccount,
    NewToken,
    Requests,
    SessionList,
    Ticket,
    Tokens,
)
from tidegate.server.approvals import RequestFacts
from tidegate.server.auth import COOKIE, AccountFacts
from tidegate.server.people.consent import ConsentFacts
from tidegate.server.store import Connection


class AccountRoutes(Controller):
    """Accounts of people."""

    tags = ("people",)

    @get("/me", opt={PERMISSION: ANYBODY}, sync_to_thread=False)
    def me(self, request: ApiRequest) -> Me:
        """Say who asks, and what they may do."""
        actor = request.user
        return Me(
            name=actor.name,
            role=actor.role,
            kind=actor.kind,
            may=sorted(actor.may),
            grants=tuple(str(one) for one in actor.held),
        )

    @get("/accounts", opt={PERMISSION: "account.manage", ABOUT: WHOLE}, sync_to_thread=True)
    def list_accounts(self, desk: DeskDep) -> Accounts:
        """List accounts."""
        return Accounts(items=desk.accounts.accounts())

    @post(
        "/accounts",
        opt={PERMISSION: "account.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=201,
    )
    def create(self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewAccount]) -> MadeAccount:
        """Make an account; a password that was made is in the answer, and nowhere else."""
        password = desk.accounts.create_account(
            data.name,
            data.role,
            data.password,
            request.user,
            desk.now,
            grants=data.grants,
            person=data.person,
        )
        return MadeAccount(name=data.name, password="" if data.password else password)

    @patch(
        "/accounts/{name:str}",
        opt={PERMISSION: "account.manage", ABOUT: WHOLE},
        sync_to_thread=True,
    )
    def edit(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[AccountChange]
    ) -> AccountFacts:
        """Change an account's role, disable or enable it."""
        return desk.accounts.edit_account(
            name,
            request.user,
            desk.now,
            role=data.role,
            grants=data.grants,
            disabled=data.disabled,
            person=data.person,
        )

    @post(
        "/accounts/{name:str}/reset",
        opt={PERMISSION: "account.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=200,
    )
    def reset(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> MadeAccount:
        """Give an account a new password, and end its sessions."""
        password = desk.accounts.reset_password(name, request.user, desk.now)
        return MadeAccount(name=name, password=password)

    @post(
        "/accounts/{name:str}/reset-second-factor",
        opt={PERMISSION: "account.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=200,
    )
    def reset_second_factor(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> AccountFacts:
        """Take away somebody's second factor, who lost it, and end their sessions."""
        desk.accounts.reset_second_factor(name, request.user, desk.now)
        return desk.accounts.account_of(name)

    @post(
        "/accounts/{name:str}/ticket",
        opt={PERMISSION: "account.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=201,
    )
    def ticket(
        self, request: ApiRequest, desk: DeskDep, name: Name, data: JSONBody[Because]
    ) -> Ticket:
        """Make a one-time sign-in link for an account, good for an hour."""
        ticket = desk.accounts.sign_in_link_ticket(name, desk.now, actor=request.user)
        path = f"/sign-in/ticket?t={ticket}"
        base = desk.services.settings.external_url.rstrip("/")
        return Ticket(name=name, ticket=ticket, path=path, url=f"{base}{path}" if base else "")


class TokenRoutes(Controller):
    """API tokens."""

    path = "/tokens"
    tags = ("people",)

    @get("/", opt={PERMISSION: "token.manage", ABOUT: LISTED}, sync_to_thread=True)
    def list_tokens(self, request: ApiRequest, desk: DeskDep) -> Tokens:
        """List API tokens, without their secrets: everybody's, or the caller's own."""
        return Tokens(items=desk.accounts.tokens(request.user))

    @post(
        "/", opt={PERMISSION: "token.manage", ABOUT: LISTED}, sync_to_thread=True, status_code=201
    )
    def create(self, request: ApiRequest, desk: DeskDep, data: JSONBody[NewToken]) -> MadeToken:
        """Make an API token. Its text is in the answer, and nowhere else."""
        expires = desk.now + data.expires_in_s if data.expires_in_s is not None else None
        facts, token = desk.accounts.create_token(
            data.name,
            data.role,
            request.user,
            desk.now,
            expires_at=expires,
            grants=data.grants,
            addresses=data.addresses,
        )
        return MadeToken(name=data.name, token=token, facts=facts)

    @delete("/{name:str}", opt={PERMISSION: "token.manage", ABOUT: LISTED}, sync_to_thread=True)
    def revoke(self, request: ApiRequest, desk: DeskDep, name: Name) -> None:
        """End an API token."""
        desk.accounts.revoke_token(name, request.user, desk.now)


class SessionRoutes(Controller):
    """Sessions of people: everybody's for who manages accounts, and the caller's own."""

    tags = ("people",)

    @get("/sessions", opt={PERMISSION: "account.manage", ABOUT: WHOLE}, sync_to_thread=True)
    def list_sessions(self, desk: DeskDep, account: Text = "") -> SessionList:
        """List sessions, the newest first; of one account, where it is named."""
        return SessionList(items=desk.accounts.sessions(desk.now, of=account))

    @delete(
        "/sessions/{name:str}",
        opt={PERMISSION: "account.manage", ABOUT: WHOLE},
        sync_to_thread=True,
    )
    def end(self, request: ApiRequest, desk: DeskDep, name: Name) -> None:
        """End a session by its id."""
        desk.accounts.end_session(name, request.user, desk.now)

    @get("/me/sessions", opt={PERMISSION: ANYBODY}, sync_to_thread=True)
    def list_own(self, request: ApiRequest, desk: DeskDep) -> SessionList:
        """List the caller's own sessions."""
        name = request.user.owner or request.user.name
        present = request.cookies.get(COOKIE, "")
        return SessionList(items=desk.accounts.sessions(desk.now, of=name, present=present))

    @delete("/me/sessions/{name:str}", opt={PERMISSION: ANYBODY}, sync_to_thread=True)
    def end_own(self, request: ApiRequest, desk: DeskDep, name: Name) -> None:
        """End one of the caller's own sessions."""
        of = request.user.owner or request.user.name
        desk.accounts.end_session(name, request.user, desk.now, of=of)


class ConsentRoutes(Controller):
    """What waits for a second person before an account is made, widened or taken over."""

    path = "/consents"
    tags = ("people",)

    @get("/", opt={PERMISSION: "account.manage", ABOUT: WHOLE}, sync_to_thread=True)
    def list_consents(self, desk: DeskDep) -> ConsentList:
        """List requests that are open, or approved and not used yet."""
        return ConsentList(items=desk.accounts.consents(desk.now))

    @post(
        "/{number:int}/approve",
        opt={PERMISSION: "account.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=200,
    )
    def approve(
        self, request: ApiRequest, desk: DeskDep, number: Number, data: JSONBody[Decision]
    ) -> ConsentFacts:
        """Consent to a request of somebody else; they do the same act again then."""
        return desk.accounts.consent(number, request.user, desk.now, approve=True)

    @post(
        "/{number:int}/decline",
        opt={PERMISSION: "account.manage", ABOUT: WHOLE},
        sync_to_thread=True,
        status_code=200,
    )
    def decline(
        self, request: ApiRequest, desk: DeskDep, number: Number, data: JSONBody[Decision]
    ) -> ConsentFacts:
        """Decline a request."""
        return desk.accounts.consent(number, request.user, desk.now, approve=False)


class ApprovalRoutes(Controller):
    """The inbox: what waits for a second person."""

    path = "/approvals"
    tags = ("approvals",)

    @get("/", opt={PERMISSION: "fleet.read", ABOUT: LISTED}, sync_to_thread=True)
    def list_requests(
        self, request: ApiRequest, desk: DeskDep, in_state: InState = "open"
    ) -> Requests:
        """List requests, newest first; `state` empty = all."""
        sight = request.user.sight

        def work(conn: Connection) -> list[RequestFacts]:
            found = approvals.listed(conn, state=in_state)
            return [one for one in found if scopes.sees_rollout(conn, sight, one.rollout)]

        return Requests(items=desk.read(work), single_operator=desk.read(approvals.is_single))

    @get("/{number:int}", opt={PERMISSION: "fleet.read", ABOUT: "approval"}, sync_to_thread=True)
    def show(self, desk: DeskDep, number: Number) -> RequestFacts:
        """Return a request."""
        return desk.read(lambda conn: approvals.show(conn, number))

    @post(
        "/{number:int}/approve",
        opt={PERMISSION: "rollout.approve", ABOUT: "approval"},
        sync_to_thread=True,
        status_code=200,
    )
    def approve(
        self, request: ApiRequest, desk: DeskDep, number: Number, data: JSONBody[Decision]
    ) -> Outcome:
        """Approve a request of somebody else; it is carried out at once."""
        return desk.operations.decide(number, request.user, data.reason, desk.now, approve=True)

    @post(
        "/{number:int}/decline",
        opt={PERMISSION: "rollout.approve", ABOUT: "approval"},
        sync_to_thread=True,
        status_code=200,
    )
    def decline(
        self, request: ApiRequest, desk: DeskDep, number: Number, data: JSONBody[Decision]
    ) -> Outcome:
        """Decline a request."""
        return desk.operations.decide(number, request.user, data.reason, desk.now, approve=False)
