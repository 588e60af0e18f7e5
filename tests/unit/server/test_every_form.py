"""Every form of the pages, carried out as `test_every_act` does with the API: it leaves its entry in the log, and without its entry nothing is changed.

Whatever a browser may send that is not a GET is looked for in the route table: a form that no story here carries out turns the test red, as a new one will.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast
from urllib.parse import urlencode

import pytest
from litestar import Litestar
from tests.unit.core.supply import paper
from tests.unit.server.caller import ask_over, routes
from tests.unit.server.rig import Answer, Rig
from tests.unit.server.test_every_act import ROOT, SEVERAL, Story, told
from tests.unit.server.test_releases import _bundle, _lab

from tidegate.server.auth import COOKIE
from tidegate.server.people.totp import STEP_S, code_at
from tidegate.server.web import guard
from tidegate.server.web.people import OWN_VERBS

PASSWORD: Final = "correct horse battery"
WHY: Final = {"reason": "because"}
_SEAM: Final = "seam-of-a-form"


class Desk(Story):
    """A server, and a person at its pages."""

    #: When somebody's password was last seen to fit.
    beside = Story.beside | {"proved_at"}
    #: Guesses are counted whatever comes of them.
    alive = Story.alive | {"tried"}
    silent: Mapping[str, str] = MappingProxyType({})
    several = dict(SEVERAL) | {
        "POST /requests/{name:str}/approve": SEVERAL["POST /approvals/{number:int}/approve"],
        "POST /people": frozenset({"account.create", "account.ticket"}),
    }

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(rig, monkeypatch)
        self.cookie: dict[str, str] = {}
        self.olga = self.person("olga")

    def person(self, name: str) -> str:
        """Give somebody an account, and sign them in."""
        self.accounts.create_account(name, "owner", PASSWORD, ROOT, int(self.rig.now))
        return self.session(name)

    def call(
        self, method: str, path: str, body: object = None, who: str = ""
    ) -> tuple[Answer, str]:
        """Send a form as somebody by their session (olga's unless told), and return the answer and the request's name; a path of the API is called by token."""
        if path.startswith("/api/v1/"):
            return super().call(method, path.removeprefix("/api/v1"), body, who)
        self._number += 1
        request = f"request-number-{self._number:06}"
        session = who or self.olga
        fields = {"csrf": guard.form_token(session)} | cast("dict[str, Any]", body or {})
        kind, raw = "application/x-www-form-urlencoded", urlencode(fields).encode()
        if any(isinstance(one, bytes) for one in fields.values()):
            kind, raw = f"multipart/form-data; boundary={_SEAM}", _in_parts(fields)
        cookies = {COOKIE: session} | self.cookie
        headers = {
            "content-type": kind,
            "cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
            "x-request-id": request,
        }
        answer = self.rig.loop.run_until_complete(
            ask_over(self.rig.app, method, path, headers, raw, b"")
        )
        return answer, request

    def told(self, answer: Answer) -> str:
        """Return the page, or where a form led to."""
        return answer.headers.get("location", "") or answer.body.decode()

    def do(
        self, route: str, body: object = None, *, who: str = "", query: str = "", **names: object
    ) -> Any:
        """Carry out a form."""
        return super().do(f"POST {route}", body, who=who or self.olga, query=query, **names)

    def look(self, path: str) -> Any:
        """Ask the API what there is."""
        return json.loads(self.call("GET", f"/api/v1{path}")[0].body)


def _in_parts(fields: dict[str, Any]) -> bytes:
    out = b""
    for name, value in fields.items():
        given = value if isinstance(value, bytes) else str(value).encode()
        file = '; filename="file"' if isinstance(value, bytes) else ""
        head = f'--{_SEAM}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        out += head.encode() + given + b"\r\n"
    return out + f"--{_SEAM}--\r\n".encode()


def _devices(desk: Desk) -> None:
    rig, at = desk.rig, "/devices/{name:str}"
    rig.publish_trust()
    for name in ("d1", "d2"):
        assert rig.device(name, join=False).enrol(None).status == 200
    desk.do(f"{at}/accept", WHY, name="d1")
    desk.do(f"{at}/reject", WHY, name="d2")
    for verb in ("hold", "unhold"):
        desk.do(f"{at}/{verb}", WHY, name="d1")


def _rollouts(desk: Desk) -> None:
    rig, at = desk.rig, "/rollouts/{name:str}"
    rig.publish_trust()
    device = rig.device("r1")
    rig.release(1)
    desk.do("/rollouts", {"release": "gw1-1.1.0", "preset": "lab", "draft": "1", **WHY})
    for verb, more in (
        ("start", {}), ("pause", {}), ("resume", {}),
        ("isolate", {"variant": "gw1-r3"}), ("readmit", {"variant": "gw1-r3"}),
    ):  # fmt: skip
        desk.do(f"{at}/{verb}", {**WHY, **more}, name="gw1-1.1.0")
    generation = desk.look("/rollouts/gw1-1.1.0")["generation"]
    edit = {"in_flight": "50", "generation": str(generation), **WHY}
    desk.do(f"{at}/edit", edit, name="gw1-1.1.0")
    desk.do(f"{at}/advance", WHY, name="gw1-1.1.0")
    device.run(device.assignment())
    device.assignment()
    rig.release(2, fallback_to=(1,))
    ahead = {"release": "gw1-1.2.0", "preset": "lab", "level": "prefetch", **WHY}
    desk.do("/rollouts", ahead)
    desk.do(f"{at}/activate", WHY, name="gw1-1.2.0")
    for _ in ("pilot", "fleet"):
        desk.call("POST", "/rollouts/gw1-1.2.0/advance", WHY)
    device.run(device.assignment())
    device.assignment()
    desk.do(f"{at}/halt", {}, name="gw1-1.2.0")
    desk.do(f"{at}/fallback", WHY, name="gw1-1.2.0")
    rig.release(3)
    desk.do("/rollouts", {"release": "gw1-1.3.0", "preset": "lab", "draft": "1", **WHY})
    desk.do(f"{at}/cancel", WHY, name="gw1-1.3.0")
    desk.do("/releases/{name:str}/recall", WHY, name="gw1-1.2.0")


def _requests(desk: Desk) -> None:
    rig = desk.rig
    rig.publish_trust()
    rig.device("a1")
    pia = desk.person("pia")
    for counter, verb in ((1, "decline"), (2, "approve")):
        rig.release(counter)
        desk.do("/rollouts", {"release": f"gw1-1.{counter}.0", "preset": "lab", **WHY})
        (asked,) = desk.look("/approvals")["items"]
        desk.do(f"/requests/{{name:str}}/{verb}", WHY, who=pia, name=asked["id"])


def _incidents(desk: Desk) -> None:
    at = "/incidents/{name:str}"
    told = desk.do("/incidents", {"summary": "modems do not register"})
    name = told.rpartition("/")[2]
    desk.do(f"{at}/edit", {"owner": "olga"}, name=name)
    desk.do(f"{at}/note", {"kind": "action", "text": "the contract asks more"}, name=name)
    desk.do(f"{at}/followup", {"text": "test with the old modem"}, name=name)
    number = desk.look(f"/incidents/{name}")["followups"][0]["number"]
    late = {"number": str(number), "owner": "pia", "due": "2027-12-24", **WHY}
    desk.do(f"{at}/followup-edit", late, name=name)
    desk.do(f"{at}/done", {"number": str(number)}, name=name)
    desk.do(f"{at}/mitigate", WHY, name=name)
    desk.do(f"{at}/reopen", WHY, name=name)
    desk.do(f"{at}/publish", {"summary": "Some modems did not register."}, name=name)
    desk.do(f"{at}/update", {"text": "They do again."}, name=name)
    desk.do(f"{at}/unpublish", WHY, name=name)
    desk.do(f"{at}/close", WHY, name=name)


def _files(desk: Desk) -> None:
    """A release that was signed offline, and advisories."""
    rig = desk.rig
    lab = _lab(rig, rig.folder / "lab")
    desk.do("/releases", {"bundle": _bundle(rig, lab, 1).read_bytes()})
    desk.do("/advisories", {"file": paper.dumps(paper.osv())})


def _people(desk: Desk) -> None:
    at = "/people/{name:str}"
    pia = desk.person("pia")
    quinn = {"name": "quinn", "grants": "owner"}
    for number, verb in ((1, "decline"), (2, "approve")):
        assert desk.call("POST", "/people", quinn)[0].status == 409
        desk.do(f"/consents/{{number:int}}/{verb}", who=pia, number=number)
    desk.do("/people", quinn)
    desk.do("/people", {"name": "vera", "grants": "viewer"})
    desk.do(f"{at}/edit", {"grants": "viewer@product:gw1"}, name="vera")
    for verb in ("link", "reset-second-factor", "end-sessions", "disable", "enable"):
        desk.do(f"{at}/{verb}", name="vera")
    desk.session("vera")
    found = desk.look("/sessions")["items"]
    one = next(it["id"] for it in found if it["account"] == "vera")
    desk.do("/people/sessions/{name:str}/end", name=one)
    desk.do("/tokens", {"name": "ci", "grants": "viewer", "days": "30"})
    desk.do("/tokens/{name:str}/revoke", name="ci")


def _own(desk: Desk) -> None:
    """One's own account, and the door."""
    rig, new = desk.rig, "a longer horse battery"
    desk.do("/account/password", {"old": PASSWORD, "new": new, "again": new})
    desk.do("/account/proof", {"password": new})
    desk.session("olga")
    found = desk.accounts.sessions(int(rig.now), of="olga", present=desk.olga)
    (other,) = (it.id for it in found if not it.present)
    desk.do("/account/sessions/{name:str}/end", name=other)
    desk.do("/account/end-sessions")
    made = desk.accounts.begin_second_factor(desk.olga, "here", int(rig.now))
    secret = _secret(made.secret)
    code = {"code": code_at(secret, int(rig.now) // STEP_S)}
    desk.do("/account/second-factor", code)
    rig.now += STEP_S
    answer = desk.call("POST", "/sign-in", {"name": "olga", "password": new})[0]
    desk.cookie = {guard.HALF: answer.headers["set-cookie"].partition("=")[2].partition(";")[0]}
    code = {"code": code_at(secret, int(rig.now) // STEP_S)}
    desk.do("/sign-in/code", code)
    desk.cookie = {}
    desk.do("/account/remove-second-factor", {"old": new})
    desk.do("/sign-in", {"name": "olga", "password": new})
    desk.do("/account/proof", {"password": new})
    desk.do("/sign-out")


def _secret(shown: str) -> bytes:
    """Read a secret as an authenticator app does."""
    text = "".join(shown.split()).upper()
    return base64.b32decode(text + "=" * (-len(text) % 8))


def _notices(desk: Desk) -> None:
    desk.do("/notifications/test", {"channel": "ops"})
    desk.rig.app.deliver()
    (one,) = desk.look("/notifications")["items"]
    desk.do("/notifications/{number:int}/replay", number=one["number"])


STORIES: Final[tuple[Callable[[Desk], None], ...]] = (
    _devices, _rollouts, _requests, _incidents, _files, _notices, _people, _own,
)  # fmt: skip


def _forms(app: Any) -> set[str]:
    """Return every route outside the API that is not read; one that takes its verbs in the path, once for each."""
    found = {
        f"{one.method} {one.path}"
        for one in routes(cast("Litestar", getattr(app.admin, "inner", app.admin)))
        if one.method != "GET" and not one.path.startswith("/api/")
    }
    own = "POST /account/{verb:str}"
    return (found - {own}) | {own.replace("{verb:str}", verb) for verb in OWN_VERBS}


@pytest.mark.timeout(900)
def test_every_form_has_its_entry_and_without_it_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, found = told(STORIES, Desk, _forms, tmp_path, monkeypatch)
    assert found == done
