"""Statements about accounts, logins and API tokens. No decision is made here."""

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from tidegate.server.store import tables as t

Row = dict[str, Any]
_TENANT = "default"


def accounts(conn: Connection) -> list[Row]:
    """Return every account, by name."""
    return [
        dict(row) for row in conn.execute(select(t.account).order_by(t.account.c.name)).mappings()
    ]


def account(conn: Connection, name: str) -> Row | None:
    """Return an account by name."""
    asked = select(t.account).where(t.account.c.tenant == _TENANT, t.account.c.name == name)
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def account_by_id(conn: Connection, account_id: int) -> Row | None:
    """Return an account by its row."""
    row = conn.execute(select(t.account).where(t.account.c.id == account_id)).mappings().first()
    return dict(row) if row else None


def add_account(conn: Connection, row: Row) -> int:
    """Add an account and return its row number."""
    done = conn.execute(insert(t.account).values(tenant=_TENANT, **row).returning(t.account.c.id))
    return int(done.scalar_one())


def change_account(conn: Connection, name: str, values: Row) -> bool:
    """Change an account; say whether there is one."""
    done = conn.execute(update(t.account).where(t.account.c.name == name).values(**values))
    return done.rowcount > 0


def account_count(conn: Connection) -> int:
    """Return how many accounts there are."""
    return int(conn.execute(select(func.count()).select_from(t.account)).scalar_one())


def people_with(conn: Connection, roles: frozenset[str]) -> list[str]:
    """Return names of enabled accounts in any of these roles."""
    asked = (
        select(t.account.c.name)
        .where(t.account.c.disabled_at.is_(None), t.account.c.role.in_(sorted(roles)))
        .order_by(t.account.c.name)
    )
    return [str(name) for name in conn.execute(asked).scalars()]


def add_login(conn: Connection, row: Row) -> None:
    """Add a login session or one-time ticket by the digest of its token."""
    conn.execute(insert(t.login).values(tenant=_TENANT, **row))


def login(conn: Connection, token_sha256: str) -> Row | None:
    """Return a login with its account."""
    asked = (
        select(t.login, t.account.c.name, t.account.c.role, t.account.c.disabled_at)
        .join(t.account, t.account.c.id == t.login.c.account_id)
        .where(t.login.c.token_sha256 == token_sha256)
    )
    row = conn.execute(asked).mappings().first()
    return dict(row) if row else None


def drop_login(conn: Connection, token_sha256: str) -> bool:
    """End a login; say whether there was one."""
    done = conn.execute(delete(t.login).where(t.login.c.token_sha256 == token_sha256))
    return done.rowcount > 0


def drop_logins_of(conn: Connection, account_id: int) -> None:
    """End every login of an account."""
    conn.execute(delete(t.login).where(t.login.c.account_id == account_id))


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
    done = conn.execute(
        insert(t.api_token).values(tenant=_TENANT, **row).returning(t.api_token.c.id)
    )
    return int(done.scalar_one())


def change_token(conn: Connection, token_id: int, values: Row) -> None:
    """Change an API token."""
    conn.execute(update(t.api_token).where(t.api_token.c.id == token_id).values(**values))
