import csv
import io

import pytest

from tidegate.cli._supply import csv_text


@pytest.mark.parametrize(
    "text",
    ['=cmd|"/c calc"!A1', "+1+1", "-2", "@SUM(A1)", "\t=1", "\r=1", " =1", "%0a", "|x"],
)
def test_no_cell_of_an_export_is_a_formula(text: str) -> None:
    rows = list(
        csv.reader(io.StringIO(csv_text(("name", "devices"), [{"name": text, "devices": 7}])))
    )
    assert rows[1][0].startswith("'")
    assert rows[1][1] == "7"


def test_a_cell_with_commas_quotes_and_lines_stays_one_cell() -> None:
    text = 'a,"b"\nc'
    rows = list(csv.reader(io.StringIO(csv_text(("name",), [{"name": text}]))))
    assert rows == [["name"], ['a,"b"?c']]
