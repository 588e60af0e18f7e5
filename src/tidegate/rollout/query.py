r"""The query language of groups, audiences and `--query`.

```
model = "gw1" and revision >= 3 and not (tag:lab or group:frozen)
seen < 24h        state != confirmed        variant in (gw1-r3, gw1-r4)
site ~ lyon-*     has(modem)                attr.modem.firmware >= 2.10
```

Names are those of `BUILT_IN`, or a device's own attributes, by dotted name; `attr.NAME` always means a device's own. An attribute that a device does not have
equals nothing: `=`, `<`, `~` and `in` are then false and `!=` is true, so `a != b` is always `not a = b`. Numbers compare as numbers, `true` and `false` as
such, all other text in the order of version strings (`2.10` after `2.9`). A duration (`24h`) is its seconds.

`state`, `reason` and `rollout` speak of a device's newest update. They are for looking: lists and jobs take them. Who is meant by an audience, a group, an
isolation or a way back must not change with every update, so they are refused there.

`tag = lab` and `group in (a, b)` are other spellings of `tag:lab` and `(group:a or group:b)`. A `*` without quotes behind `=` or `!=` is refused, since
nobody can tell whether it is meant as a pattern: write `site ~ lyon-*` for that, `site = "lyon-*"` for the star itself.

hawkBit's RSQL (FIQL) is accepted, and printed back in this form: `;` and, `,` or, `==`, `!=`, `=in=`, `=out=`, `=lt=`, `=le=`, `=gt=`, `=ge=`, `=is=null`
(`not has(NAME)`), `=not=null` (`has(NAME)`). In a query that uses any of these operators but `!=`, or a name that only hawkBit has (`controllerId`,
`attribute.os`), a `*` behind `==`, `!=` is a wildcard (with quotes, too; `\*` is the star), `attribute.NAME` and `metadata.NAME` are `attr.NAME`,
`controllerid` is `id`; fields of hawkBit that mean something else here (`updatestatus`, `installedds.version` …) and its moments (`${NOW_TS}`,
`${OVERDUE_TS}`) are refused with what to write: times are ages here, `seen > 24h`.
The grammar, lowest first; `and`, `or`, `not`, `in` are known in small and capital letters:

    or    = and { ("or" | ",") and }
    and   = not { ("and" | ";") not }
    not   = "not" not | "(" or ")" | test
    test  = "has" "(" name ")" | "tag:" word | "group:" word | name op value
          | name ( [ "not" ] "in" | "=in=" | "=out=" ) "(" value { "," value } ")" | name ( "=is=" | "=not=" ) "null"
    op    = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
          | "==" | "=eq=" | "=ne=" | "=lt=" | "=le=" | "=gt=" | "=ge="
    value = word | text;  text in single or double quotes, "\" before a quote in it
    word  = one or more of letters, digits and . * ? + / @ : _ -
"""

import fnmatch
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, TypeAlias

from tidegate.core import amounts
from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.nearest import did_you_mean, nearest
from tidegate.core.release import version_key
from tidegate.rollout import rsql

Scalar: TypeAlias = str | int | float | bool
Attributes: TypeAlias = Mapping[str, Scalar | Collection[str] | None]

#: Names that every device has; the numeric ones only compare with numbers.
NUMERIC: Final = frozenset({"revision", "counter", "security_floor", "seen"})
BUILT_IN: Final = NUMERIC | {
    "id", "product", "model", "variant", "channel", "site", "region", "connectivity", "agent",
    "release", "state", "reason", "rollout", "serial",
}  # fmt: skip
#: Names that speak of a device's newest update, and are known only where it is looked at.
OF_UPDATE: Final = frozenset({"state", "reason", "rollout"})
_SETS: Final = ("group", "tag")
_MOST_TEXT: Final = 1000
_MOST_DEPTH: Final = 24

