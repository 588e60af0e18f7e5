"""A factory's list as people's tools write it: CSV, JSON lines, arrays; and what is wrong with a line of it."""

import json
from pathlib import Path

import pytest

from tidegate.cli._factory import read
from tidegate.core.errors import ConfigError

A, B, C = {"id": "a", "public_key": "k1"}, {"id": "b", "public_key": "k2"}, {"serial": "c"}


def test_csv_with_a_byte_order_mark_empty_fields_and_attributes(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(
        b"\xef\xbb\xbfid,serial,public_key,attributes.line,attributes.plant\r\n"
        b'a,,k1,4,"north, old"\r\n\r\nb,s-2,k2,,\r\n'
    )
    found = list(read(file))
    assert [one.number for one in found] == [2, 4]
    assert found[0].entry == {**A, "attributes": {"line": "4", "plant": "north, old"}}
    assert found[1].entry == {**B, "serial": "s-2"}


def test_a_bad_csv_line_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text('id,public_key\na,k1\nx\nb,"k2"y\nb,k2\n')
    found = list(read(file))
    assert [(one.number, one.entry) for one in found if one.entry] == [(2, A), (5, B)]
    assert [one.number for one in found if one.problem] == [3, 4]


def test_an_unknown_column_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("id,publik_key\na,k1\n")
    with pytest.raises(ConfigError, match=r"publik_key.*did you mean"):
        list(read(file))


def test_json_lines_with_a_bad_one_in_the_middle(tmp_path: Path) -> None:
    file = tmp_path / "list.jsonl"
    file.write_text(
        '{"id": "a", "public_key": "k1"}\n{"id": "x"\n[1]\n{"id": "b", "public_key": "k2"}\n'
    )
    found = list(read(file))
    assert [(one.number, one.entry) for one in found if one.entry] == [(1, A), (4, B)]
    assert [one.number for one in found if one.problem] == [2, 3]


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": "a", "public_key": "k1"},{"id": "b", "public_key": "k2"},{"serial": "c"}]',
        '[\n{"id": "a", "public_key": "k1"},\n{"id": "b", "public_key": "k2"},\n{"serial": "c"}\n]\n',
        json.dumps([A, B, C], indent=2),
    ],
)
def test_arrays_however_they_are_broken_into_lines(tmp_path: Path, text: str) -> None:
    file = tmp_path / "list.json"
    file.write_text(text)
    assert [one.entry for one in read(file)] == [A, B, C]


def test_an_element_of_an_array_that_does_not_end_costs_itself_only(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_text(
        '[\n{"id": "a", "public_key": "k1"},\n{"id": "x,\n{"id": "b", "public_key": "k2"}\n]'
    )
    found = list(read(file))
    assert [(one.number, one.entry) for one in found if one.entry] == [(2, A), (4, B)]
    assert [one.number for one in found if one.problem] == [3]


def test_an_empty_file_is_an_empty_list_and_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    assert list(read(tmp_path / "empty")) == []
    with pytest.raises(ConfigError):
        list(read(tmp_path / "gone"))
