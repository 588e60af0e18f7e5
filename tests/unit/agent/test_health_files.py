"""The device's own policy, and where errors are counted: read strictly, told at once."""

from pathlib import Path
from typing import Any

import pytest

from tidegate.agent.checkup import health_files
from tidegate.agent.checkup.contract import HealthPolicy
from tidegate.agent.settings import ErrorSource, WatchdogSettings
from tidegate.core.errors import ConfigError


def values(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "health.dir": (),
        "health.warm_up": 0,
        "health.errors_per_hour": None,
        "health.drop": (),
        "errors.file": None,
        "errors.metrics": None,
        "errors.metric": "",
        "errors.journal": None,
        "errors.units": (),
        "server.timeout": 30,
        "watchdog.device": None,
        "watchdog.timeout": 120,
        "watchdog.pretimeout": 0,
        "watchdog.when": "trial",
    }
    return found | {key.replace("__", "."): one for key, one in changes.items()}


def refused(call: Any, wanted: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        call(wanted)
    return error.value.detail


def folder(tmp_path: Path, name: str, **files: str) -> str:
    made = tmp_path / name
    made.mkdir()
    for file, text in files.items():
        (made / f"{file}.toml").write_text(text)
    return str(made)


DISK = '[[check]]\ntype = "resource"\nname = "data"\ndisk = ["/data:10%"]\n'


def test_without_files_and_keys_there_is_no_policy() -> None:
    assert health_files.policy(values()) == HealthPolicy()
    assert health_files.policy(values(health__dir=("/no/such/place",))) == HealthPolicy()


def test_the_strictest_word_of_all_holds(tmp_path: Path) -> None:
    first = folder(tmp_path, "a", one='warm_up = "10m"\nerrors_per_hour = 9\ndrop = ["x"]\n')
    second = folder(tmp_path, "b", two=f'errors_per_hour = 4\ndrop = ["x", "y"]\n{DISK}')
    given = values(health__dir=(first, second), health__warm_up=60, health__errors_per_hour=7)
    found = health_files.policy(given)
    assert (found.warmup_s, found.error_rate_per_hour) == (600, 4)
    assert found.drop == ("x", "y")
    assert [one.name for one in found.checks] == ["data"]


def test_a_file_of_the_same_name_in_a_later_folder_replaces_the_earlier(tmp_path: Path) -> None:
    image = folder(tmp_path, "usr", site=DISK)
    assert health_files.policy(values(health__dir=(image,))).checks
    masked = folder(tmp_path, "etc", site="")
    assert health_files.policy(values(health__dir=(image, masked))) == HealthPolicy()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("warmup = 3", 'unknown key warmup; did you mean "warm_up"?'),
        ('warm_up = "soon"', "warm_up"),
        ("errors_per_hour = -1", "errors_per_hour"),
        ("check = 1", "[[check]]"),
        ("[[check]]\nname = 'x'", "without type"),
        ("[[check]]\ntype = 'resorce'", 'did you mean "resource"?'),
        ("[[check]]\ntype = 'resource'\ndiscs = ['/:1%']", "no setting 'discs'"),
        ("[[check]]\ntype = 'command'", "which program"),
        (DISK + DISK, "two checks are called data"),
        ("not toml", "site.toml"),
    ],
)
def test_a_mistake_is_told_with_its_file(tmp_path: Path, text: str, words: str) -> None:
    place = folder(tmp_path, "etc", site=text)
    assert words in refused(health_files.policy, values(health__dir=(place,)))


def test_errors_are_counted_in_one_place() -> None:
    found = health_files.error_source(values(errors__journal="err", errors__units=("app",)))
    assert found == ErrorSource(journal="err", units=("app",))
    assert "one of" in refused(
        health_files.error_source, values(errors__journal="err", errors__file="/x")
    )
    assert 'did you mean "err"?' in refused(
        health_files.error_source, values(errors__journal="error")
    )
    assert "belong together" in refused(
        health_files.error_source, values(errors__metrics="/x.prom")
    )
    assert "metric" in refused(
        health_files.error_source, values(errors__metrics="/x.prom", errors__metric="a{")
    )


def test_a_watchdog_must_outlast_a_server_that_does_not_answer() -> None:
    assert health_files.watchdog(values()) is None
    found = health_files.watchdog(values(watchdog__device="/dev/watchdog"))
    assert found == WatchdogSettings(device="/dev/watchdog", timeout_s=120, least_s=110)
    short = values(watchdog__device="/dev/watchdog", watchdog__timeout=60)
    assert "at least 110 s" in refused(health_files.watchdog, short)
    assert "trial or always" in refused(health_files.watchdog, values(watchdog__when="never"))
    late = values(watchdog__device="/dev/watchdog", watchdog__pretimeout=120)
    assert "pretimeout" in refused(health_files.watchdog, late)
