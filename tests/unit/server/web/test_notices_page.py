"""The page of notifications: where messages go, what became of them, and what can be done about it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.server.rig import Rig
from tests.unit.server.web.test_store_pages import Office, opened

from tidegate.server.config import Webhook


@pytest.fixture
def office(tmp_path: Path, over: None) -> Iterator[Office]:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 32)
    hooks = tuple(
        Webhook(name=name, url=f"http://127.0.0.1:9/{name}", secret_file=str(secret))
        for name in ("ops", "desk")
    )
    rig = Rig(tmp_path / "data", more={"webhooks": hooks})
    try:
        with opened(rig) as it:
            yield it
    finally:
        rig.close()


def test_channels_are_shown_without_their_secrets_and_what_failed_with_its_error(
    office: Office,
) -> None:
    page = office.page("/notifications")
    assert "2 channels" in page
    assert page.count("none yet") == 2
    assert "sssss" not in page
    assert office.post("/notifications/test", channel="ops") == 303
    office.rig.app.deliver()
    page = office.page("/notifications")
    assert page.count("none yet") == 1
    assert "Retrying" in page
    assert "again today" in page
    assert "None in this state" in office.page("/notifications?state=dead")
    assert "test" in office.page("/notifications?state=retrying")
    assert office.client.get("/notifications?state=odd").status_code == 400


def test_a_message_is_sent_again_and_who_may_not_is_told_so(office: Office) -> None:
    assert office.post("/notifications/test", channel="ops") == 303
    office.rig.app.deliver()
    assert office.post("/notifications/test", channel="nowhere") == 404
    number = office.operations.services.store.read(_newest)
    assert office.post(f"/notifications/{number}/replay") == 303
    assert "goes to ops once more" in office.page("/notifications")
    assert office.post("/notifications/99999/replay") == 404
    office.sign_in("eve")
    assert office.post(f"/notifications/{number}/replay") == 403
    assert "disabled" in office.client.get("/notifications").text


def test_nobody_who_is_told_is_said_plainly(rig: Rig) -> None:
    with opened(rig) as office:
        page = office.page("/notifications")
    assert "nobody is told when a rollout halts" in page
    assert "None yet" in page


def _newest(conn: object) -> int:
    from tidegate.server import outbox

    found, _ = outbox.listed(conn, limit=1)  # type: ignore[arg-type]
    return found[0].number
