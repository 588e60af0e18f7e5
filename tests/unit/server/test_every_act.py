"""Every route of the API that changes something, carried out: it leaves its entry in the log, and without its entry nothing is changed.

Each act is tried with a log that takes nothing in, then with one that takes one entry in, and so on: as long as one is missing, the act must fail, and the
database be as it was. Once it is done, the rows that name its request are held against who asked, what for, and what it was done to. A route that no story
here carries out turns the last test red, as a new one will.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec
import pytest
from litestar import Litestar
from sqlalchemy import select
from tests.unit.core.supply import paper
from tests.unit.server.caller import ask_over, routes
from tests.unit.server.rig import Answer, Rig
from tests.unit.server.test_identity import make_clone
from tests.unit.server.test_releases import _bundle, _lab

from tidegate.core import keys
from tidegate.core.codec import encode
from tidegate.core.keys import Signer
from tidegate.core.protocol import Envelope
from tidegate.server import audit
from tidegate.server.actors import Actor
from tidegate.server.api.app import FORM_HEADER
from tidegate.server.auth import COOKIE
from tidegate.server.config import Webhook
from tidegate.server.operations import auth_of
from tidegate.server.people.register import account_row
from tidegate.server.people.sessions import Origin
from tidegate.server.planning import PLANNER
from tidegate.server.store import Connection
from tidegate.server.store.tables import metadata

ROOT: Final = Actor(name="root", role="admin")
PREFIX: Final = "/api/v1"
#: Routes that leave no entry, and why.
SILENT: Final = {
    "POST /uploads": "room for bytes that nobody believes; taking them in is the act",
    "PATCH /uploads/{name:str}": "bytes that nobody believes",
    "DELETE /uploads/{name:str}": "bytes that nobody believed",
    "POST /uploads/{name:str}/complete": "begins a check beside; what it takes in is recorded as a bundle is",
}
#: Routes that do more than one thing, each of which is told: what may stand there together.
_ON_ITS_WAY: Final = frozenset({"rollout.create", "rollout.start", "approval.ask"})
_STOPPED: Final = frozenset({"incident.open", "rollout.halt", "rollout.isolate"})
_APPROVED: Final = frozenset({"approval.approve", "rollout.start", "rollout.resume"})
SEVERAL: Final[Mapping[str, frozenset[str]]] = {
    "POST /rollouts": _ON_ITS_WAY,
    "POST /rollouts/{name:str}/halt": _STOPPED,
    "POST /rollouts/{name:str}/isolate": _STOPPED,
    "POST /rollouts/{name:str}/approve": _APPROVED,
    "POST /approvals/{number:int}/approve": _APPROVED,
    "POST /incidents/{name:str}/grants/submit": frozenset({"incident.grant", "rollout.fallback"}),
}
#: Routes that answer only over an object store (`tests/e2e/test_uploads.py`), or where tenants are served.
ELSEWHERE: Final = {
    "POST /uploads/{name:str}/links",
    "PATCH /tenants/{name:str}",
    "POST /tenants",
    *(
        f"POST /tenants/{{name:str}}/{verb}"
        for verb in ("purge", "remove", "restore", "resume", "suspend")
    ),
}


class Row(NamedTuple):
    """What an entry says."""

    actor: str
    action: str
    object: str


class Story:
    """A server, and acts on it."""

    #: Routes that leave no entry.
    silent: Mapping[str, str] = SILENT
    #: Routes that may leave several, and which.
    several: Mapping[str, frozenset[str]] = SEVERAL
    #: Columns that are noted beside an act, whether it happens or not.
    beside: frozenset[str] = frozenset({"last_used_at", "last_address", "seen_at"})
    #: Tables where processes tell one another that they are there.
    alive: frozenset[str] = frozenset({"lease", "peer"})

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig, self._monkeypatch = rig, monkeypatch
        self.accounts = auth_of(rig.app.services)
        _, self.token = self.accounts.create_token("t", "admin", ROOT, int(rig.now))
        self.done: set[str] = set()
        self.names: dict[str, str] = {}
        self._number = 0

    def session(self, name: str) -> str:
        """Sign somebody in."""

        def work(conn: Connection) -> str:
            account = account_row(conn, name)
            return self.accounts.open_session(conn, account, "link", Origin(), int(self.rig.now))

        session = str(self.rig.write(work))
        self.names[session] = name
        return session

    def call(
        self, method: str, path: str, body: object = None, who: str = ""
    ) -> tuple[Answer, str]:
        """Call the API as a token, or as somebody by their session; return the answer and the request's name."""
        self._number += 1
        request = f"request-number-{self._number:06}"
        headers = {"content-type": "application/json", "x-request-id": request}
        if who:
            headers |= {"cookie": f"{COOKIE}={who}", FORM_HEADER: "1"}
        else:
            headers["authorization"] = f"Bearer {self.token}"
        raw = body if isinstance(body, bytes) else b"" if body is None else encode(body)
        path, _, query = path.partition("?")
        answer = self.rig.loop.run_until_complete(
            ask_over(self.rig.app, method, PREFIX + path, headers, raw, query.encode())
        )
        return answer, request

    def do(
        self, route: str, body: object = None, *, who: str = "", query: str = "", **names: object
    ) -> Any:
        """Carry out a route, after it was refused its entry; return what it answered."""
        method, path = route.split(" ")
        for name, value in names.items():
            for kind in ("str", "int"):
                path = path.replace(f"{{{name}:{kind}}}", str(value))
        path += f"?{query}" if query else ""
        done, entries = None, 0
        while done is None:
            done = self._try(route, method, path, body, who, entries)
            entries += 1
        answer, request = done
        assert 200 <= answer.status < 400, (route, answer.status, answer.body)
        found = [
            Row(one.actor, one.action, one.object)
            for one in self.rig.read(lambda conn: audit.newest(conn, limit=40))
            if one.request == request
        ]
        self.done.add(route)
        assert bool(found) == (route not in self.silent), (route, found)
        assert len(set(found)) == len(found), (route, "is told twice", found)
        told = {one.action for one in found if one.actor != PLANNER}
        assert len(told) < 2 or told <= self.several.get(route, set()), (route, found)
        asker = self.names.get(who, "token:t")
        assert all(asker in one.actor or one.actor == PLANNER for one in found), (route, found)
        return self.told(answer)

    def told(self, answer: Answer) -> Any:
        """Return what an answer says."""
        return json.loads(answer.body) if answer.body else None

    def _try(
        self, route: str, method: str, path: str, body: object, who: str, entries: int
    ) -> tuple[Answer, str] | None:
        """Act with a log that takes in so many entries and no more. Return what was answered, or None: there was one more, and nothing came of it all."""
        record, before, left = audit.record, self._all(), entries

        def nearly_full(*given: Any, **named: Any) -> str:
            nonlocal left
            left -= 1
            if left < 0:
                raise RuntimeError("the log takes nothing more in")
            return record(*given, **named)

        with self._monkeypatch.context() as broken:
            broken.setattr(audit, "record", nearly_full)
            done = self.call(method, path, body, who)
        if left >= 0:
            assert entries or route in self.silent, (route, "happens without an entry", done[0])
            return done
        assert done[0].status == 500, (route, "happens without an entry", done[0])
        assert self._all() == before, (route, "changed something without an entry")
        return None

    def _all(self) -> dict[str, list[str]]:
        """Return everything that is in the database, but for what is noted beside an act."""

        def work(conn: Connection) -> dict[str, list[str]]:
            return {
                table.name: sorted(
                    repr([row[c.name] for c in table.columns if c.name not in self.beside])
                    for row in conn.execute(select(table)).mappings()
                )
                for table in metadata.sorted_tables
                if table.name not in self.alive
            }

        found: dict[str, list[str]] = self.rig.read(work)
        return found