_OPS: Final[dict[str, str]] = {
    "=": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=", "~": "~",
    **rsql.OPERATORS,
}  # fmt: skip
_WILD: Final = frozenset("*?")
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\[\s\S])*"|'(?:[^'\\]|\\[\s\S])*')"""
    r"""|(?P<op>=[a-zA-Z]+=|==|!=|<=|>=|[=<>~])"""
    r"""|(?P<mark>[();,])"""
    r"""|(?P<macro>\$\{\w*\})"""
    r"""|(?P<word>[\w.*?+/@:-]+))"""
)


@dataclass(frozen=True, slots=True)
class Has:
    """The device has this attribute."""

    name: str

    def matches(self, attrs: Attributes) -> bool:
        """Say whether it does."""
        return attrs.get(self.name) is not None

    def __str__(self) -> str:
        """Write it in the language."""
        return f"has({self.name})"


@dataclass(frozen=True, slots=True)
class Member:
    """The device is in a group or has a tag."""

    kind: str
    name: str

    def matches(self, attrs: Attributes) -> bool:
        """Say whether it is."""
        held = attrs.get(self.kind)
        return isinstance(held, Collection) and not isinstance(held, str) and self.name in held

    def __str__(self) -> str:
        """Write it in the language."""
        return f"{self.kind}:{_quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class Compare:
    """An attribute against a value, or one of several."""

    name: str
    op: str
    values: tuple[str, ...]

    def matches(self, attrs: Attributes) -> bool:
        """Say whether the comparison holds; what is not there equals nothing."""
        held = attrs.get(self.name)
        if held is None or (isinstance(held, Collection) and not isinstance(held, str)):
            return self.op in {"!=", "not in"}
        if self.op in {"=", "in", "!=", "not in"}:
            equal = any(_order(held, value) == 0 for value in self.values)
            return equal is (self.op in {"=", "in"})
        if self.op == "~":
            return fnmatch.fnmatchcase(_shown(held), self.values[0])
        order = _order(held, self.values[0])
        if order is None:
            return False
        return (
            order < 0
            if self.op == "<"
            else order > 0
            if self.op == ">"
            else _or_equal(self.op, order)
        )

    def __str__(self) -> str:
        """Write it in the language."""
        if self.op in {"in", "not in"}:
            return f"{self.name} {self.op} ({', '.join(_quoted(v) for v in self.values)})"
        exact = self.op in {"=", "!="}
        return f"{self.name} {self.op} {_quoted(self.values[0], exact=exact)}"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: "Node"

    def matches(self, attrs: Attributes) -> bool:
        """Say whether the part does not match."""
        return not self.part.matches(attrs)

    def __str__(self) -> str:
        """Write it in the language."""
        return f"not {_wrapped(self.part)}"


