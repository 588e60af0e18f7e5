"""Tokens and nonces: ours, unforged, in time."""

import os

import pytest

from tidegate.server.tokens import NONCE_S, Session, Tokens

NOW = 1_800_000_000


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(b"s" * 32, os.urandom)


def test_a_token_says_what_was_put_into_it_until_it_expires(tokens: Tokens) -> None:
    token = tokens.issue(7, 3, NOW, 100).encode()
    assert tokens.check(token, NOW + 99) == Session(7, 3, NOW + 100)
    assert tokens.check(token, NOW + 100) is None


def test_another_server_with_the_same_secret_takes_it(tokens: Tokens) -> None:
    token = tokens.issue(7, 3, NOW, 86_400).encode()
    assert Tokens(b"s" * 32, os.urandom).check(token, NOW + 80_000) is not None
    assert Tokens(b"t" * 32, os.urandom).check(token, NOW) is None


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
