"""Any variables survive U-Boot's environment; any bytes are a copy or none, and what is not changed keeps its bytes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.agent.boot.uboot_env import Copy, Environment, following, make_copy, newest, read_copy
from tidegate.core.errors import DeviceError

NAMES = st.text("ABCdef_0189.", min_size=1, max_size=8)
VALUES = st.text(st.characters(blacklist_characters="\0\r\n\\", codec="utf-8"), max_size=30)
#: What a loader or a vendor may have put there: any bytes without a zero.
ENTRIES = st.lists(
    st.binary(min_size=1, max_size=20).map(lambda raw: raw.replace(b"\0", b"!")), max_size=12
)


@given(entries=ENTRIES, flag=st.none() | st.integers(0, 255), spare=st.integers(0, 40))
@settings(max_examples=300, deadline=None)
def test_a_copy_survives(entries: list[bytes], flag: int | None, spare: int) -> None:
    env = Environment(tuple(entries))
    size = 5 + sum(len(one) + 1 for one in entries) + 2 + spare
    body = make_copy(env, size, flag)
    assert len(body) == size
    assert read_copy(body, redundant=flag is not None) == Copy(env, flag or 0)


@given(entries=ENTRIES, changes=st.dictionaries(NAMES, st.none() | VALUES, max_size=6))
@settings(max_examples=300, deadline=None)
def test_a_change_sets_what_it_names_and_leaves_the_rest(
    entries: list[bytes], changes: dict[str, str | None]
) -> None:
    before = Environment(tuple(entries))
    after = before.changed(changes)
    assert {name: after.get(name) for name in changes} == {
        name: value or None for name, value in changes.items()
    }
    named = {name.encode() for name in changes}
    assert [one for one in after.entries if one.partition(b"=")[0] not in named] == [
        one for one in entries if one.partition(b"=")[0] not in named
    ]
    assert after.changed(changes) == after


@given(raw=st.binary(max_size=200), redundant=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_copy_or_none(raw: bytes, redundant: bool) -> None:
    found = read_copy(raw, redundant=redundant)
    assert (
        found is None
        or make_copy(found.environment, len(raw), found.flag if redundant else None)[:4]
    )


@given(flag=st.integers(0, 255), first=st.booleans())
def test_the_copy_saved_later_counts_wherever_it_is(flag: int, first: bool) -> None:
    older, newer = Copy(Environment(), flag), Copy(Environment((b"a=b",)), following(flag))
    pair = [newer, older] if first else [older, newer]
    assert newest(pair) == (0 if first else 1)
    assert newest([pair[0], None]) == 0
    assert newest([None, pair[1]]) == 1
    assert newest([None, None]) is None


@given(entries=ENTRIES, short=st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_what_does_not_fit_is_refused(entries: list[bytes], short: int) -> None:
    whole = 5 + max(2, sum(len(one) + 1 for one in entries) + 1)
    make_copy(Environment(tuple(entries)), whole, 1)
    try:
        make_copy(Environment(tuple(entries)), max(0, whole - short), 1)
    except DeviceError as error:
        assert error.code == "activate.bootloader"  # noqa: PT017 - the other way is the failure
    else:
        raise AssertionError("it was squeezed in")
