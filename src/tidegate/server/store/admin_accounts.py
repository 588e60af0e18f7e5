"""Statements about accounts, logins and API tokens. No decision is made here."""

from typing import Any

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from tidegate.server.store import tables as t
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]


def accounts(conn: Connection) -> list[Row]:
    """Return every account, by name."""
    return [
        dict(row) for row in conn.execute(select(t.account).order_by(t.account.c.name)).mappings()
    ]


def account(conn: Connection, name: str) -> Row | None:
    """Return an account by name."""
    asked = select(t.account).where(t.account.c.tenant == tenant_of(conn), t.account.c.name == name)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def account_by_id(conn: Connection, account_id: int) -> Row | None:
    """Return an account by its row."""
    row = conn.execute(select(t.account).where(t.account.c.id == account_id)).mappings().first()
    return dict(row) if row else None


def add_account(conn: Connection, row: Row) -> int:
    """Add an account and return its row number."""
    done = conn.execute(insert(t.account).values(**row).returning(t.account.c.id))
    return int(done.scalar_one())


def change_account(conn: Connection, name: str, values: Row) -> bool:
    """Change an account; say whether there is one."""
    done = conn.execute(update(t.account).where(t.account.c.name == name).values(**values))
    return done.rowcount > 0


def account_count(conn: Connection) -> int:
    """Return how many accounts there are."""
    return int(conn.execute(select(func.count()).select_from(t.account)).scalar_one())


def people_with(conn: Connection, roles: frozenset[str]) -> list[str]:
    """Return names of enabled accounts that hold any of these roles in everything."""
    asked = (
        select(t.account.c.name, t.account.c.role, t.account.c.grants)
        .where(t.account.c.disabled_at.is_(None))
        .order_by(t.account.c.name)
    )
    return [
        str(name)
        for name, role, grants in conn.execute(asked)
        if role in roles or (role == "granted" and roles & set(grants or ()))
    ]


def names_of_person(conn: Connection, person: str) -> list[str]:
    """Return names of the accounts of a person: the one of that name, and those that say so."""
    asked = select(t.account.c.name).where(
        t.account.c.tenant == tenant_of(conn),
        or_(t.account.c.person == person, t.account.c.name == person),
    )
    return [str(name) for name in conn.execute(asked.order_by(t.account.c.name)).scalars()]


def account_of_subject(conn: Connection, issuer: str, subject: str) -> Row | None:
    """Return the account that an issuer signs in as this subject."""
    asked = select(t.account).where(
        t.account.c.tenant == tenant_of(conn),
        t.account.c.issuer == issuer,
        t.account.c.subject == subject,
    )
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def add_login(conn: Connection, row: Row) -> None:
    """Add a login session or one-time ticket by the digest of its token."""
    conn.execute(insert(t.login).values(**row))


def login(conn: Connection, token_sha256: str) -> Row | None:
    """Return a login with its account."""
    asked = (
        select(
            t.login,
            t.account.c.name,
            t.account.c.role,
            t.account.c.grants,
            t.account.c.person,
            t.account.c.disabled_at,
        )
        .join(t.account, t.account.c.id == t.login.c.account_id)
        .where(t.login.c.token_sha256 == token_sha256)
    )
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def drop_login(conn: Connection, token_sha256: str) -> bool:
    """End a login; say whether there was one."""
    done = conn.execute(delete(t.login).where(t.login.c.token_sha256 == token_sha256))
    return done.rowcount > 0


def sessions(conn: Connection, now: int, name: str = "") -> list[Row]:
    """Return sessions that run, with their accounts' names, newest first; of one account, where it is named."""
    asked = (
        select(t.login, t.account.c.name)
        .join(t.account, t.account.c.id == t.login.c.account_id)
        .where(t.login.c.kind.in_(("session", "enrol")), t.login.c.expires_at > now)
        .order_by(t.login.c.created_at.desc(), t.login.c.token_sha256)
    )
    if name:
        asked = asked.where(t.account.c.name == name)
    return [dict(row) for row in conn.execute(asked).mappings()]