def _things(story: Story) -> None:
    """Claims, groups, the factory's list, tokens, notifications, advisories."""
    story.rig.publish_trust()
    story.do("POST /claims", {"product": "gw1", "name": "line-4"})
    story.do("POST /claims/{name:str}/revoke", {"reason": "done"}, name="line-4")
    story.do("POST /groups", {"name": "pilot", "query": "site = lab"})
    story.do("PUT /groups/{name:str}", {"query": "site = north"}, name="pilot")
    story.do("DELETE /groups/{name:str}", name="pilot")
    key = Signer.from_seed(b"k" * 32).public
    entry = {"id": "gw-0099", "product": "gw1", "public_key": key.public}
    story.do("POST /preauthorized", {"entries": [entry]})
    listed = story.call("GET", "/preauthorized")[0]
    (one,) = json.loads(listed.body)["items"]
    story.do("DELETE /preauthorized/{key:str}", key=one["key_sha256"])
    story.do("POST /tokens", {"name": "ci", "role": "viewer"})
    story.do("DELETE /tokens/{name:str}", name="ci")
    story.do("POST /notifications/test", {"channel": "ops"})
    story.rig.app.deliver()
    notices = json.loads(story.call("GET", "/notifications")[0].body)["items"]
    story.do("POST /notifications/{number:int}/replay", number=notices[0]["number"])
    told = json.loads(paper.dumps(paper.osv()))
    story.do("POST /advisories", told)
    advisory = json.loads(story.call("GET", "/advisories")[0].body)["items"][0]["number"]
    story.do("POST /advisories/{number:int}/forget", {"reason": "wrong"}, number=advisory)


