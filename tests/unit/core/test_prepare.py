"""What threads must not meet first: every message type is known before they start."""

import subprocess
import sys

import msgspec
import pytest

from tidegate.core import codec

_SERVER = """
import threading
import msgspec
from tidegate.server import services
from tidegate.server.config import Settings

met = []
real = msgspec.json.Decoder
msgspec.json.Decoder = lambda kind: met.append((threading.current_thread().name, kind)) or real(kind)
try:
    services.open_services(Settings(data_dir="/dev/null/none"), clock=lambda: 0.0, randomness=bytes)
except Exception:
    pass
from tidegate.rollout.model import Policy
assert ("MainThread", Policy) in met, "the server opens its store before it knows its messages"
"""


def test_every_message_that_was_imported_is_learned() -> None:
    import tidegate.rollout.model  # noqa: F401

    known = codec.prepare()
    assert {"tidegate.rollout.model.Policy", "tidegate.rollout.model.RingProgress"} <= known
    assert all(one.startswith("tidegate.") for one in known)


def test_a_server_knows_its_messages_before_it_opens_anything() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SERVER], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_message_that_cannot_be_learned_is_told_at_the_start() -> None:
    class Wrong(msgspec.Struct):
        field: "NoSuchName"  # type: ignore[name-defined]  # noqa: F821

    Wrong.__module__ = "tidegate.made_wrong"
    with pytest.raises(NameError):
        codec.prepare()
    Wrong.__module__ = "elsewhere"
