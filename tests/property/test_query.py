"""The query language: what is written is read as the same, and RSQL says the same here as its own rules do."""

import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.errors import RequestError
from tidegate.rollout import cohort, query
from tidegate.rollout.query import Compare, Every, Has, Member, Node, Not, Query, Some

WORDS = (
    "",
    "a",
    "ab",
    "b",
    "a*",
    "*",
    "a?b",
    "a[b]",
    "or",
    "NOT",
    "in",
    'q"q',
    "it's",
    "b\\c",
    "2.9",
)
NAMES = ("site", "model", "id", "attr.x", "attr.y", "modem.firmware")
NUMBERS = ("revision", "counter")
words = st.sampled_from(WORDS) | st.text(max_size=6)
members = st.builds(Member, st.sampled_from(("tag", "group")), words.filter(bool))
equals = st.builds(
    Compare,
    st.sampled_from(NAMES),
    st.sampled_from(("=", "!=", "<", "<=", ">", ">=", "~")),
    st.tuples(words),
)
lists = st.builds(
    Compare,
    st.sampled_from(NAMES),
    st.sampled_from(("in", "not in")),
    st.lists(words, min_size=1, max_size=3).map(tuple),
)
numbers = st.builds(
    Compare,
    st.sampled_from(NUMBERS),
    st.sampled_from(("=", "!=", "<", ">=")),
    st.integers(0, 20).map(lambda one: (str(one),)),
)
tests = members | equals | lists | numbers | st.builds(Has, st.sampled_from(NAMES))


def _grown(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(Not, inner) | st.builds(Every, several) | st.builds(Some, several)


nodes: st.SearchStrategy[Node] = st.recursive(tests, _grown, max_leaves=8)


@given(nodes)
def test_a_query_that_is_written_is_read_as_the_same(root: Node) -> None:
    text = str(Query(root))
    if len(text) <= 1000:
        assert query.parse(text) == Query(root)


# --- RSQL, by its own rules -------------------------------------------------------------------------------------------

Own = dict[str, str]
#: A test in RSQL's words, and RSQL's own answer for a device.
Said = tuple[str, Callable[[Own], bool]]
LETTERS = "ab1"
values = st.text(LETTERS, min_size=1, max_size=3)
patterns = st.text(LETTERS + "*", min_size=1, max_size=4)


def _like(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in pattern.split("*")), re.DOTALL)


@st.composite
def comparisons(draw: st.DrawFn) -> Said:
    name = draw(st.sampled_from(("x", "y")))
    quote = draw(st.sampled_from(("", "'", '"')))
    field = f"attribute.{name}"
    kind = draw(st.sampled_from(("==", "!=", "=in=", "=out=")))
    if kind in {"==", "!="}:
        pattern = draw(patterns)
        found = _like(pattern)
        text = f"{field}{kind}{quote}{pattern}{quote}"
        return (
            text,
            lambda own: (name in own and found.fullmatch(own[name]) is not None) is (kind == "=="),
        )
    several = draw(st.lists(values, min_size=1, max_size=3))
    written = ",".join(f"{quote}{one}{quote}" for one in several)
    return f"{field}{kind}({written})", lambda own: (own.get(name) in several) is (kind == "=in=")


def _joined(inner: st.SearchStrategy[Said]) -> st.SearchStrategy[Said]:
    @st.composite
    def one(draw: st.DrawFn) -> Said:
        parts = draw(st.lists(inner, min_size=2, max_size=3))
        mark = draw(st.sampled_from((";", ",", " and ", " or ")))
        text = mark.join(f"({part})" for part, _ in parts)
        every = mark in {";", " and "}
        return text, lambda own: (all if every else any)(says(own) for _, says in parts)

    return one()


rsql = st.recursive(comparisons(), _joined, max_leaves=6)
owned = st.fixed_dictionaries({}, optional={"x": values, "y": values})


@given(rsql, st.lists(owned, min_size=1, max_size=6))
def test_rsql_means_here_what_it_means_there(said: Said, devices: list[Own]) -> None:
    text, says = said
    text = f"attribute.x=in=(a);attribute.x=out=(a),({text})"  # never true: it is RSQL by its operators
    if len(text) > 1000:
        return
    parsed = query.parse(text)
    again = query.parse(str(parsed))
    for own in devices:
        attrs = cohort.attributes_of(model="m", revision=1, variant="m-r1", own=own)
        assert parsed.matches(attrs) is says(own), (text, str(parsed), own)
        assert again.matches(attrs) is says(own)


@given(st.text("ab*'\"\\=!<>;,()~ inort:.", max_size=40))
def test_whatever_is_written_is_read_or_refused_with_a_place(text: str) -> None:
    found: Query | RequestError
    try:
        found = query.parse(text)
    except RequestError as error:
        found = error
    if isinstance(found, RequestError):
        assert found.code == "request.invalid"
        assert re.match(r"query, position \d+: ", found.detail)
    else:
        assert query.parse(str(found)) == found
