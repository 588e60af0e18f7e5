"""The query language: what matches, how it is written back, and what is said about mistakes."""

from typing import Any

import pytest

from tidegate.core.errors import RequestError
from tidegate.rollout import cohort, query

DEVICE = cohort.attributes_of(
    id="gw1-0001",
    product="gw1",
    model="gw1",
    revision=3,
    variant="gw1-r3",
    channel="stable",
    site="lyon-2",
    agent="1.10.0",
    release="gw1-2.4.0",
    counter=117,
    state="staged",
    seen=7200,
    groups=["pilot", "two words"],
    tags=["lab"],
    own={"modem": "ec25", "modem.firmware": "2.10", "site": "forged", "spare": True, "slots": 2},
)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("rest", True),
        ('model = "gw1"', True),
        ("model = gw2", False),
        ("revision >= 3 and revision < 4", True),
        ("revision != 3", False),
        ("revision in (1, 2, 3)", True),
        ("revision not in (1, 2)", True),
        ("tag:lab", True),
        ("group:pilot", True),
        ('group:"two words"', True),
        ("group:internal", False),
        ("not group:internal", True),
        ("not (tag:lab or group:frozen)", False),
        ("variant in (gw1-r3, gw1-r4)", True),
        ("site ~ lyon-*", True),
        ("site ~ Lyon-*", False),
        ("release = gw1-2.4.0", True),
        ("state != confirmed", True),
        ("seen < 24h", True),
        ("seen < 1h", False),
        ("seen >= 2h", True),
        ("counter > 116", True),
        ("has(modem)", True),
        ("has(nothing.there)", False),
        ("modem = ec25", True),
        ("modem.firmware >= 2.9", True),
        ("modem.firmware < 2.9", False),
        ("agent > 1.9", True),
        ("spare = true", True),
        ("spare = false", False),
        ("slots = 2", True),
        ("slots > 1.5", True),
        ("site = forged", False),
        ("attr.site = forged", True),
        ("nothing.there = x", False),
        ("nothing.there != x", True),
        ("nothing.there < x", False),
        ("nothing.there ~ *", False),
        ("nothing.there in (x)", False),
        ("nothing.there not in (x)", True),
        ("modem > zz or model = gw1", True),
        ("model = gw2 and model = gw1 or model = gw1", True),
        ("model = gw2 and (model = gw1 or model = gw1)", False),
        ("NOT model = gw2 AND tag:lab", True),
        ("model==gw1;revision=ge=3", True),
        ("model==gw*", True),
        ("model==gw2,tag:lab", True),
        ("revision=in=(1,2)", False),
        ("revision=out=(1,2)", True),
        ("revision=lt=4;revision=gt=2;revision=le=3", True),
        ("group = pilot", True),
        ("group != pilot", False),
        ("tag in (lab, field)", True),
        ("tag not in (lab, field)", False),
        ("tag==lab;group=out=(internal)", True),
        ('site = "lyon-*"', False),
        ("site==lyon-*", True),
        ("site=='lyon-*'", True),
        ("site==lyon-*;site!=*-3", True),
        ("site==lyon-*;site!=*-2", False),
        (r"site=='lyon-\*'", False),
        ("site==lyon-?;model==gw1", False),
        ("controllerId==gw1-0001", True),
        ("attribute.modem==ec*", True),
        ("metadata.modem=eq=ec25", True),
        ("attribute.nothing=ne=x", True),
    ],
)
def test_a_query_matches_as_it_reads(text: str, *, matches: bool) -> None:
    assert matches is query.parse(text).matches(DEVICE)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("rest", ""),
        (
            'model="gw1"   and (tag:lab or group:x)',
            "model = gw1 and (tag:lab or group:x)",
        ),
        ("model==gw1;revision=gt=3,site=='a b'", '(model = gw1 and revision > 3) or site = "a b"'),
        ("revision=out=(1,2)", "revision not in (1, 2)"),
        ('site = "say \\"x\\""', 'site = "say \\"x\\""'),
        ("not not tag:lab", "not not tag:lab"),
        ("site = 'or'", 'site = "or"'),
        ("has( modem )", "has(modem)"),
        ("model==gw*", "model ~ gw*"),
        ("model!=gw*;model==g*", "not model ~ gw* and model ~ g*"),
        ("model=='g?[1]*'", 'model ~ "g[?][[]1]*"'),
        (r"model=='\**'", 'model ~ "[*]*"'),
        ('model = "gw*"', 'model = "gw*"'),
        ("controllerid=in=(a,b)", "id in (a, b)"),
        ("tag=in=(a,b)", "tag:a or tag:b"),
        ("tag != a", "not tag:a"),
        ("controllerId != a*", "not id ~ a*"),
        ("attribute.temp>20 and attribute.temp<=30", "attr.temp > 20 and attr.temp <= 30"),
        ("attr.attribute.temp > 20", "attr.attribute.temp > 20"),
        ("model = controllerId", "model = controllerId"),
        ("tag.name==a", "tag:a"),
        ("attribute.modem.firmware=ge=2.10", "attr.modem.firmware >= 2.10"),
    ],
)
def test_a_query_is_written_back_in_its_own_form_and_read_again(text: str, written: str) -> None:
    assert written == str(query.parse(text))
    assert query.parse(text) == query.parse(written)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("modle = gw1", 'position 1: "modle" is not known; did you mean "model"?'),
        ("revison = 3", 'did you mean "revision"?'),
        ("revision > x", 'position 12: revision is compared with a number, not "x"'),
        ("seen < soon", "seen is compared with a duration"),
        ("internal", 'for a group: "group:internal"'),
        ("state", "a comparison was expected"),
        ("model =", "position 8: a value was expected"),
        ("model = = x", 'a value was expected, found "="'),
        ("model not = x", "a comparison was expected"),
        ("grop:x", 'did you mean "group"?'),
        ("tag:", "a name was expected after tag:"),
        ('model = "abc', "position 9: the quote is not closed"),
        ("model = gw1 site = x", '"and" or "or" was expected, found "site"'),
        ("variant in (a, b", 'a ")" is missing'),
        ("variant in a", 'a "(" was expected'),
        ("(model = a", 'a ")" is missing'),
        ("model = a)", '"and" or "or" was expected'),
        ("has(model", 'a ")" is missing'),
        ("$", "position 1: cannot be read"),
        ("(" * 60 + "model = a", "nested deeper than 24"),
        ("not " * 60 + "model = a", "nested deeper than 24"),
        ("model = a or " * 90 + "model = a", "longer than 1,000 characters"),
        ("and", "a comparison was expected"),
        ("site = lyon-*", 'write "site ~ lyon-*" for a pattern'),
        ("site != lyon-*", 'write "not site ~ lyon-*" for a pattern'),
        ("model=like=gw", '"=like=" is no operator; of RSQL there are ==, =eq='),
        ("updateStatus==in_sync", '"updateStatus" is not known here; write state = confirmed'),
        ("model==gw1;name==x", '"name" is not known here; write id = gw1-0001'),
        ("installedds.version==1.0.0", "write release = gw1-2.4.1"),
        ("installedds!=4", "write release = gw1-2.4.1"),
        ("updatestatus != in_sync", '"updatestatus" is not known here; write state = confirmed'),
        ("revision > 2 and lastControllerRequestAt > 1700000000000", "write seen < 24h"),
        ("tag==a;createdBy!=x", "write attr.createdby"),
        ("type.key==gw1", "write model = gw1"),
        ("tag > a", "a tag is named whole, as in tag:lab"),
        ("group==lab*", "a group is named whole, as in group:lab"),
        ("= x", "a name was expected"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, part: str) -> None:
    with pytest.raises(RequestError) as caught:
        query.parse(text)
    assert caught.value.code == "request.invalid"
    assert part in caught.value.detail


