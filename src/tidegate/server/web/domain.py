"""The web's commands and accounts over the domain functions: the same calls as the API's, in other words."""

from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from litestar import Router

from tidegate.core.errors import RequestError
from tidegate.rollout.incident import Rhythm
from tidegate.server import advisories, audit, devices, outbox, recalls, releases, scopes
from tidegate.server.acts import Outcome
from tidegate.server.advisories import ImportFacts
from tidegate.server.amendments import Terms
from tidegate.server.auth import Actor
from tidegate.server.auth import Auth as Accounts
from tidegate.server.operations import Operations, single_sign_on_of
from tidegate.server.people.sessions import Origin
from tidegate.server.people.single_sign_on import SingleSignOn
from tidegate.server.reach import Reach
from tidegate.server.scopes import WHOLE
from tidegate.server.services import Services
from tidegate.server.store import Connection, Store
from tidegate.server.store import web_devices as rows
from tidegate.server.web import incident_desk
from tidegate.server.web.reader import Account
from tidegate.server.web.router import create_router
from tidegate.server.web.store_reader import StoreReader
from tidegate.server.web.words import plural
from tidegate.server.why import bounds_of

T = TypeVar("T")
_DEVICE_STATES = {"accept": "accepted", "reject": "rejected"}


def create_web(services: Services, accounts: Accounts, operations: Operations) -> Router:
    """Make the router of the web pages over an opened server."""
    public = services.settings.status_public
    bounds = bounds_of(services.settings)
    reader = StoreReader(
        services.store,
        operations.audiences.count,
        channels=lambda: outbox.channels(services),
        public=public,
        bounds=bounds,
        rhythm=Rhythm(every_s=services.settings.tick_s),
    )
    commands = DomainCommands(services, operations)
    single = single_sign_on_of(services, accounts)
    auth = WebAuth(accounts, services.store, single, local=services.settings.accounts_local)
    return create_router(reader, commands, auth, services.clock)


class WebAuth:
    """Implements `Auth` over the accounts of the server."""

    def __init__(
        self, accounts: Accounts, store: Store, single: SingleSignOn | None, *, local: bool
    ) -> None:
        """Ask these accounts, and this store where things stand; `single`: by a provider; `local`: by a password."""
        self.people = accounts
        self.single = single
        self.local = local
        self._accounts = accounts
        self._store = store

    def account(self, session: str, now: int) -> Account | None:
        """Return who a session token (untrusted) belongs to, or None."""
        actor = self._accounts.actor_of_session(session, now)
        return None if actor is None else Account(actor.name, actor.role, actor.may, actor)

    def check(self, account: Account, permission: str, about: str, name: str, now: int) -> None:
        """Refuse an account that lacks a permission on a thing."""
        self._store.read(
            lambda conn: scopes.check(conn, _actor(account), permission, about, name, now)
        )

    def sign_in(
        self, name: str, password: str, address: str, now: int, *, agent: str = ""
    ) -> str | None:
        """Return a new session token, or None."""
        return self._accounts.sign_in(name, password, address, now, agent=agent)

    def redeem(self, ticket: str, now: int, *, address: str = "", agent: str = "") -> str | None:
        """Exchange a one-time ticket (untrusted)."""
        origin = Origin(address=address, agent=agent)
        return self._accounts.redeem(ticket, now, origin=origin)

    def sign_out(self, session: str, now: int) -> None:
        """End the session."""
        self._accounts.sign_out(session, now)


