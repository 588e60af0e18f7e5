"""Recognising devices: signed session requests verified, and tokens made and checked, on one core; no network and no disk."""

import time
from collections.abc import Callable
from types import SimpleNamespace

import msgspec
from bench.figure import Figure

from tidegate.core import keys
from tidegate.core.keys import Signer
from tidegate.core.protocol import SESSION_TYPE, SessionBody, SessionRequest
from tidegate.server import devices
from tidegate.server.tokens import DAY_S, Tokens

NOW = 1_800_000_000
DEVICES = 500
ROUNDS = 5
BAR = 3_000.0
MESSAGE = b"x" * 300


def _rate(work: Callable[[int], object], count: int) -> float:
    """Return the best of some rounds, calls a second of processor time."""
    best = 0.0
    for _ in range(ROUNDS):
        start = time.process_time()
        for number in range(count):
            work(number)
        best = max(best, count / (time.process_time() - start))
    return best


def _requests(keytype: keys.KeyType) -> tuple[dict[str, object], list[bytes], list[Signer]]:
    rows: dict[str, object] = {}
    bodies, signers = [], []
    for number in range(DEVICES):
        seed = number.to_bytes(keys.SEED_BYTES[keytype], "big")
        signer = Signer.from_seed(seed, keytype)
        name = f"dev-{number}"
        rows[name] = SimpleNamespace(
            keytype=keytype, public_key=signer.public.public, state="accepted"
        )
        body = SessionBody(device_id=name, nonce="ab" * 16, boot_id="b", agent="1", previous="")
        envelope = keys.sign_document(body, SESSION_TYPE, signer)
        bodies.append(msgspec.json.encode(SessionRequest(envelope=envelope)))
        signers.append(signer)
    return rows, bodies, signers


def measure() -> list[Figure]:
    """Measure verification of each kind of key beside the bare signature check, and the token."""
    figures = []
    for keytype in ("ed25519", "ecdsa"):
        rows, bodies, signers = _requests(keytype)

        def verify(
            number: int, rows: dict[str, object] = rows, bodies: list[bytes] = bodies
        ) -> object:
            request = msgspec.json.decode(bodies[number], type=SessionRequest)
            return devices.open_session(request, rows.__getitem__)

        signed = [one.sign(MESSAGE) for one in signers]

        def bare(
            number: int, signers: list[Signer] = signers, signed: list[bytes] = signed
        ) -> object:
            return signers[number].public.verifies(signed[number], MESSAGE)

        figures.append(
            Figure(
                name=f"session requests verified, {keytype}",
                value=_rate(verify, DEVICES), unit="/s", bar=BAR,
                reference=_rate(bare, DEVICES), against="one bare signature check",
            )
        )  # fmt: skip
    tokens = Tokens(b"s" * 32, lambda count: b"r" * count)
    tokens.take_salts([(NOW // DAY_S, b"salt")])
    token = tokens.issue(7, 1, NOW, 86_400).encode()
    figures.append(
        Figure(
            name="session tokens checked", unit="/s", bar=50_000,
            value=_rate(lambda _: tokens.check(token, NOW), 20_000),
        )
    )  # fmt: skip
    return figures
