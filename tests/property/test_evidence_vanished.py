"""What vanished of devices not updated is kept for as long as somebody can be judged by it, and letting it go changes no fact."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.desk import Desk, Packed
from tidegate.rollout.evidence.facts import Fact
from tidegate.rollout.evidence.settings import HOUR_S, Harm
from tidegate.rollout.evidence.strata import Profile, divide

PROFILES: tuple[Profile, ...] = (
    ("v1", "eu", "always"),
    ("v1", "us", "always"),
    ("v1", "eu", "daily"),
)
HARM = Harm(away_s=(("daily", 26 * HOUR_S),))
TICK = HARM.tick_s


class _Keeping(Desk):
    """A desk that lets nothing go."""

    def _forget_lost(self) -> None:
        pass


def _desk(kind: type[Desk]) -> Desk:
    book = Book(divide(dict.fromkeys(PROFILES, 500)), HARM, Baseline())
    desk = kind(book, 0)
    for one in PROFILES:
        desk.control(one, 500)
    return desk


#: What happens in a tick: (profile, devices let go, confirmed of those before, vanished at a tick so many before, sample, gone, ticks that go by).
_EVENT = st.tuples(
    st.sampled_from(PROFILES),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 120),
    st.integers(1, 200),
    st.integers(0, 200),
    st.sampled_from([1, 1, 1, 1, 2, 7]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_EVENT, min_size=1, max_size=150), st.integers(0, 149))
def test_a_desk_that_lets_go_what_vanished_gives_the_same_facts(
    story: list[tuple[Profile, int, int, int, int, int, int]], packed_at: int
) -> None:
    facts: list[list[Fact]] = []
    for kind in (_Keeping, Desk):
        desk, told, out = _desk(kind), [], []
        for number, (profile, go, well, before, sample, gone, ticks) in enumerate(story):
            if go:
                desk.permit(profile, go)
                out.append((profile, desk.now))
            if out and well:
                desk.confirmed(*out[number % len(out)], well)
            desk.vanished(max(0, desk.now - before * TICK), profile[1], sample, min(sample, gone))
            desk.advance(desk.now + ticks * TICK)
            told += desk.tick(desk.now)
            if number == packed_at and kind is Desk:
                packed = msgspec.msgpack.encode(desk.pack())
                desk = Desk(desk.book, 0)
                desk.restore(msgspec.msgpack.decode(packed, type=Packed))
        for _ in range(200):
            desk.advance(desk.now + TICK)
            told += desk.tick(desk.now)
        facts.append(told)
        if kind is Desk:
            assert not desk.pack().lost, "nobody is left who could be judged by it"
    assert facts[0] == facts[1]


def test_what_is_kept_does_not_grow_with_time() -> None:
    desk, most = _desk(Desk), 0
    for number in range(4 * 24 * 60):
        if number % 96 == 0:
            desk.permit(PROFILES[2], 1)
        desk.vanished(desk.now - 4 * TICK, "eu", 150, 1)
        desk.advance(desk.now + TICK)
        desk.tick(desk.now)
        most = max(most, len(desk.pack().lost))
    assert most <= 2 * 28 * 4