@dataclass(frozen=True, slots=True)
class Every:
    """All parts."""

    parts: tuple["Node", ...]

    def matches(self, attrs: Attributes) -> bool:
        """Say whether all parts match."""
        return all(part.matches(attrs) for part in self.parts)

    def __str__(self) -> str:
        """Write it in the language."""
        return " and ".join(_wrapped(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part."""

    parts: tuple["Node", ...]

    def matches(self, attrs: Attributes) -> bool:
        """Say whether one part matches."""
        return any(part.matches(attrs) for part in self.parts)

    def __str__(self) -> str:
        """Write it in the language."""
        return " or ".join(_wrapped(part) for part in self.parts)


Node: TypeAlias = Has | Member | Compare | Not | Every | Some


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query. `root` None matches every device; `str()` gives the query back in its own form."""

    root: Node | None = None

    def matches(self, attrs: Attributes) -> bool:
        """Say whether a device with these attributes (`cohort.attributes_of`) is meant."""
        return self.root is None or self.root.matches(attrs)

    @property
    def names(self) -> frozenset[str]:
        """Return the names that it looks at; `group` and `tag` for memberships."""
        return frozenset() if self.root is None else _names(self.root)

    def __str__(self) -> str:
        """Write it in the language; empty for everybody."""
        return "" if self.root is None else str(self.root)


@lru_cache(maxsize=4096)
def parse(text: str) -> Query:
    """Parse a query. The empty text and `rest` match every device.

    Args:
        text: untrusted, at most 1,000 characters.

    Raises:
        RequestError: `request.invalid`, with the position and, where there is one, the nearest name.
    """
    if len(text) > _MOST_TEXT:
        raise RequestError("request.invalid", f"query: longer than {_MOST_TEXT:,} characters")
    if text.strip() in {"", "rest"}:
        return Query()
    reader = _Reader(text)
    root = reader.some(0)
    reader.end()
    return Query(root)


def parse_lasting(text: str, also: Collection[str] = ()) -> Query:
    """Parse a query that goes on meaning devices while they are updated: of an audience, a group, an isolation, a way back.

    Args:
        text: untrusted, as of `parse`.
        also: further names that make no sense there.

    Raises:
        RequestError: `request.invalid`: as of `parse`, or it asks for what changes with every update, which nobody would be told of.
    """
    parsed = parse(text)
    wrong = sorted(parsed.names & (OF_UPDATE | frozenset(also)))
    if wrong:
        detail = f'query: "{wrong[0]}" changes with every update or contact, and whom this means must not'
        hint = (
            f"list these devices (tidegate device list --query '{wrong[0]} ...') and put them into "
            "a group, by name: tidegate group create NAME --devices FILE"
        )
        raise RequestError("request.invalid", detail, hint=hint)
    return parsed


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class _Reader:
    """Recursive descent over the tokens of one query."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.next = 0
        self.rsql = any(
            one.kind == "op" and (one.text in rsql.OPERATORS or one.text in rsql.PRESENCE)
            for one in self.tokens
        ) or any(
            one.kind == "word" and then.kind == "op" and rsql.is_telling(one.text)
            for one, then in pairwise(self.tokens)
        )

    def some(self, depth: int) -> Node:
        parts = [self.every(depth)]
        while self._take("word", "or") or self._take("mark", ","):
            parts.append(self.every(depth))
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def every(self, depth: int) -> Node:
        parts = [self.negated(depth)]
        while self._take("word", "and") or self._take("mark", ";"):
            parts.append(self.negated(depth))
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def negated(self, depth: int) -> Node:
        if depth > _MOST_DEPTH:
            raise self._wrong(f"nested deeper than {_MOST_DEPTH}")
        if self._take("word", "not"):
            return Not(self.negated(depth + 1))
        if self._take("mark", "("):
            inner = self.some(depth + 1)
            self._expect("mark", ")", 'a ")" is missing')
            return inner
        return self._test()

    def end(self) -> None:
        if self.next < len(self.tokens):
            raise self._wrong('"and" or "or" was expected')

    def _test(self) -> Node:
        word = self._expect("word", None, "a name was expected")
        if word.text == "has" and self._take("mark", "("):
            name = self._name(self._expect("word", None, "a name was expected"))
            self._expect("mark", ")", 'a ")" is missing')
            return Has(name)
        if ":" in word.text:
            return self._member(word)
        return self._comparison(word)

    def _member(self, word: _Token) -> Node:
        kind, _, name = word.text.partition(":")
        if kind not in _SETS:
            near = did_you_mean(kind, _SETS)
            raise self._wrong(f'"{kind}:" is not known{near}', word)
        if not name:
            name = _unquoted(self._expect("text", None, f"a name was expected after {kind}:").text)
        return Member(kind, name)

    def _comparison(self, word: _Token) -> Node:
        name = self._name(word)
        negated = self._take("word", "not")
        if self._take("word", "in"):
            return self._test_of(Compare(name, "not in" if negated else "in", self._list(name)))
        found = self._peek()
        if negated or found is None or found.kind != "op":
            hint = f' (for a group: "group:{word.text}")' if word.text not in BUILT_IN else ""
            raise self._wrong(f'a comparison was expected after "{word.text}"{hint}')
        self.next += 1
        if found.text in rsql.PRESENCE:
            return self._presence(name, found)
        op = _OPS.get(found.text)
        if op is None:
            known = ", ".join((*rsql.OPERATORS, *rsql.PRESENCE))
            raise self._wrong(
                f'"{found.text[:40]}" is no operator; of RSQL there are {known}', found
            )
        if op in {"in", "not in"}:
            return self._test_of(Compare(name, op, self._list(name)))
        if op in {"=", "!="}:
            return self._test_of(self._equal(name, op))
        return self._test_of(Compare(name, op, (self._value(name),)))

    def _presence(self, name: str, op: _Token) -> Node:
        """Read the `null` of `=is=null` and `=not=null`: whether a device has the attribute."""
        value = self._expect("word", None, "null was expected")
        if value.text.lower() != "null":
            other = "==" if op.text == "=is=" else "!="
            raise self._wrong(
                f"{op.text} takes null alone; write {name}{other}{value.text[:40]}", value
            )
        if name in _SETS:
            raise self._wrong(f"a {name} is named whole, as in {name}:lab", op)
        return Has(name) if rsql.PRESENCE[op.text] else Not(Has(name))

    def _equal(self, name: str, op: str) -> Node:
        """Read the value of `=` or `!=`: a pattern in RSQL, and with quotes only in ours where it holds a star."""
        token = self._peek()
        value = self._value(name)
        assert token is not None  # noqa: S101 - there was a value
        if self.rsql:
            written = token.text[1:-1] if token.kind == "text" else token.text
            glob = rsql.glob_of(written)
            if glob is not None:
                matched = Compare(name, "~", (glob,))
                return matched if op == "=" else Not(matched)
        elif token.kind == "word" and _WILD & set(value):
            pattern = f"{'not ' if op == '!=' else ''}{name} ~ {value}"
            problem = (
                f'write "{pattern}" for a pattern, or {name} {op} "{value}" for the text as it is'
            )
            raise self._wrong(problem, token)
        return Compare(name, op, (value,))

    def _test_of(self, test: Node) -> Node:
        """Return a comparison with a set (`tag`, `group`) as what it means: membership."""
        bare = test.part if isinstance(test, Not) else test
        if not isinstance(bare, Compare) or bare.name not in _SETS:
            return test
        if isinstance(test, Not) or bare.op not in {"=", "!=", "in", "not in"}:
            raise self._wrong(f"a {bare.name} is named whole, as in {bare.name}:lab")
        members = tuple(Member(bare.name, value) for value in bare.values)
        found: Node = members[0] if len(members) == 1 else Some(members)
        return found if bare.op in {"=", "in"} else Not(found)

    def _list(self, name: str) -> tuple[str, ...]:
        self._expect("mark", "(", 'a "(" was expected')
        values = [self._value(name)]
        while self._take("mark", ","):
            values.append(self._value(name))
        self._expect("mark", ")", 'a ")" is missing')
        return tuple(values)

    def _value(self, name: str) -> str:
        found = self._peek()
        if found is not None and found.kind == "macro":
            raise self._wrong(f'"{found.text[:40]}" is no value: {rsql.moment(found.text)}', found)
        if found is None or found.kind not in {"word", "text"}:
            raise self._wrong("a value was expected")
        self.next += 1
        value = _unquoted(found.text) if found.kind == "text" else found.text
        if name in NUMERIC and _number(value) is None:
            wanted = "a duration, as in 24h" if name == "seen" else "a number"
            raise self._wrong(f'{name} is compared with {wanted}, not "{value[:40]}"', found)
        return value

    def _name(self, word: _Token) -> str:
        name = word.text
        if self.rsql:
            name, instead = rsql.name_of(name)
            if instead:
                raise self._wrong(f'"{name[:40]}" is not known here; write {instead}', word)
        if name in BUILT_IN or name in _SETS or "." in name:
            return name
        near = nearest(name, BUILT_IN)
        if near is not None and _is_slip(name.lower(), near):
            own = f'; a device\'s own attribute of that name is "attr.{name}"'
            raise self._wrong(f'"{name}" is not known; did you mean "{near}"?{own}', word)
        return name

    def _peek(self) -> _Token | None:
        return self.tokens[self.next] if self.next < len(self.tokens) else None

    def _take(self, kind: str, text: str) -> bool:
        found = self._peek()
        if found is None or found.kind != kind or found.text.lower() != text:
            return False
        self.next += 1
        return True

    def _expect(self, kind: str, text: str | None, problem: str) -> _Token:
        found = self._peek()
        if found is None or found.kind != kind or (text is not None and found.text != text):
            raise self._wrong(problem)
        self.next += 1
        return found

    def _wrong(self, problem: str, token: _Token | None = None) -> RequestError:
        where = token or self._peek()
        at = len(self.text) if where is None else where.at
        found = "" if where is None or token is not None else f', found "{where.text[:40]}"'
        return RequestError("request.invalid", f"query, position {at + 1}: {problem}{found}")


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            problem = "the quote is not closed" if text[start] in "\"'" else "cannot be read"
            detail = f"query, position {start + 1}: {problem}: {text[start : start + 20]!r}"
            raise RequestError("request.invalid", detail)
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
        at = match.end()


def confined_to(query: Query, kind: str) -> frozenset[str]:
    """Return the groups (or tags: `kind`) that hold every device a query can match, as far as its form shows it: it is `group:NAME`, or `group:NAME and …`."""
    parts = query.root.parts if isinstance(query.root, Every) else (query.root,)
    return frozenset(one.name for one in parts if isinstance(one, Member) and one.kind == kind)


def named(query: Query, kind: str) -> frozenset[str]:
    """Return the groups (or tags: `kind`) that a query names anywhere."""
    return frozenset() if query.root is None else _named(query.root, kind)


def _named(node: Node, kind: str) -> frozenset[str]:
    match node:
        case Member():
            return frozenset({node.name} if node.kind == kind else ())
        case Has() | Compare():
            return frozenset()
        case Not():
            return _named(node.part, kind)
        case _:
            return frozenset().union(*(_named(part, kind) for part in node.parts))


def _names(node: Node) -> frozenset[str]:
    match node:
        case Has() | Compare():
            return frozenset({node.name})
        case Member():
            return frozenset({node.kind})
        case Not():
            return _names(node.part)
        case _:
            return frozenset().union(*(_names(part) for part in node.parts))


def _number(value: str) -> float | None:
    try:
        return (
            float(value)
            if re.fullmatch(r"-?\d+(\.\d+)?", value)
            else amounts.parse_duration_ms(value) / 1000
        )
    except ConfigError:
        return None


def _order(held: object, value: str) -> int | None:
    """Return how the held value stands to the written one: -1, 0 or 1; None when the two cannot be compared."""
    if isinstance(held, bool):
        return None if value not in {"true", "false"} else int(held) - int(value == "true")
    if isinstance(held, int | float):
        number = _number(value)
        return None if number is None else (held > number) - (held < number)
    text = str(held)
    if text == value:
        return 0
    mine, theirs = version_key(text), version_key(value)
    # Different spellings of one version are still different words: never equal.
    return 1 if mine > theirs or (mine == theirs and text > value) else -1


def _or_equal(op: str, order: int) -> bool:
    return order <= 0 if op == "<=" else order >= 0


def _shown(held: object) -> str:
    return str(held).lower() if isinstance(held, bool) else str(held)


def _is_slip(name: str, known: str) -> bool:
    """Say whether `name` is `known` with letters swapped, or with one too many or too few; another letter makes another word (`modem`)."""
    if sorted(name) == sorted(known):
        return True
    longer, shorter = sorted((name, known), key=len, reverse=True)
    cuts = (longer[:at] + longer[at + 1 :] for at in range(len(longer)))
    return len(longer) == len(shorter) + 1 and shorter in cuts


def _quoted(value: str, *, exact: bool = False) -> str:
    """Write a value, in quotes where it needs them; `exact`: also where a star in it is no pattern."""
    plain = re.fullmatch(r"[\w.*?+/@-]+", value) and value.lower() not in {"and", "or", "not", "in"}
    if plain and not (exact and _WILD & set(value)):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)


def _wrapped(part: Node) -> str:
    return f"({part})" if isinstance(part, Every | Some) else str(part)
