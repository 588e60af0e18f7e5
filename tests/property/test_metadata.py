"""Signed metadata under random damage: refused with a known code, or believed unchanged; never a crash."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.repo import NOW, Repo

from tidegate.core.errors import PublisherError
from tidegate.core.metadata import parse_root, parse_snapshot, parse_targets, parse_timestamp
from tidegate.core.verify import walk_repository

REPO = Repo()
FILES = REPO.files()
NAMES = sorted(FILES)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(name=st.sampled_from(NAMES), at=st.integers(0, 100_000), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_no_flipped_byte_is_believed(name: str, at: int, flip: int) -> None:
    body = FILES[name]
    at %= len(body)
    damaged = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
    try:
        trusted = walk_repository(FILES | {name: damaged}, anchor=FILES["1.root.json"], now=NOW)
    except PublisherError:
        return
    # the anchor is what is trusted already: its own copy in the repository is not asked for
    assert name == "1.root.json"
    assert trusted.root.body == FILES["1.root.json"]


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Return a document of which one value, somewhere, was replaced by any JSON."""
    plain: Any = json.loads(FILES[draw(st.sampled_from(NAMES))])
    here = plain
    for _ in range(draw(st.integers(0, 6))):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list):
            here[key] = draw(JSON)
            break
        here = here[key]
    else:
        if isinstance(here, dict):
            here[draw(st.text(max_size=8))] = draw(JSON)
    return json.dumps(plain).encode("utf-8", "surrogatepass")


@given(body=mutants())
@settings(max_examples=500, deadline=None)
def test_any_shape_is_parsed_or_refused(body: bytes) -> None:
    for parse in (parse_root, parse_targets, parse_snapshot, parse_timestamp):
        assert outcome(parse, body) in ("parsed", "sig.malformed", "sig.oversized")


def outcome(parse: Callable[[bytes], object], body: bytes) -> str:
    try:
        parse(body)
    except PublisherError as error:
        return error.code
    return "parsed"
