"""Whatever is told to the desk, in whatever order: nobody is counted twice, nobody is lost, and nothing is below none."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.facts import Fact, Isolated
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, PRESETS
from tidegate.rollout.evidence.strata import Profile, divide
from tidegate.rollout.evidence.watch import Watch

PROFILES: list[Profile] = [(v, r, "always") for v in ("v1", "v2") for r in ("eu", "us")]
SCHEME = divide(dict.fromkeys(PROFILES, 50))
BASE = Baseline(failure_ppm={"other": 10_000}, silence_ppm={"other": 3_000})
KINDS = ("permit", "refund", "failed", "confirmed", "crash", "dark", "heard", "control", "wait")

Told = tuple[str, Profile, int, str, int]
told = st.tuples(
    st.sampled_from(KINDS),
    st.sampled_from(PROFILES[:2]),
    st.integers(1, 6),
    st.sampled_from(["", "", "mill"]),
    st.sampled_from([0, 0, 0, 900, HOUR_S, 5 * DAY_S]),
)


def tell(watch: Watch, happened: Told, back: int) -> None:
    """Tell one thing, of a cohort that was permitted so long ago."""
    kind, profile, count, site, _ = happened
    desk = watch.desk
    since = max(0, desk.now - back)
    if kind == "permit":
        desk.permit(profile, count, site)
    elif kind == "refund":
        desk.refund(profile, since, count, site)
    elif kind == "failed":
        desk.failed(profile, since, count, site)
    elif kind == "confirmed":
        desk.confirmed(profile, since, count, site)
    elif kind in {"crash", "dark"}:
        desk.late("crash" if kind == "crash" else "dark", profile, since, count, site)
        desk.control_late("dark", profile, 1, site)
    elif kind == "heard":
        desk.heard(profile, since, count % 2, count, site)
    elif kind == "control":
        desk.control(profile, count - 3)


def sound(watch: Watch) -> None:
    watch.book.settle()
    for row in watch.book.rows:
        exposed, failed, silent, healthy, void = row[: at.ALIVE]
        assert min(exposed, failed, silent, healthy, void) >= 0
        assert failed + silent + healthy + void <= exposed
        assert row[at.WATCHED] >= 0
        assert row[at.WATCHED + 1] >= 0
        for gate in range(2):
            alive, dead = row[at.ALIVE + gate], row[at.DEAD + gate]
            assert min(alive, dead) >= 0
            assert alive + dead <= exposed - failed - void


@given(
    story=st.lists(told, max_size=40),
    backs=st.lists(st.sampled_from([0, 0, 900, HOUR_S, 5 * DAY_S]), min_size=40, max_size=40),
    isolate=st.integers(0, 60),
)
@settings(max_examples=40, deadline=None)
def test_every_device_is_counted_once_whatever_is_told(
    story: list[Told], backs: list[int], isolate: int
) -> None:
    watch = Watch(SCHEME, PRESETS["normal"], BASE, 0)
    kept: list[Fact] = []
    for turn, (happened, back) in enumerate(zip(story, backs, strict=False)):
        tell(watch, happened, back)
        watch.step(watch.desk.now + happened[4], kept.append)
        sound(watch)
        if turn == isolate:
            fact = Isolated(at=watch.desk.now, stratum=1 + turn % (len(SCHEME.strata) - 1))
            watch.book.fold(fact)
            kept.append(fact)
    # A server that was away waits for answers until their devices would be missed anyway.
    for wait in (*[900] * 10, 10 * DAY_S, *[900] * 30):
        watch.step(watch.desk.now + wait, kept.append)
    sound(watch)
    row = watch.book.rows[0]
    assert row[at.FAILED] + row[at.SILENT] + row[at.HEALTHY] + row[at.VOID] == row[at.EXPOSED]
    again = Watch(SCHEME, PRESETS["normal"], BASE, 0)
    again.book.fold_all(kept)
    assert again.book.digest() == watch.book.digest()
