"""A device made by hand: it speaks the protocol without the agent, and can be made to lie."""

import contextlib
import hashlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from tests.e2e.served import Served

from tidegate.core import codec, keys
from tidegate.core.hardware import Hardware
from tidegate.core.keys import Signer
from tidegate.core.protocol import (
    ENROL_TYPE,
    EVENT_TYPE,
    SESSION_TYPE,
    AssignmentRequest,
    DeviceState,
    EnrolBody,
    EnrolRequest,
    Envelope,
    EventBody,
    EventItem,
    EventsRequest,
    Metrics,
    PermitRequest,
    SessionBody,
    SessionRequest,
    SlotState,
    TimeRequest,
)


def give_claim(data: Path, token: str, *, name: str = "c", count: int = 100) -> None:
    """Make a claim in the database itself; the server may be running."""
    raw = sqlite3.connect(data / "tidegate.db", timeout=10)
    raw.execute(
        "INSERT INTO claim (name, token_sha256, product, max_count, expires_at, created_at, created_by)"
        " VALUES (?, ?, 'gw1', ?, ?, 0, 'test')",
        (name, hashlib.sha256(token.encode()).hexdigest(), count, int(time.time()) + 3600),
    )
    raw.commit()
    raw.close()


class Stranger:
    """One device of product gw1 with a key of its own."""

    def __init__(self, served: Served, name: str, claim: str) -> None:
        self.served, self.name, self.claim = served, name, claim
        self.key = Signer.from_seed(hashlib.sha256(name.encode()).digest())
        self.token = ""
        self.seq = 0

    def join(self) -> None:
        """Enrol and log in."""
        assert self.send("enrol", self.good("enrol"))[0] == 200
        status, answer = self.send("session", self.good("session"))
        assert status == 200, answer
        self.token = str(answer["token"])

    def nonce(self) -> str:
        return str(self.send("nonce", {})[1]["nonce"])

    def good(self, route: str) -> dict[str, Any]:
        """Return a body that the server takes."""
        if route == "enrol":
            envelope = self.signed(ENROL_TYPE, self.body(route))
            return _plain(EnrolRequest(envelope=envelope, claim=self.claim))
        if route == "session":
            return _plain(SessionRequest(envelope=self.signed(SESSION_TYPE, self.body(route))))
        if route == "events":
            self.seq += 1
            plain = EventBody(
                device_id=self.name, seq=self.seq, at=1, kind="heartbeat", metrics=Metrics()
            )
            self.seq += 1
            signed = EventItem(envelope=self.signed(EVENT_TYPE, self.body("event")))
            return _plain(EventsRequest(events=(EventItem(body=plain), signed)))
        state = DeviceState(
            hardware=Hardware("gw1", 1),
            channel="stable",
            agent="1.0",
            boot_id="b",
            running="A",
            slots={
                "A": SlotState(state="confirmed", sha256="0" * 64),
                "B": SlotState(state="empty"),
            },
            refuses=("1" * 64,),
            inhibitors=("busy",),
            free_bytes=5,
            attributes={"site": "s1"},
        )
        nonce = hashlib.sha256(str(time.monotonic_ns()).encode()).hexdigest()[:32]
        made: dict[str, Any] = {
            "nonce": {},
            "time": TimeRequest(nonce=nonce),
            "assignment": AssignmentRequest(nonce=nonce, state=state),
            "permit": PermitRequest(
                nonce=nonce, update="u-1", attempt=1, slot_sha256="0" * 64, release_counter=1
            ),
        }
        return _plain(made[route])

    def body(self, document: str) -> dict[str, Any]:
        """Return the content of a signed document, before it is signed."""
        if document == "enrol":
            found: Any = EnrolBody(
                device_id=self.name,
                public_key=self.key.public.public,
                product="gw1",
                hardware=Hardware("gw1", 1),
            )
        elif document == "session":
            found = SessionBody(device_id=self.name, nonce=self.nonce(), boot_id="b1")
        else:
            found = EventBody(
                device_id=self.name, seq=self.seq, at=1, kind="failed", reason="install.write"
            )
        return _plain(found)

    def signed(self, payload_type: str, body: dict[str, Any]) -> Envelope:
        """Sign whatever it is with the device's key."""
        return keys.sign_document(body, payload_type, self.key)

    def send(self, route: str, value: object) -> tuple[int, dict[str, Any]]:
        status, body = self.ask(route, codec.encode(value))[:2]
        return status, json.loads(body)

    def ask(self, route: str, body: bytes) -> tuple[int, bytes, str | None]:
        """Post bytes as they are; returns status, body and content type."""
        headers = {"content-type": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        with contextlib.closing(self.served.connection()) as connection:
            connection.request("POST", f"/d/v1/{route}", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("content-type")


def _plain(value: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(codec.encode(value))
    return found
