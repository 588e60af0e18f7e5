"""Lying proxies: what an attacker on the way, or one who stole the director's key, would put before a device.

An honest server never sends such things, so the lie is made here; what refuses it is the device's own code.
"""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from tidegate.core.codec import canonical
from tidegate.core.keys import Signer, sign_envelope
from tidegate.core.protocol import ASSIGNMENT_TYPE, AssignmentAnswer, Envelope
from tidegate.sim.link import Answer, Tampered, Wire, flip_byte

#: `tampered`: a bit of the payload is flipped. `foreign`: the assignment is signed by a stranger. `forged`: it keeps the director's name
#: over a signature that is not the director's. `redirected`: signed by the stolen director key, it names another image of the same
#: repository: made for other hardware, or older.
Lie = Literal["tampered", "foreign", "forged", "redirected"]

_ASSIGNMENT: Final = "/d/v1/assignment"
#: A stranger's key: anybody can make one.
_STRANGER: Final = bytes(range(32))


def lying_wire(
    wire: Wire,
    lie: Lie,
    *,
    target: Mapping[str, Any] | None = None,
    director: Signer | None = None,
) -> Tampered:
    """Put a lying proxy before `wire`.

    Args:
        wire: the honest way.
        lie: what kind.
        target: for `redirected`: the `AssignedTarget` to name instead, as JSON-like data.
        director: for `redirected`: the director's stolen key.
    """
    if lie == "tampered":
        return Tampered(wire, "/d/v1/blobs/", flip_byte(-100))
    if lie == "foreign":
        return Tampered(wire, _ASSIGNMENT, _assigned(Signer.from_seed(_STRANGER), {}))
    if lie == "forged":
        return Tampered(wire, _ASSIGNMENT, _forge)
    if director is None or target is None:
        raise ValueError(lie)
    return Tampered(wire, _ASSIGNMENT, _assigned(director, {"target": dict(target)}))


def _assigned(signer: Signer, changes: Mapping[str, Any]) -> Callable[[Answer], Answer]:
    """Make a change that signs the assignment anew, with some fields changed."""

    def change(answer: Answer) -> Answer:
        body = _payload(answer)
        if body is None or body.get("action") != "install":
            return answer
        envelope = sign_envelope(canonical({**body, **changes}), ASSIGNMENT_TYPE, signer)
        return _answer(answer, envelope)

    return change


def _forge(answer: Answer) -> Answer:
    """Change the text and leave the director's signature under it."""
    body = _payload(answer)
    if body is None or body.get("action") != "install":
        return answer
    found = json.loads(answer.body)
    forged = canonical({**body, "reason": "trust me"})
    found["envelope"]["payload"] = base64.b64encode(forged).decode()
    return Answer(answer.status, _plain(answer), json.dumps(found).encode())


def _payload(answer: Answer) -> dict[str, Any] | None:
    try:
        found = json.loads(answer.body)
        body = json.loads(base64.b64decode(found["envelope"]["payload"]))
    except (ValueError, KeyError, TypeError):
        return None
    return body if isinstance(body, dict) else None


def _answer(answer: Answer, envelope: Envelope) -> Answer:
    body = msgspec.json.encode(AssignmentAnswer(envelope=envelope))
    return Answer(answer.status, _plain(answer), body)


def _plain(answer: Answer) -> dict[str, str]:
    """Return the headers without the length: the body is another one now."""
    return {name: value for name, value in answer.headers.items() if name != "content-length"}
