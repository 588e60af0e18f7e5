"""Everything that reads bytes from strangers, under damage of every shape: refused in the promised way, or read; never another exception.

The same targets run for as long as one likes under a coverage-guided fuzzer (`make fuzz`).
"""

import pytest
from fuzz.kind import Target
from fuzz.targets import targets
from hypothesis import given, settings
from hypothesis import strategies as st

TARGETS = targets()


@st.composite
def damaged(draw: st.DrawFn, target: Target) -> bytes:
    """Return a good input of a target with up to six wounds: bytes changed, cut, doubled, moved, or words put in."""
    body = bytearray(draw(st.sampled_from(target.seeds)))
    words = st.sampled_from(target.words) if target.words else st.binary(max_size=8)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(body)))
        size = draw(st.integers(0, 24))
        match draw(st.integers(0, 5)):
            case 0:
                body[at : at + size] = draw(st.binary(max_size=24))
            case 1:
                del body[at : at + size]
            case 2:
                body[at:at] = draw(words)
            case 3:
                body[at:at] = body[at : at + size]
            case 4:
                del body[at:]
            case _:
                other = draw(st.sampled_from(target.seeds))
                body[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(body)


def test_every_target_has_a_name_of_its_own() -> None:
    assert len({one.name for one in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_what_is_good_is_read(target: Target) -> None:
    for seed in target.seeds:
        target.check(seed)


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_any_damage_is_refused_in_the_promised_way(target: Target) -> None:
    @given(body=damaged(target))
    @settings(max_examples=120, deadline=None)
    def check(body: bytes) -> None:
        target.check(body)

    check()


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: one.name)
def test_noise_is_refused_in_the_promised_way(target: Target) -> None:
    @given(body=st.binary(max_size=300))
    @settings(max_examples=60, deadline=None)
    def check(body: bytes) -> None:
        target.check(body)

    check()
