"""What stopping would concern, asked for by the command line: nothing is changed by it."""

import json
from pathlib import Path

import pytest
from tests.e2e.test_uploads import _token
from tests.e2e.test_ways_of_bytes import listening
from tests.unit.server.rig import Rig

from tidegate.cli import run
from tidegate.client import Client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_stopping_can_be_foreseen_and_nothing_is_changed_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(tmp_path / "data")
    try:
        rig.publish_trust(("gw1",))
        rig.rollout(rig.release(1), name="go")
        rig.device("d1")
        rig.device("d2")
        token = _token(rig, "admin")
        with listening(rig.app) as url:
            monkeypatch.setenv("TIDEGATE_SERVER", url)
            monkeypatch.setenv("TIDEGATE_TOKEN", token)
            monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
            client = Client(url, token)
            before = client.rollouts_show("go").generation
            whom = {"isolate": ["--variant", "gw1-r1"]}
            for verb in ("halt", "pause", "cancel", "isolate"):
                asked = ["rollout", verb, "go", "--dry-run", *whom.get(verb, [])]
                assert run([*asked, "--json"]) == 0
                told = json.loads(capsys.readouterr().out)
                assert (told["schema"], told["verb"]) == ("tidegate.would-act/1", verb)
                assert run(asked) == 0
                said = capsys.readouterr()
                assert f"{told['devices']:,} devices" in said.out
                assert "Nothing was changed" in said.err
            recall = ["release", "recall", "gw1-1.1.0", "--reason", "bricks", "--dry-run"]
            assert run([*recall, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["halted"] == ["go"]
            assert client.rollouts_show("go").generation == before
            assert client.releases_show("gw1-1.1.0").state == "live"
            assert run(recall[:-1]) == 0
            assert client.releases_show("gw1-1.1.0").state == "recalled"
    finally:
        rig.close()
