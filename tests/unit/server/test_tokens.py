"""Tokens and nonces: ours, unforged, in time."""

import base64
import hmac
import os
import struct
import time

import pytest

from tidegate.server.tokens import DAY_S, NONCE_S, SKEW_S, Session, Tokens

NOW = 1_800_000_000


DAY = NOW // DAY_S
SALTS = [(DAY, b"monday"), (DAY + 1, b"tuesday")]


def make(secret: bytes = b"s" * 32, salts: list[tuple[int, bytes]] = SALTS) -> Tokens:
    made = Tokens(secret, os.urandom)
    made.take_salts(salts)
    return made


@pytest.fixture
def tokens() -> Tokens:
    return make()


def test_a_token_says_what_was_put_into_it_until_it_expires(tokens: Tokens) -> None:
    token = tokens.issue(7, 3, NOW, 100).encode()
    assert tokens.check(token, NOW + 99) == Session(7, 3, NOW + 100, NOW)
    assert tokens.check(token, NOW + 100) is None


def test_another_server_with_the_same_secret_takes_it(tokens: Tokens) -> None:
    token = tokens.issue(7, 3, NOW, 86_400).encode()
    assert make().check(token, NOW + 80_000) is not None
    assert make(b"t" * 32).check(token, NOW) is None


def test_the_secret_of_another_day_makes_no_token_of_today(tokens: Tokens) -> None:
    """Whoever read secret and salts once has nothing when they have been replaced."""
    thief = make(salts=[(DAY, b"tuesday"), (DAY + 1, b"monday")])
    assert tokens.check(thief.issue(7, 3, NOW, 100).encode(), NOW) is None
    tokens.take_salts(SALTS[1:])
    assert tokens.check(make().issue(7, 3, NOW, 86_400).encode(), NOW) is None
    with pytest.raises(KeyError):
        tokens.issue(7, 3, NOW, 100)


def test_a_token_from_the_future_is_refused_and_a_small_skew_is_not(tokens: Tokens) -> None:
    token = tokens.issue(7, 3, NOW + SKEW_S, 10_000).encode()
    assert tokens.check(token, NOW) is not None
    assert tokens.check(token, NOW - 1) is None


def _signed(secret: bytes, salt: bytes, *fields: int) -> bytes:
    head = struct.pack(">QIHIIB", *fields)
    key = hmac.digest(secret, b"mac" + salt, "sha256")
    mac = hmac.digest(key, head, "sha256")[:16]
    return b"v1." + base64.urlsafe_b64encode(head + mac)


def test_a_token_of_another_tenant_or_with_another_days_key_is_refused(tokens: Tokens) -> None:
    good = (7, 0, 3, NOW, NOW + 100, DAY & 0xFF)
    assert tokens.check(_signed(b"s" * 32, b"monday", *good), NOW) is not None
    other_tenant = (7, 1, *good[2:])
    assert tokens.check(_signed(b"s" * 32, b"monday", *other_tenant), NOW) is None
    for kid in range(256):
        found = tokens.check(_signed(b"s" * 32, b"monday", *good[:5], kid), NOW)
        assert (found is not None) == (kid == DAY & 0xFF)
    assert tokens.check(_signed(b"s" * 32, b"tuesday", *good), NOW) is None


def test_a_token_with_any_character_changed_is_refused(tokens: Tokens) -> None:
    token = tokens.issue(7, 3, NOW, 100)
    for position in range(len(token)):
        other = "A" if token[position] != "A" else "B"
        changed = token[:position] + other + token[position + 1 :]
        assert tokens.check(changed.encode(), NOW) is None, position


@pytest.mark.parametrize("text", [b"", b"v1.", b"v1.\xff\xff", b"v1." + b"A" * 10_000, b"v2.AAAA"])
def test_what_is_no_token_is_refused(tokens: Tokens, text: bytes) -> None:
    assert tokens.check(text, NOW) is None


def test_a_nonce_is_good_once_and_for_a_while(tokens: Tokens) -> None:
    nonce = tokens.nonce(NOW)
    assert not tokens.take_nonce(nonce, NOW + NONCE_S + 1)
    assert tokens.take_nonce(nonce, NOW + NONCE_S)
    assert not tokens.take_nonce(nonce, NOW + NONCE_S)


@pytest.mark.parametrize("nonce", ["", "00" * 16, "zz" * 16, "00" * 15])
def test_a_nonce_that_is_not_ours_is_refused(tokens: Tokens, nonce: str) -> None:
    assert not tokens.take_nonce(nonce, NOW)


def test_a_fleet_that_comes_back_all_at_once_is_not_looked_through_for_every_device(
    tokens: Tokens,
) -> None:
    began = time.process_time()
    for _ in range(30_000):
        assert tokens.take_nonce(tokens.nonce(NOW), NOW)
    assert time.process_time() - began < 10
    later = NOW + NONCE_S + 1
    for _ in range(15_000):
        first = tokens.nonce(later)
        assert tokens.take_nonce(first, later)
        assert not tokens.take_nonce(first, later)
    assert len(tokens._used) <= 15_000, "those that ran out are forgotten"
