"""A lying proxy makes documents that look right; whether a device takes them is the device's business."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tidegate.core.errors import PublisherError
from tidegate.core.keys import Signer, open_envelope, sign_document
from tidegate.core.protocol import ASSIGNMENT_TYPE, AssignmentAnswer, AssignmentBody
from tidegate.sim.lies import Lie, lying_wire
from tidegate.sim.link import Answer

DIRECTOR = Signer.from_seed(b"\x07" * 32)


class Honest:
    """Answers every assignment with one that the director signed."""

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        made = AssignmentBody(
            device_id="sim-1",
            device_key="0" * 64,
            seq=1,
            issued=1,
            expires=2,
            nonce="0" * 32,
            action="install",
            update="u-1",
        )
        envelope = sign_document(made, ASSIGNMENT_TYPE, DIRECTOR)
        return Answer(200, {}, msgspec.json.encode(AssignmentAnswer(envelope=envelope)))


def _opened(lie: Lie, **more: Any) -> dict[str, Any]:
    answer = lying_wire(Honest(), lie, **more).send("POST", "/d/v1/assignment", {}, b"")
    envelope = msgspec.json.decode(answer.body, type=AssignmentAnswer).envelope
    keys = {DIRECTOR.public.keyid: DIRECTOR.public}
    found: dict[str, Any] = json.loads(open_envelope(envelope, ASSIGNMENT_TYPE, keys, 1))
    return found


@pytest.mark.parametrize(
    ("lie", "code"), [("foreign", "sig.unknown_key"), ("forged", "sig.threshold")]
)
def test_what_is_not_signed_by_the_director_is_told_apart(lie: Lie, code: str) -> None:
    with pytest.raises(PublisherError) as error:
        _opened(lie)
    assert error.value.code == code


def test_a_stolen_key_signs_whatever_it_is_given() -> None:
    body = _opened("redirected", target={"path": "gw/9/rootfs"}, director=DIRECTOR)
    assert body["target"] == {"path": "gw/9/rootfs"}
    assert body["update"] == "u-1"


def test_a_flipped_bit_is_in_the_payload_and_nowhere_else() -> None:
    wire = lying_wire(Honest(), "tampered")
    honest = Honest().send("POST", "/d/v1/assignment", {}, b"")
    assert wire.send("POST", "/d/v1/assignment", {}, b"") == honest
    assert wire.send("GET", "/d/v1/blobs/aa", {}, None).body != honest.body
    assert base64.b64decode(json.loads(honest.body)["envelope"]["payload"])