def change_login(conn: Connection, token_sha256: str, values: Row) -> bool:
    """Change a login; say whether there is one."""
    changed = update(t.login).where(t.login.c.token_sha256 == token_sha256).values(**values)
    return conn.execute(changed).rowcount > 0


def drop_logins_of(conn: Connection, account_id: int, *, but: str = "") -> None:
    """End every login of an account, but for the one of this digest."""
    conn.execute(
        delete(t.login).where(t.login.c.account_id == account_id, t.login.c.token_sha256 != but)
    )


def add_flow(conn: Connection, row: Row) -> None:
    """Put down a sign-in that goes to a provider."""
    conn.execute(insert(t.sign_in_flow).values(**row))


def take_flow(conn: Connection, state_sha256: str) -> Row | None:
    """Take a sign-in that comes back from a provider: it is there once."""
    asked = select(t.sign_in_flow).where(t.sign_in_flow.c.state_sha256 == state_sha256)
    row = conn.execute(asked).mappings().first()
    gone = delete(t.sign_in_flow).where(t.sign_in_flow.c.state_sha256 == state_sha256)
    return dict(row) if row is not None and conn.execute(gone).rowcount else None


def drop_stale_flows(conn: Connection, now: int) -> None:
    """Forget sign-ins that did not come back in time."""
    conn.execute(delete(t.sign_in_flow).where(t.sign_in_flow.c.expires_at < now))


def drop_stale_logins(conn: Connection, now: int) -> None:
    """Forget logins that have run out."""
    conn.execute(delete(t.login).where(t.login.c.expires_at < now))


def tokens(conn: Connection) -> list[Row]:
    """Return every API token, newest last."""
    return [
        dict(row) for row in conn.execute(select(t.api_token).order_by(t.api_token.c.id)).mappings()
    ]


def token(conn: Connection, token_sha256: str) -> Row | None:
    """Return an API token by its digest."""
    asked = select(t.api_token).where(t.api_token.c.token_sha256 == token_sha256)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def live_token_named(conn: Connection, name: str) -> Row | None:
    """Return the token of that name that is not revoked."""
    asked = select(t.api_token).where(
        t.api_token.c.name == name, t.api_token.c.revoked_at.is_(None)
    )
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def add_token(conn: Connection, row: Row) -> int:
    """Add an API token and return its row number."""
    done = conn.execute(insert(t.api_token).values(**row).returning(t.api_token.c.id))
    return int(done.scalar_one())


def change_token(conn: Connection, token_id: int, values: Row) -> None:
    """Change an API token."""
    conn.execute(update(t.api_token).where(t.api_token.c.id == token_id).values(**values))


def add_consent(conn: Connection, row: Row) -> int:
    """Put down a request for consent and return its number."""
    made = insert(t.account_request).values(**row).returning(t.account_request.c.id)
    return int(conn.execute(made).scalar_one())


def consent(conn: Connection, number: int) -> Row | None:
    """Return a request for consent."""
    asked = select(t.account_request).where(t.account_request.c.id == number)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def consents(conn: Connection, now: int) -> list[Row]:
    """Return the newest requests for consent that have not run out, newest first."""
    asked = (
        select(t.account_request)
        .where(t.account_request.c.expires_at > now)
        .order_by(t.account_request.c.id.desc())
        .limit(200)
    )
    return [dict(row) for row in conn.execute(asked).mappings()]


def settle_consent(conn: Connection, number: int, state: str, values: Row) -> bool:
    """Change a request that is in a state; False when it is in another one."""
    changed = (
        update(t.account_request)
        .where(t.account_request.c.id == number, t.account_request.c.state == state)
        .values(**values)
    )
    return conn.execute(changed).rowcount > 0
