"""When the soak gate of a small fleet opens: enough of a cohort are of age, and no more of it are dead than the gate allows."""

import pytest

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence import room
from tidegate.rollout.evidence.settings import LATER, Harm

HARM = Harm(soaks=(LATER,))


def gate(eligible: int, alive: int, dead: int, *, hazard_ppb: int = 0) -> room.Age:
    """Return what the four-day gate of a fleet says; it allows 3 %."""
    row = [0] * (at.DEAD + 3)
    row[at.EXPOSED], row[at.ALIVE], row[at.DEAD] = alive + dead, alive, dead
    return room.soak(HARM, row, eligible, hazard_ppb)[0]


@pytest.mark.parametrize(
    ("eligible", "alive", "dead", "opens"),
    [
        pytest.param(500, 39, 0, False, id="too few are of age"),
        pytest.param(500, 40, 0, True, id="four fifths are, all well"),
        pytest.param(3_500, 275, 8, True, id="no more are dead than it allows"),
        pytest.param(
            3_500, 279, 11, False, id="four in a hundred are, though by chance it might be three"
        ),
        pytest.param(3_500, 545, 30, True, id="as many again came of age: the odds decide"),
        pytest.param(300, 23, 1, True, id="one is no share"),
        pytest.param(300, 22, 2, False, id="two of so few are"),
        pytest.param(20, 1, 1, False, id="one of two"),
        pytest.param(10, 0, 1, False, id="the only one"),
    ],
)
def test_a_small_fleets_gate(eligible: int, alive: int, dead: int, opens: bool) -> None:
    assert gate(eligible, alive, dead).open is opens


def test_what_devices_not_updated_lose_as_well_is_no_harm() -> None:
    # Two in a hundred in four days are lost anyway.
    assert gate(3_500, 276, 14, hazard_ppb=210_000).open
    assert not gate(3_500, 270, 20, hazard_ppb=210_000).open