def _devices(story: Story) -> None:
    rig, why = story.rig, {"reason": "because"}
    rig.publish_trust()
    rig.device("d1")
    at = "/devices/{name:str}"
    story.do(f"PUT {at}/tags", {"tags": ["lab"]}, name="d1")
    for verb in ("hold", "unhold"):
        story.do(f"POST {at}/{verb}", why, name="d1")
    story.do(f"POST {at}/rekey", why, name="d1")
    print_ = {"fingerprint": "0123456789abcdef", "reason": "new board"}
    story.do(f"POST {at}/swap", print_, name="d1")
    for name in ("d2", "d3"):
        assert rig.device(name, join=False).enrol(None).status == 200
    story.do(f"POST {at}/accept", why, name="d2")
    story.do(f"POST {at}/reject", why, name="d3")
    story.do(f"POST {at}/revoke", why, name="d2")
    story.do(f"POST {at}/decommission", why, name="d2")
    odd = rig.device("d4")
    odd.previous = ""
    make_clone(rig, odd)
    story.do(f"POST {at}/clear", why, name="d4")
    order = {"act": "tag", "devices": ["d1"], "tags": ["late"], "confirm": 1}
    job = story.do("POST /jobs", order)
    story.do("POST /jobs/{number:int}/cancel", why, number=job["number"])


def _rollouts(story: Story) -> None:
    rig, why = story.rig, {"reason": "because"}
    rig.publish_trust()
    at = "/rollouts/{name:str}"
    first = {"name": "one", "gates": [{"type": "soak", "time": "1h"}]}
    policy: dict[str, Any] = {"preset": "lab", "ring": [first, {"name": "two"}]}
    device = rig.device("r1")
    rig.release(1)
    story.do("POST /rollouts", {**policy, "release": "gw1-1.1.0", "draft": True, **why})
    story.do(
        f"PUT {at}",
        {**policy, "release": "gw1-1.1.0", "draft": True, "priority": 2, "reason": "more"},
        name="gw1-1.1.0",
    )
    story.do(f"POST {at}/start", why, name="gw1-1.1.0")
    for verb in ("pause", "resume"):
        story.do(f"POST {at}/{verb}", why, name="gw1-1.1.0")
    for verb in ("isolate", "readmit"):
        story.do(f"POST {at}/{verb}", {**why, "variant": "gw1-r3"}, name="gw1-1.1.0")
    story.do(f"PATCH {at}", {"flow": {"in_flight": 50}, **why}, name="gw1-1.1.0")
    story.do(f"POST {at}/advance", why, name="gw1-1.1.0")
    device.run(device.assignment())
    device.assignment()
    rig.release(2, fallback_to=(1,))
    ahead = {**policy, "ring": [{"name": "one"}], "delivery": {"level": "prefetch"}}
    story.do("POST /rollouts", {**ahead, "release": "gw1-1.2.0", **why})
    story.do(f"POST {at}/activate", why, name="gw1-1.2.0")
    device.run(device.assignment())
    device.assignment()
    story.do(f"POST {at}/halt", why, name="gw1-1.2.0")
    story.do(f"POST {at}/fallback", why, name="gw1-1.2.0")
    rig.release(3)
    story.do("POST /rollouts", {**policy, "release": "gw1-1.3.0", "draft": True, **why})
    story.do(f"POST {at}/cancel", why, name="gw1-1.3.0")
    story.do("POST /releases/{name:str}/recall", why, name="gw1-1.2.0")


