"""The status page: what a person published, word for word, and nothing else; off by default; the same for everybody."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Answer, Rig, ask
from tests.unit.server.test_api_routes import Api
from tests.unit.server.test_incidents import _halted

from tidegate.rollout.incident.model import Counts
from tidegate.server import publication

ATOM = "{http://www.w3.org/2005/Atom}"
SAID = {"summary": "Some gateways lost their link for some minutes."}


@pytest.fixture
def api(rig: Rig) -> Api:
    rig.publish_trust()
    rig.release(1)
    return Api(rig)


@pytest.fixture
def public(api: Api) -> Api:
    services = api.rig.app.services
    services.settings = msgspec.structs.replace(
        services.settings, status_public=True, external_url="https://ota.example.com"
    )
    return api


def _page(api: Api, form: str = ".json", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    work = ask(api.rig.app, "GET", f"/status{form}", named)
    return api.rig.loop.run_until_complete(work)


def _shown(api: Api) -> list[dict[str, Any]]:
    answer = _page(api)
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = json.loads(answer.body)["incidents"]
    return found


def test_there_is_no_status_page_by_default(api: Api) -> None:
    for form in ("", ".json", ".atom"):
        assert _page(api, form).status == 404


def test_a_text_names_its_character_set_once(public: Api) -> None:
    """By hand: it stood there twice, which some readers of a scrape refuse."""
    name = _halted(public)
    public.post(f"/incidents/{name}/notes", {"kind": "action", "text": "The contract asks more."})
    public.post(f"/incidents/{name}/publish", SAID, "operator")
    export = f"/incidents/{name}/export"
    said = {
        "page": _page(public, ""),
        "md": public.call("GET", f"{export}?format=md"),
        "html": public.call("GET", f"{export}?format=html"),
    }
    kinds = {form: one.headers["content-type"] for form, one in said.items()}
    assert kinds == {
        "page": "text/html; charset=utf-8",
        "md": "text/markdown; charset=utf-8",
        "html": "text/html; charset=utf-8",
    }


def test_only_what_was_published_is_shown_and_no_device_of_the_fleet(public: Api) -> None:
    name = _halted(public, detail="seen at the pole", log="kernel panic of bad0")
    public.post(f"/incidents/{name}/notes", {"text": "bad0 stands in the harbour"})
    public.post(f"/incidents/{name}/notes", {"kind": "action", "text": "The contract asks more."})
    assert _shown(public) == []
    public.post(f"/incidents/{name}/publish", SAID, "operator")
    (one,) = _shown(public)
    assert set(one) == {
        "name", "title", "status", "severity", "summary", "impact", "action", "published_at",
        "updated_at", "updates",
    }  # fmt: skip
    assert one["summary"] == SAID["summary"]
    assert one["impact"].startswith("A small number of devices had installed the update")
    assert one["action"] == "The contract asks more."
    for form in ("", ".json", ".atom"):
        body = _page(public, form).body.decode()
        for secret in (
            "bad0",
            "good0",
            "serial-",
            "harbour",
            "panic",
            "pole",
            "no network",
            "t-operator",
        ):
            assert secret not in body, (form, secret)


@pytest.mark.parametrize("field", ["title", "summary", "impact", "action"])
@pytest.mark.parametrize("said", ["bad0 is dark", "it was (BAD0).", "serial-bad1", "see x:bad0/"])
def test_a_text_that_names_a_device_is_refused(public: Api, field: str, said: str) -> None:
    name = _halted(public)
    answer = public.call("POST", f"/incidents/{name}/publish", {**SAID, field: said})
    assert (answer.status, answer.code) == (400, "request.invalid")
    assert b"a device of this fleet" in answer.body
    public.post(f"/incidents/{name}/publish", SAID)
    answer = public.call("POST", f"/incidents/{name}/publish/update", {"text": said})
    assert answer.code == "request.invalid"
    assert "bad" not in json.dumps(_shown(public)).lower()


def test_a_corrective_action_that_names_a_device_is_not_published_by_default(public: Api) -> None:
    name = _halted(public)
    public.post(f"/incidents/{name}/notes", {"kind": "action", "text": "bad1 gets a new modem"})
    assert public.call("POST", f"/incidents/{name}/publish", SAID).code == "request.invalid"
    public.post(f"/incidents/{name}/publish", {**SAID, "action": "The modem is replaced."})
    assert _shown(public)[0]["action"] == "The modem is replaced."


def test_updates_changes_and_withdrawal_are_shown_and_stand_in_the_audit(public: Api) -> None:
    name = _halted(public)
    at = f"/incidents/{name}"
    assert public.call("POST", f"{at}/publish/update", {"text": "x"}).code == "request.conflict"
    public.post(f"{at}/publish", SAID)
    public.rig.now += 60
    public.post(f"{at}/publish/update", {"text": "All gateways are back."})
    public.post(f"{at}/publish", {"title": "Gateways offline"})
    (one,) = _shown(public)
    assert (one["title"], one["summary"]) == ("Gateways offline", SAID["summary"])
    assert [line["text"] for line in one["updates"]] == ["All gateways are back."]
    assert one["updated_at"] == one["published_at"] + 60
    public.post(f"{at}/unpublish", {"reason": "wrong release"})
    assert _shown(public) == []
    assert public.post(f"{at}/unpublish", {"reason": "twice"})["published_at"] is None
    public.post(f"{at}/publish", {"summary": "Once more."})
    assert _shown(public)[0]["summary"] == "Once more."
    acts = [one["action"] for one in public.get("/audit")["items"]]
    assert acts.count("incident.publish") == 3
    assert acts.count("incident.publish_update") == 1
    assert acts.count("incident.unpublish") == 1


def test_the_summary_is_for_people_to_write(public: Api) -> None:
    name = _halted(public)
    assert public.call("POST", f"/incidents/{name}/publish", {}).code == "request.invalid"


def test_caches_may_keep_it_and_need_not_fetch_it_twice(public: Api) -> None:
    name = _halted(public)
    public.post(f"/incidents/{name}/publish", SAID)
    tag = ""
    for form in ("", ".json", ".atom"):
        answer = _page(public, form)
        assert answer.headers["cache-control"] == "public, max-age=60"
        assert "set-cookie" not in answer.headers
        tag = answer.headers["etag"]
        again = _page(public, form, if_none_match=tag)
        assert (again.status, again.body) == (304, b"")
    public.rig.now += 3600
    assert _page(public, "").headers["etag"] == _page(public, "").headers["etag"]
    public.post(f"/incidents/{name}/publish/update", {"text": "News."})
    assert _page(public, ".atom", if_none_match=tag).status == 200


def test_the_feed_is_atom_and_foreign_words_stay_words(public: Api) -> None:
    name = _halted(public)
    hostile = "<b>bold</b> & \x1b ]]> <script>x</script>"
    public.post(f"/incidents/{name}/publish", {"title": hostile, "summary": hostile})
    feed = ET.fromstring(_page(public, ".atom").body)
    (entry,) = feed.findall(f"{ATOM}entry")
    for tag in ("title", "id", "updated", "content", "link"):
        assert entry.find(f"{ATOM}{tag}") is not None, tag
    assert entry.findtext(f"{ATOM}title", "").startswith("<b>bold</b> & \ufffd")
    assert (feed.findtext(f"{ATOM}id") or "").startswith("https://ota.example.com")
    page = _page(public, "").body.decode()
    assert "<b>" not in page
    assert "<script" not in page
    assert "script-src" not in _page(public, "").headers["content-security-policy"]


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "none"), (1, "a small number"), (9, "a small number"), (10, "about 10"), (41, "about 40"),
     (99, "about 100"), (104, "about 100"), (127, "about 130"), (1_832, "about 1,800"), (128_412, "about 130,000")],
)  # fmt: skip
def test_counts_are_rounded(count: int, said: str) -> None:
    assert publication.rounded(count) == said


def test_the_impact_says_how_large_not_how_many() -> None:
    said = publication.impact(Counts(attempts=1_832, harmed=41, reverted=30))
    assert said == (
        "About 1,800 devices had installed the update, about 40 of them had a problem, "
        "about 30 went back to the previous version by themselves."
    )
    assert publication.impact(Counts(attempts=9, harmed=4), 5) == (
        "A small number of devices had installed the update, a small number of them had a problem, "
        "a small number were told by us to go back."
    )
    assert publication.impact(Counts()) == "No device had installed the update."
