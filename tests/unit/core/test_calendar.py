import re

import pytest
from tests.unit.core.repo import DAY, NOW

from tidegate.core.calendar import Due, Level, days, due_of, entries, icalendar, level


def server(expires_in: int, life: int = 2 * DAY) -> Due:
    expires_at = NOW + expires_in
    return Due(
        role="timestamp", version=1, expires_at=expires_at, keeper="server",
        renew_at=expires_at - life // 2, fix="start the server",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("role", "left_days", "expected"),
    [
        ("root", 61, "ok"),
        ("root", 60, "soon"),
        ("targets", 31, "ok"),
        ("targets", 30, "soon"),
        ("product/gw1", 8, "soon"),
        ("product/gw1", 7, "urgent"),
        ("root", 0, "expired"),
        ("targets", -3, "expired"),
    ],
)
def test_people_are_told_while_there_is_time(role: str, left_days: int, expected: Level) -> None:
    assert level(due_of(role, 1, NOW + left_days * DAY), NOW) == expected


def test_a_server_that_does_not_renew_is_late_long_before_anything_lapses() -> None:
    assert level(server(DAY + 3600), NOW) == "ok"
    assert level(server(DAY - 3600), NOW) == "ok"
    assert level(server(DAY - 3 * 3600), NOW) == "late"
    assert level(server(0), NOW) == "expired"


def test_a_grant_that_ends_is_no_alarm() -> None:
    grant = Due(role="grant/gw1-7", version=7, expires_at=NOW + DAY)
    assert level(grant, NOW) == "ok"
    assert "VALARM" not in icalendar(entries([grant], NOW), now=NOW, place="x")


def test_the_first_to_lapse_comes_first() -> None:
    found = entries([due_of("root", 1, NOW + 9 * DAY), due_of("targets", 3, NOW + DAY)], NOW)
    assert [(one.role, one.expires_in_s) for one in found] == [("targets", DAY), ("root", 9 * DAY)]
    assert found[0].fix.startswith("tidegate targets begin")


def test_begun_days_count() -> None:
    assert (days(1), days(DAY), days(DAY + 1), days(0)) == (1, 1, 2, 0)


def unfolded(text: str) -> list[str]:
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    raw = text.split("\r\n")[:-1]
    assert max(len(line.encode()) for line in raw) <= 75
    return text.replace("\r\n ", "").split("\r\n")[:-1]


def test_the_file_is_an_icalendar_with_alarms_at_30_14_and_7_days() -> None:
    dues = [
        due_of("root", 3, NOW + 100 * DAY),
        due_of("product/straße-mit-einem-sehr-langen-namen-" + "ü" * 60, 12, NOW + 40 * DAY),
        server(DAY),
    ]
    lines = unfolded(icalendar(entries(dues, NOW), now=NOW, place="acme; east, 1"))
    assert (lines[0], lines[-1]) == ("BEGIN:VCALENDAR", "END:VCALENDAR")
    depth: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        assert re.fullmatch(r"[A-Z-]+", name), line
        if name == "BEGIN":
            depth.append(value)
        elif name == "END":
            assert depth.pop() == value
    assert depth == []
    triggers = [line for line in lines if line.startswith("TRIGGER")]
    product = [f"TRIGGER:-P{n}D" for n in (30, 14, 7)]
    assert triggers == [*product, "TRIGGER:-P60D", *product]
    assert not any("timestamp" in line for line in lines)
    assert any(r"acme\; east\, 1" in line for line in lines)
    uids = [line for line in lines if line.startswith("UID")]
    assert len(set(uids)) == 2


def test_a_line_break_in_a_name_starts_no_line_of_the_file() -> None:
    due = due_of("product/x\r\nEND:VCALENDAR", 1, NOW + DAY)
    lines = unfolded(icalendar(entries([due], NOW), now=NOW, place="x"))
    assert lines.count("END:VCALENDAR") == 1
