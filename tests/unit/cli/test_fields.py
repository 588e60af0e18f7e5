"""`--fields` of lists: what is kept, in which order, and what is no field."""

import json
from collections.abc import Sequence

import click
import msgspec
import pytest

from tidegate.cli import names, program, run
from tidegate.cli.output import Output, with_list
from tidegate.core.errors import RequestError

Captured = pytest.CaptureFixture[str]


class _Slot(msgspec.Struct):
    state: str
    counter: int


class _Thing(msgspec.Struct):
    id: str
    at: int
    slot: _Slot


THINGS = (_Thing("d1", 7, _Slot("good", 3)), _Thing("d2", 8, _Slot("bad", 4)))


def _told(capsys: Captured, *arguments: str, items: Sequence[_Thing] = THINGS) -> str:
    @click.command()
    @with_list(_Thing)
    def listing(out: Output) -> None:
        shown = items if out.json else [{**msgspec.to_builtins(one), "when": "noon"} for one in items]  # fmt: skip
        out.table("things/1", shown, ("id", "when"))

    capsys.readouterr()
    listing.main([*arguments], standalone_mode=False)
    return capsys.readouterr().out


def test_without_fields_a_list_is_as_it_was(capsys: Captured) -> None:
    assert _told(capsys).split("\n")[:2] == ["ID  WHEN", "d1  noon"]
    assert json.loads(_told(capsys, "--json"))["items"] == [msgspec.to_builtins(one) for one in THINGS]  # fmt: skip


def test_json_keeps_what_was_chosen_in_its_order(capsys: Captured) -> None:
    told = json.loads(_told(capsys, "--json", "--fields", "slot.state,id"))
    assert told["schema"] == "tidegate.things/1"
    assert [list(one.items()) for one in told["items"]] == [
        [("slot", {"state": "good"}), ("id", "d1")],
        [("slot", {"state": "bad"}), ("id", "d2")],
    ]


def test_a_table_has_these_columns_in_this_order(capsys: Captured) -> None:
    lines = _told(capsys, "--fields", "slot.counter, when,at").splitlines()
    assert [one.split() for one in lines] == [
        ["COUNTER", "WHEN", "AT"],
        ["3", "noon", "7"],
        ["4", "noon", "8"],
    ]


@pytest.mark.parametrize("items", [THINGS, ()])
@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        (["--fields", "id,stat"], "at, id, slot, when"),
        (["--json", "--fields", "id,stat"], "at, id, slot"),
        # what is made for people is no field of the API
        (["--json", "--fields", "when"], "at, id, slot"),
    ],
)
def test_a_name_that_is_no_field_is_refused_with_those_that_are(
    capsys: Captured, arguments: list[str], known: str, items: Sequence[_Thing]
) -> None:
    with pytest.raises(RequestError) as refused:
        _told(capsys, *arguments, items=items)
    assert refused.value.code == "request.invalid"
    assert refused.value.hint == f"known: {known}"
    assert arguments[-1].rpartition(",")[2] in refused.value.detail
    assert capsys.readouterr().out == ""


def test_nothing_chosen_is_refused(capsys: Captured) -> None:
    with pytest.raises(RequestError):
        _told(capsys, "--fields", " , ")


def _leaf(command: click.Command | None) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return [] if command is None else [("", command)]
    return [
        (f"{name} {rest}".strip(), found)
        for name, one in command.commands.items()
        for rest, found in _leaf(one)
    ]


def test_every_list_of_the_server_can_be_cut() -> None:
    context = click.Context(program)
    without = [
        f"{noun} {verb}"
        for noun in names()
        for verb, found in _leaf(program.get_command(context, noun))
        if verb.split()[-1:] == ["list"] and "fields" not in {one.name for one in found.params}
    ]
    # those of files on this machine
    assert without == ["keys list"]


def test_a_wrong_name_is_told_by_the_command_line_too(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.client.Client.groups_list", lambda _, **__: [])
    assert run(["group", "list", "--fields", "nam"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert 'error[request.invalid]: --fields: no field "nam"; did you mean "name"?' in said.err


def test_csv_does_not_pass_over_a_choice(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.client.Client.incidents_cohort_list", lambda *_, **__: [])
    asked = ["incident", "cohort", "INC-2026-014", "--format", "csv"]
    assert run(asked) == 0
    assert run([*asked, "--fields", "device"]) == 2
    assert "--fields is for the table" in capsys.readouterr().err