def _incidents(story: Story) -> None:
    why, at = {"reason": "because"}, "/incidents/{name:str}"
    name = story.do("POST /incidents", {"summary": "modems do not register"})["name"]
    story.do(f"POST {at}/edit", {"owner": "olga"}, name=name)
    story.do(f"POST {at}/notes", {"kind": "action", "text": "the contract asks more"}, name=name)
    story.do(f"POST {at}/followups", {"text": "test with the old modem"}, name=name)
    told = json.loads(story.call("GET", f"/incidents/{name}")[0].body)
    number = told["followups"][0]["number"]
    story.do(
        f"POST {at}/followups/{{number:int}}/edit", {"owner": "olga"}, name=name, number=number
    )
    story.do(f"POST {at}/followups/{{number:int}}/done", name=name, number=number)
    story.do(f"POST {at}/mitigate", why, name=name)
    story.do(f"POST {at}/reopen", why, name=name)
    story.do(f"POST {at}/publish", {"summary": "Some modems did not register."}, name=name)
    story.do(f"POST {at}/publish/update", {"text": "They do again."}, name=name)
    story.do(f"POST {at}/unpublish", why, name=name)
    story.do(f"POST {at}/close", why, name=name)


def _granted(story: Story) -> None:
    """A way back that no release allowed: drafted, signed offline, handed in."""
    rig, why = story.rig, {"reason": "because"}
    rig.publish_trust()
    device = rig.device("g1")
    policy: dict[str, Any] = {"preset": "lab", "ring": [{"name": "all"}]}
    for counter in (11, 12, 13):
        rig.release(counter)
        story.call("POST", "/rollouts", {**policy, "release": f"gw1-1.{counter}.0", **why})
        device.run(device.assignment())
        device.assignment()
    halted = json.loads(story.call("POST", "/rollouts/gw1-1.13.0/halt", why)[0].body)
    incident, at = halted["stopped"]["incident"], "/incidents/{name:str}/grants"
    drafted = story.do(f"POST {at}", {"to": "gw1-1.11.0", **why}, name=incident)
    envelope = msgspec.convert(drafted["envelope"], Envelope)
    signed = keys.add_signature(envelope, rig.signer("incident"))
    story.do(f"POST {at}/submit", {"envelope": signed, **why}, name=incident)


def _trust(story: Story) -> None:
    story.rig.publish_trust()
    for route, body in zip(
        ("POST /root", "POST /targets"), story.rig.signed_trust(version=2), strict=True
    ):
        story.do(route, body)


def _bundles(story: Story) -> None:
    """A release that is signed offline and handed in, in one piece and in parts."""
    rig = story.rig
    lab = _lab(rig, rig.folder / "lab")
    story.do("POST /bundles", _bundle(rig, lab, 1).read_bytes())
    whole = _bundle(rig, lab, 2).read_bytes()
    asked = {"sha256": hashlib.sha256(whole).hexdigest(), "length": len(whole)}
    name = story.do("POST /uploads", asked)["id"]
    story.do("PATCH /uploads/{name:str}", whole, name=name, query="offset=0")
    story.do("POST /uploads/{name:str}/complete", {}, name=name)
    for one in threading.enumerate():
        if one.name == "upload":
            one.join(60)
    newest = story.rig.read(lambda conn: audit.newest(conn, limit=1))
    assert [(one.actor, one.action, one.object) for one in newest] == [
        ("token:t", "release.publish", "gw1-1.2.0")
    ]
    gone = story.do("POST /uploads", {"sha256": "1" * 64, "length": 9})["id"]
    story.do("DELETE /uploads/{name:str}", name=gone)


