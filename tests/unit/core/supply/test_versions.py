import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from tidegate.core.supply import versions
from tidegate.core.supply.versions import Order, below, compare

ORDERS: tuple[Order, ...] = ("deb", "rpm", "semver", "pep440", "generic")


@pytest.mark.parametrize(
    ("order", "ascending"),
    [
        ("deb", "1.0~~ 1.0~~a 1.0~ 1.0~rc1 1.0 1.0-1 1.0-1+b1 1.0-2 1.0a 1.0+x 1.0.1 2.0 1:0.1"),
        ("deb", "3.0.16-1~deb12u1 3.0.17-1~deb12u1 3.0.17-1~deb12u3 3.0.17-1 3.0.17-1+deb12u1"),
        ("rpm", "1.0~rc1 1.0~rc2 1.0 1.0^git1 1.0.1 1.1 1.10 1:0.5"),
        ("rpm", "1.0-1.el9 1.0-1.el9_2 1.0-2.el9 1.0-10.el9"),
        ("semver", "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 v1.0.1 1.10.0"),
        ("pep440", "1.0.dev1 1.0a1 1.0b2 1.0rc1 1.0 1.0+local.1 1.0.post1 1.1 1!0.1"),
        ("generic", "1.0.2-rc1 1.0.2 1.0.2k 1.0.2u 1.0.3 1.1.1 1.10 3.0"),
        ("generic", "1.2_alpha1 1.2_rc1 1.2 1.2_p1 1.2.1 1.2.1-r1"),
    ],
)  # fmt: skip
def test_versions_stand_in_the_order_of_their_world(order: Order, ascending: str) -> None:
    found = ascending.split()
    for at, one in enumerate(found):
        for other in found[at + 1 :]:
            assert compare(order, one, other) < 0, (one, other)
            assert compare(order, other, one) > 0, (one, other)


@pytest.mark.parametrize(
    ("order", "one", "other"),
    [
        ("deb", "1.0-0", "1.0"),
        ("deb", "0:1.0", "1.0"),
        ("deb", "1.00", "1.0"),
        ("rpm", "1_0", "1.0"),
        ("semver", "1.2", "1.2.0"),
        ("semver", "1.0.0+build5", "1.0.0"),
        ("pep440", "1.0.0", "1"),
        ("pep440", "1.0-ALPHA.1", "1.0a1"),
        ("generic", "1.0", "1.0.0"),
        ("generic", "v1.0", "1.0"),
    ],
)
def test_different_spellings_of_one_version_are_equal(order: Order, one: str, other: str) -> None:
    assert compare(order, one, other) == 0


@pytest.mark.parametrize(
    ("order", "version", "limit", "expected"),
    [
        ("deb", "3.0.16-1~deb12u1", "3.0.17", True),
        ("deb", "3.0.17-1~deb12u1", "3.0.17", False),
        ("deb", "1:3.0.16-1", "3.0.17", True),
        ("deb", "1:3.0.16-1", "0:3.0.17", False),
        ("rpm", "1:3.0.7-1.el9", "3.0.17", True),
        ("generic", "3.0.9", "3.0.17", True),
        ("generic", "3.0.17", "3.0.17", False),
        ("semver", "3.0.17-rc1", "3.0.17", True),
    ],
)
def test_a_limit_without_an_epoch_asks_about_versions_whatever_their_epoch(
    order: Order, version: str, limit: str, expected: bool
) -> None:
    assert below(order, version, limit) is expected


_PIECES = st.lists(
    st.sampled_from(
        [*"0123456789", *".-~^+:_ab!v", "rc", "alpha", "beta", "post", "dev", "10", "deb12u1"]
    ),
    max_size=9,
).map("".join)
_TEXTS = st.one_of(_PIECES, st.text(max_size=12))


@pytest.mark.parametrize("order", ORDERS)
@given(one=_TEXTS, other=_TEXTS, third=_TEXTS)
def test_every_order_is_total(order: Order, one: str, other: str, third: str) -> None:
    assert compare(order, one, one) == 0
    assert compare(order, one, other) == -compare(order, other, one)
    first, second, last = sorted((one, other, third), key=versions.sort_key(order))
    assert compare(order, first, second) <= 0
    assert compare(order, second, last) <= 0
    assert compare(order, first, last) <= 0
    if compare(order, one, other) == 0:
        assert compare(order, one, third) == compare(order, other, third)


_NUMBER = st.integers(0, 30).map(str)


@st.composite
def _python_versions(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(["", "", "1!"]))
    text += ".".join(draw(st.lists(_NUMBER, min_size=1, max_size=4)))
    text += draw(st.sampled_from(["", "", "a1", "b2", ".rc3", "-alpha"]))
    text += draw(st.sampled_from(["", "", ".post1", "-2", "rev3"]))
    text += draw(st.sampled_from(["", "", ".dev0", ".dev4"]))
    return text + draw(st.sampled_from(["", "", "+local", "+1.a", "+1.2"]))


@given(one=_python_versions(), other=_python_versions())
def test_python_versions_stand_as_packaging_puts_them(one: str, other: str) -> None:
    left, right = Version(one), Version(other)
    expected = (left > right) - (left < right)
    assert compare("pep440", one, other) == expected


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is the reference here")
def test_debian_versions_stand_as_dpkg_puts_them() -> None:
    known = [
        "1.0",
        "1.0-0",
        "1.0-1",
        "1.0~",
        "1.0~~",
        "1.0~rc1-1",
        "1.0a",
        "1.0+b1",
        "1.0.0",
        "1.00",
        "1:0.9",
        "0:1.0",
        "1.0-1~deb12u1",
        "1.0.a",
        "1.0a0",
        "01.0",
    ]
    script = "\n".join(
        f"dpkg --compare-versions '{one}' lt '{other}' && echo -1 || "
        f"{{ dpkg --compare-versions '{one}' gt '{other}' && echo 1 || echo 0; }}"
        for one in known
        for other in known
    )
    answer = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    said = [int(line) for line in answer.stdout.split()]
    assert said == [compare("deb", one, other) for one in known for other in known]


def test_a_version_of_endless_digits_costs_nothing() -> None:
    monster = "9" * 200_000
    for order in ORDERS:
        assert compare(order, monster, "1") != 0
        compare(order, f"1.0-{monster}", f"1.0-{monster}~")
