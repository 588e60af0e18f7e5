"""`tidegate job` and `tidegate upload` over real HTTP."""

import json
import threading
from typing import Any

import pytest
from tests.e2e.test_api_cli import Cli, cli, served
from tests.unit.server.rig import Rig

from tidegate.cli.client import find_client
from tidegate.client import structs

__all__ = ["cli", "served"]
pytestmark = pytest.mark.e2e


def _begin(confirm: int, **order: Any) -> str:
    """Begin a job about so many devices; return its number."""
    made = find_client(None, None).jobs_create(structs.NewJob(confirm=confirm, **order))
    return str(made.number)


def _fleet(served: Rig, count: int) -> list[str]:
    names = [f"d{number}" for number in range(count)]
    for name in names:
        served.device(name)
    return names


def test_a_job_is_listed_shown_and_waited_for(served: Rig, cli: Cli) -> None:
    names = _fleet(served, 3)
    assert cli("job", "list") == (0, "", "none\n")
    number = _begin(3, act="tag", devices=names, tags=["lab"])
    code, out, _ = cli("job", "list")
    assert code == 0
    assert out.splitlines()[1].split()[:6] == [number, "tag", "running", "3", "3", "0"]
    code, out, _ = cli("job", "wait", number, "--timeout", "1s")
    assert (code, "3 left" in out) == (12, True)
    # it is not over when it is first looked at
    threading.Timer(0.5, served.app.tick).start()
    code, out, _ = cli("job", "wait", number, "--timeout", "30s", "--every", "1s")
    assert (code, out) == (0, f"job {number}   tag   done   3 devices: 3 done\n")
    assert cli("job", "list", "--state", "running")[2] == "none\n"
    found = json.loads(cli("job", "list", "--json")[1])
    assert (found["schema"], len(found["items"])) == ("tidegate.jobs/1", 1)
    named = json.loads(cli("job", "show", number, "--state", "done", "--json")[1])
    assert (named["schema"], named["done"]) == ("tidegate.job/1", 3)
    assert [one["device"] for one in named["items"]] == names


def test_what_was_refused_is_named_and_fails_a_script(served: Rig, cli: Cli) -> None:
    names = _fleet(served, 3)
    assert cli("device", "decommission", "d1", "--yes", "--reason", "scrapped")[0] == 0
    number = _begin(3, act="revoke", devices=names, reason="stolen van")
    served.app.tick()
    assert cli("job", "wait", number)[0] == 10
    code, out, err = cli("job", "show", number)
    assert (code, err) == (0, "")
    assert "3 devices: 2 done, 1 failed" in out
    assert "stolen van" in out
    (line,) = [one for one in out.splitlines() if one.startswith("d1 ")]
    assert line.split()[:3] == ["d1", "failed", "request.conflict"]
    code, out, err = cli("job", "show", number, "--state", "all", "--limit", "2")
    assert [one.split()[0] for one in out.splitlines()[-2:]] == ["d0", "d1"]
    assert "More than 2" in err


def test_a_job_is_cancelled_once_and_a_done_one_is_not(served: Rig, cli: Cli) -> None:
    names = _fleet(served, 2)
    number = _begin(2, act="tag", devices=names, tags=["lab"])
    for _ in range(2):
        code, out, _ = cli("job", "cancel", number, "--reason", "wrong query")
        assert (code, "cancelled" in out, "2 left" in out) == (0, True, True)
    assert cli("job", "wait", number)[0] == 11
    log = find_client(None, None).audit_list()
    assert "wrong query" in str([one for one in log if one.action == "job.cancel"])
    done = _begin(2, act="tag", devices=names, tags=["lab"])
    served.app.tick()
    assert cli("job", "cancel", done)[0] == 6
    assert cli("job", "show", "99")[0] == 5
    assert cli("job", "show", "lab")[0] == 2


@pytest.mark.usefixtures("served")
def test_uploads_are_listed_and_aborted(cli: Cli) -> None:
    assert cli("upload", "list") == (0, "", "nothing is on its way\n")
    wanted = structs.NewUpload(sha256="1" * 64, length=20_000_000)
    found = find_client(None, None).uploads_create(wanted)
    find_client(None, None).uploads_change(found.id, b"x" * found.part_bytes, offset=0)
    code, out, _ = cli("upload", "list")
    percent = 100 * found.part_bytes // 20_000_000
    assert code == 0
    assert out.splitlines()[1].startswith(f"{found.id}  open   {percent} % of 20 MB")
    (told,) = json.loads(cli("upload", "list", "--json")[1])["items"]
    assert (told["id"], told["offset"]) == (found.id, found.part_bytes)
    assert cli("upload", "abort", found.id)[0] == 0
    assert cli("upload", "list")[2] == "nothing is on its way\n"
    assert cli("upload", "abort", found.id)[0] == 5