def _people(story: Story) -> None:
    at = "/accounts/{name:str}"
    story.do("POST /accounts", {"name": "olga", "role": "owner"})
    olga = story.session("olga")
    consent, pia = "POST /consents/{number:int}", {"name": "pia", "role": "owner"}
    assert story.call("POST", "/accounts", pia)[0].code == "request.approval_needed"
    story.do(f"{consent}/approve", {"reason": "read"}, who=olga, number=1)
    story.do("POST /accounts", pia)
    assert story.call("POST", "/accounts", {**pia, "name": "quinn"})[0].status == 409
    story.do(f"{consent}/decline", {"reason": "who?"}, who=olga, number=2)
    story.do(f"PATCH {at}", {"role": "viewer"}, name="pia")
    for verb in ("reset", "reset-second-factor", "ticket"):
        story.do(f"POST {at}/{verb}", {}, name="pia")
    for whose, route, who in (("pia", "/sessions", ""), ("olga", "/me/sessions", olga)):
        story.session(whose)
        found = json.loads(story.call("GET", route, who=who)[0].body)["items"]
        one = next(it for it in found if it["account"] == whose and not it["present"])
        story.do(f"DELETE {route}/{{name:str}}", who=who, name=one["id"])


def _approvals(story: Story) -> None:
    rig, why = story.rig, {"reason": "because"}
    rig.publish_trust()
    rig.device("a1")
    story.do("POST /accounts", {"name": "olga", "role": "owner"})
    olga = story.session("olga")
    policy: dict[str, Any] = {"preset": "lab", "ring": [{"name": "all"}]}
    for counter, verb in ((1, "decline"), (2, "approve")):
        rig.release(counter)
        asked = {**policy, "release": f"gw1-1.{counter}.0", **why}
        number = story.do("POST /rollouts", asked)["request"]
        story.do(f"POST /approvals/{{number:int}}/{verb}", why, who=olga, number=number)
    story.call("POST", "/rollouts/gw1-1.2.0/halt", why)
    story.call("POST", "/rollouts/gw1-1.2.0/resume", why)
    story.do("POST /rollouts/{name:str}/approve", why, who=olga, name="gw1-1.2.0")


S = TypeVar("S", bound=Story)
STORIES: Final[tuple[Callable[[Story], None], ...]] = (
    _things, _devices, _rollouts, _incidents, _granted, _trust, _bundles, _people, _approvals,
)  # fmt: skip


def told(
    stories: Sequence[Callable[[S], None]],
    kind: Callable[[Rig, pytest.MonkeyPatch], S],
    asked: Callable[[Any], set[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[set[str], set[str]]:
    """Tell every story to a server of its own. Return what was done in them, and what `asked` finds in a server."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    hook = Webhook(name="ops", url="http://127.0.0.1:9/", secret_file=str(secret))
    more = {"webhooks": (hook,), "enrol": ("claim", "approval"), "status_public": True}
    done: set[str] = set()
    found: set[str] = set()
    for tell in stories:
        rig = Rig(tmp_path / tell.__name__, more=more)
        try:
            story = kind(rig, monkeypatch)
            tell(story)
            assert rig.read(audit.verify).ok
            done |= story.done
            found = asked(rig.app)
        finally:
            rig.close()
    return done, found


def _acts(app: Any) -> set[str]:
    """Return every route of the API that is not read."""
    return {
        f"{one.method} {one.path.removeprefix(PREFIX)}"
        for one in routes(cast("Litestar", getattr(app.admin, "inner", app.admin)), PREFIX)
        if one.method != "GET"
    }


@pytest.mark.timeout(900)
def test_every_act_has_its_entry_and_without_it_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, found = told(STORIES, Story, _acts, tmp_path, monkeypatch)
    assert found - done == ELSEWHERE
    assert done <= found
