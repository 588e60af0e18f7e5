"""Server processes that simulations start: what is told of one that did not start."""

from pathlib import Path

import pytest

from tidegate.core.errors import ConfigError
from tidegate.sim.processes import Server, free_port


def test_quotes_the_log_of_a_server_that_did_not_start_without_its_first_password(
    tmp_path: Path,
) -> None:
    log = tmp_path / "server.log"
    log.write_text("  made  account admin            password: plum anvil stork reed\n")
    with pytest.raises(ConfigError) as told:
        Server(tmp_path / "data", free_port(), log, ("--no-such-option",))
    said = str(told.value)
    assert "no-such-option" in said
    assert "account admin" in said
    assert not any(word in said for word in ("plum", "anvil", "stork", "reed"))