@pytest.mark.parametrize("name", ["modem", "firmware", "sensor", "attr.modle", "a.b.c"])
def test_a_devices_own_attribute_is_no_slip(name: str) -> None:
    assert f"{name} = x" == str(query.parse(f"{name} = x"))


def test_own_attributes_never_hide_a_built_in_one() -> None:
    forged: dict[str, Any] = {"group": "pilot", "tag": "lab", "model": "gw9", "seen": 0}
    attrs = cohort.attributes_of(model="gw1", revision=1, variant="gw1-r1", own=forged)
    assert not query.parse("group:pilot or tag:lab or model = gw9 or seen < 1h").matches(attrs)


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("attribute.os=is=null", "not has(attr.os)"),
        ("attribute.os =not= NULL", "has(attr.os)"),
        ("site=is=null;region==eu", "not has(site) and region = eu"),
        ("metadata.fw=not=null,controllerId==a*", "has(attr.fw) or id ~ a*"),
    ],
)
def test_hawkbits_null_asks_whether_a_device_has_it(written: str, ours: str) -> None:
    assert str(query.parse(written)) == ours
    assert query.parse(ours) == query.parse(str(query.parse(ours)))


def test_a_device_without_the_attribute_is_found_by_null() -> None:
    assert query.parse("attribute.os=is=null").matches({"id": "a"})
    assert not query.parse("attribute.os=is=null").matches({"attr.os": "linux"})
    assert query.parse("attribute.os=not=null").matches({"attr.os": "linux"})


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("attribute.os=is=linux", "=is= takes null alone; write attr.os==linux"),
        ("attribute.os=not=linux", "write attr.os!=linux"),
        ("tag=is=null", "tag:lab"),
        ("attribute.os=is=", "null was expected"),
        ("lastcontrollerrequestat=le=${OVERDUE_TS}", "seen > 24h for one that is overdue"),
        ("attribute.made=lt=${NOW_TS}", "times are ages here: write seen < 24h"),
        ("attr.made < ${overdue_ts}", "write seen > 24h"),
        ("attr.made < ${nobody}", "${NOW_TS} and ${OVERDUE_TS}"),
        ("attr.made in (${NOW_TS})", "times are ages here"),
    ],
)
def test_what_hawkbit_says_and_nobody_can_mean_here_is_refused_with_advice(
    written: str, says: str
) -> None:
    with pytest.raises(RequestError) as caught:
        query.parse(written)
    assert says in caught.value.detail


@pytest.mark.parametrize(
    "text", ["state = failed", "not (site = a or reason ~ boot.*)", "rollout != gw1-2.4.1"]
)
def test_whoever_is_meant_for_good_is_not_told_by_an_update(text: str) -> None:
    assert query.parse(text).names
    with pytest.raises(RequestError, match="changes with every update") as caught:
        query.parse_lasting(text)
    assert "tidegate group create" in caught.value.hint
    assert query.parse_lasting("attr.state = x and seen < 1d").names == {"attr.state", "seen"}