class DomainCommands:
    """Implements `Commands`. Every call is durable when it returns."""

    def __init__(self, services: Services, operations: Operations) -> None:
        """Act through these."""
        self._services = services
        self._operations = operations

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._services.store.write(work).result()

    def tell_rollout(
        self,
        verb: str,
        name: str,
        account: Account,
        reason: str,
        fields: dict[str, str],
        now: int,
    ) -> str:
        """Act on a rollout; the sentence says what happened."""
        actor = _actor(account)
        if verb == "fallback":
            scope = fields.get("scope", "exposed")
            done = self._operations.fall_back(name, fields.get("to", ""), scope, actor, reason, now)
            return _sentence("Fallback", done.text)
        detail: dict[str, Any] = {
            key: fields[key] for key in ("variant", "ring") if fields.get(key)
        }
        done = self._operations.act(name, verb, actor, reason, now, detail=detail)
        text = _sentence(verb.capitalize(), done.text)
        if done.stopped is None:
            return text
        met = done.stopped
        kept_out = "" if met.kept_out is None else f" {met.kept_out:,} devices are kept out;"
        told = f"{text} Effective now;{kept_out} {met.past_count:,} devices past the point of no return, {met.inert:,} staged and inert."
        return f"{told} Note: {met.doubt}" if met.doubt else told

    def reach(self, policy: dict[str, Any], account: Account, now: int) -> Reach:
        """Say whom a rollout would reach."""
        return self._operations.preview(policy, _actor(account), now)

    def create(
        self, policy: dict[str, Any], account: Account, reason: str, now: int
    ) -> tuple[str, str]:
        """Make a rollout."""
        done = self._operations.create(policy, _actor(account), reason, now)
        return done.name, _sentence("Create", done.text)

    def terms(self, name: str) -> Terms:
        """Return what of a rollout can be changed."""
        return self._operations.terms(name)

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
        """Change parts of a rollout's policy."""
        return self._operations.amend(
            name, parts, _actor(account), reason, now, generation=generation, dry_run=dry_run
        )

    def wider(self, name: str, parts: dict[str, Any]) -> tuple[str, ...]:
        """Say in which ways it becomes wider."""
        return self._operations.wider(name, parts)

    def decide(
        self, request_id: str, account: Account, *, approve: bool, reason: str, now: int
    ) -> str:
        """Approve or decline a request."""
        if not request_id.isascii() or not request_id.isdigit() or len(request_id) > 12:
            raise RequestError("request.not_found", f"no request {request_id[:20]}")
        done = self._operations.decide(
            int(request_id), _actor(account), reason, now, approve=approve
        )
        return _sentence("Approved" if approve else "Declined", done.text)

    def tell_device(
        self, verb: str, device_id: str, account: Account, reason: str, now: int
    ) -> str:
        """Accept, reject, hold or let go a device."""

        def work(conn: Connection) -> None:
            device = rows.device(conn, device_id)
            if device is None:
                raise RequestError("device.unknown", f"no device {device_id[:64]}")
            number = int(device["row"])
            if verb in _DEVICE_STATES:
                if device["state"] != "pending":
                    raise RequestError(
                        "request.conflict", f"{device_id} is {device['state']} already"
                    )
                devices.set_state(conn, number, _DEVICE_STATES[verb], now)
            elif verb == "hold":
                devices.hold(conn, number, account.name, now)
            else:
                devices.unhold(conn, number, now)
            audit.record(conn, now, account.name, f"device.{verb}", device_id, {"reason": reason})

        self._write(work)
        return {
            "accept": f"{device_id} is accepted.",
            "reject": f"{device_id} is rejected.",
            "hold": f"{device_id} is held: it keeps what it runs.",
            "unhold": f"{device_id} may go on.",
        }[verb]

    def recall(self, release: str, account: Account, reason: str, now: int) -> str:
        """Never offer a release again; what is under way with it is halted."""
        actor = _actor(account)
        return (
            self._write(lambda conn: recalls.recall(conn, release, reason, actor, now)).text + "."
        )

    def open_incident(self, account: Account, fields: dict[str, str], now: int) -> tuple[str, str]:
        """Open an incident by hand."""
        actor = _actor(account)

        def work(conn: Connection) -> str:
            about, named = ("rollout", fields["rollout"]) if fields.get("rollout") else (WHOLE, "")
            scopes.check(conn, actor, "incident.write", about, named.strip(), now)
            return incident_desk.open_incident(conn, fields, actor, now)

        name = self._write(work)
        return name, f"{name} is open."

    def tell_incident(
        self, verb: str, name: str, account: Account, fields: dict[str, str], now: int
    ) -> str:
        """Act on an incident."""
        act, actor = incident_desk.VERBS[verb], _actor(account)
        return self._write(lambda conn: act(conn, name, fields, actor, now))

    def try_channel(self, channel: str, account: Account, now: int) -> str:
        """Send a channel a message that says nothing but that it is one."""
        actor, settings = _actor(account), self._services.settings
        self._write(lambda conn: outbox.test(conn, settings, channel, actor, now))
        self._services.wake()
        return f"A test message to {channel} is on its way; what became of it stands below."

    def send_again(self, number: int, account: Account, now: int) -> str:
        """Deliver a message once more, under the same id."""
        done = self._write(lambda conn: outbox.replay(conn, number, _actor(account), now))
        self._services.wake()
        return f"{done.event} goes to {done.channel} once more, under the same id."

    def publish(self, bundle: BinaryIO, account: Account, now: int) -> tuple[str, str]:
        """Publish a bundle (untrusted), checked as a device would."""
        done = releases.accept_bundle(self._services, bundle, actor=_actor(account), now=now)
        if not done.releases and not done.roles:
            raise RequestError(
                "request.conflict", "Everything in this bundle is published already."
            )
        if not done.releases:
            return "", f"Taken in: {', '.join(done.roles)}. It brought no new release."
        name = done.releases[0]
        return name, f"Published {name}. No device is offered it before a rollout."

    def take_advisories(self, body: bytes, account: Account, now: int) -> str:
        """Take in a file of advisories or statements (untrusted)."""
        found = advisories.read(body)

        def work(conn: Connection) -> ImportFacts:
            done = advisories.take(conn, found, account.name, now)
            detail = {"advisories": len(done.advisories), "statements": done.statements}
            audit.record(conn, now, account.name, "advisory.import", found.name[:200], detail)
            return done

        done = self._write(work)
        silenced = f", {done.silenced} of them silenced" if done.silenced else ""
        return f"Took in {found.name[:80]}: {plural(done.findings, 'finding')}{silenced}; {plural(done.devices, 'device')} exposed."


def _actor(account: Account) -> Actor:
    return account.actor or Actor(name=account.name, role=account.role)


def _sentence(verb: str, text: str) -> str:
    said = (
        text if text.lower().startswith(verb.lower()[:4]) else f"{verb}: {text}" if text else verb
    )
    said = said[:1].upper() + said[1:]
    return said if said.endswith(".") else f"{said}."
