"""What a device calls itself is nobody's markup, statement, query or line of a log."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar
from litestar.testing import TestClient
from tests.unit.server.rig import Device, Rig

from tidegate.cli.device import _shown
from tidegate.cli.output import printable
from tidegate.client import structs
from tidegate.core.protocol import (
    CheckResult,
)
from tidegate.server import inquiry
from tidegate.server.auth import Actor
from tidegate.server.operations import Operations, auth_of
from tidegate.server.store import device_queries
from tidegate.server.web.domain import create_web

ROOT = Actor(name="root", role="admin")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    made.publish_trust()
    yield made
    made.close()


def row_of(rig: Rig, device_id: str) -> Any:
    return rig.read(lambda conn: device_queries.by_id(conn, device_id))


EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE device; --",
    '=HYPERLINK("http://evil")',
    "\x1b]0;owned\x07\x1b[31m",
    "line\nWARNING forged log line\r\n",
    "{{ 7 * 7 }} {% raw %}",
    "\u202egpj.exe",
)


def _evil_device(rig: Rig, number: int, text: str) -> Device:
    device = rig.device(f"d{number}", join=False)
    hardware = msgspec.structs.replace(device.hardware, serial=text[:64])
    answer = device.enrol(
        rig.claim(f"c{number}"),
        hardware=hardware,
        agent=text[:64],
        attributes={"site": text, "region": text, text[:64]: text, "tags": text},
    )
    assert answer.status in {200, 400}, answer.body
    if answer.status == 400:
        assert device.enrol(f"c{number}", agent=text[:64], attributes={"x": text}).status == 200
    return device


def test_nothing_that_a_device_says_becomes_markup_a_statement_or_a_line_of_the_log(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    rig.rollout(rig.release(1))
    for number, text in enumerate(EVIL):
        device = _evil_device(rig, number, text)
        device.boot_id = text[:64]
        device.log_in()
        body = device.assignment()
        device.tell(
            "failed", body, reason="install.write", detail=text, log=text * 4, region=text[:64],
            site=text[:64], variant=text[:64], running_version=text[:64],
            health=(CheckResult(name="core", ok=False, detail=text[:64]),),
        )  # fmt: skip
        device.report(device.event("heartbeat", reason=text[:64], running_version=text[:64]))
        device.tell("security", reason="sig.threshold", detail=text)
        device.held = True
        device.assignment()
    _pages_are_clean(rig)
    _terminal_is_clean(rig)
    assert "forged log line" not in [record.getMessage() for record in caplog.records]
    assert not any("\nWARNING forged" in record.getMessage() for record in caplog.records)
    assert row_of(rig, "d0") is not None
    for id_ in ("../../etc", "a b", "<b>", "d1\n", "", "x" * 65, "é", "a'--"):
        stranger = rig.device("any", join=False)
        stranger.id = id_
        assert stranger.enrol("c0").code == "sig.malformed", id_


def _pages_are_clean(rig: Rig) -> None:
    services = rig.app.services
    accounts = auth_of(services)
    accounts.create_account("olga", "admin", "correct horse battery", ROOT, int(rig.now))
    router = create_web(services, accounts, Operations(services))
    with TestClient(Litestar([router], openapi_config=None), base_url="http://tg.test") as client:
        signed = client.post(
            "/sign-in",
            data={"name": "olga", "password": "correct horse battery"},
            follow_redirects=False,
        )
        assert signed.status_code == 303
        paths = ["/", "/devices", "/rollouts", *(f"/devices/d{n}" for n in range(len(EVIL)))]
        paths += [f"/devices?q={text}" for text in ("<script>alert(1)</script>", "' OR 1=1 --")]
        for path in paths:
            answer = client.get(path)
            assert answer.status_code == 200, (path, answer.text[-300:])
            page = answer.text
            assert "<script>alert" not in page, path
            assert not re.search(r"<img[^>]*onerror", page), path
            assert "\x1b" not in page, path
            assert "\u202e" not in page, path
            assert ">49 " not in page, path


def _terminal_is_clean(rig: Rig) -> None:
    for number in range(len(EVIL)):
        found = rig.read(
            lambda conn, number=number: inquiry.device(conn, f"d{number}", int(rig.now))
        )
        told = msgspec.convert(msgspec.to_builtins(found), structs.DeviceRecord)
        for line in _shown(told, []):
            shown = printable(line)
            assert shown.isprintable()
