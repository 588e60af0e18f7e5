"""Settings: one file, drop-ins, the environment, options; all mistakes at once."""

from pathlib import Path

import pytest

from tidegate.core.errors import ConfigError
from tidegate.server.config import KEYS, Settings, load
from tidegate.server.config_values import split_listen


def _file(tmp_path: Path, text: str, name: str = "tidegate.toml") -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_no_file_at_all_is_a_working_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={}) == Settings()


def test_later_sources_win(tmp_path: Path) -> None:
    path = _file(
        tmp_path, '[poll]\ninterval = "5m"\nspread = "20%"\n[http]\nlisten = "127.0.0.1:1"\n'
    )
    _file(tmp_path, '[http]\nlisten = "127.0.0.1:2"\n', "tidegate.toml.d/10-more.toml")
    found = load(path, {"TIDEGATE_POLL_INTERVAL": "10s"}, {"listen": None, "tls": True})
    assert found.poll_interval_s == 10
    assert found.poll_spread_bp == 2_000
    assert found.listen == "127.0.0.1:2"
    assert found.tls is True
    assert load(path, {}, {"listen": "127.0.0.1:3"}).listen == "127.0.0.1:3"


def test_every_mistake_is_listed_with_the_nearest_known_key(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        '[pol]\n[poll]\nintervall = "5m"\nspread = 5\n[http]\nlisten = "nowhere"\n[device]\nenrol = ["claims"]\n',
    )
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    text = caught.value.detail
    assert caught.value.code == "config.unknown_key"
    for part in (
        '[pol]; did you mean "poll"',
        'did you mean "interval"',
        "[poll] spread",
        "nowhere",
        '"claim"',
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("text", "code"),
    [("[poll", "config.invalid"), (None, "config.unreadable")],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | None, code: str) -> None:
    path = tmp_path / "tidegate.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert caught.value.code == code
    assert "tidegate.toml" in caught.value.detail


def test_a_webhook_is_read_from_its_table(tmp_path: Path) -> None:
    path = _file(
        tmp_path, '[[webhook]]\nname = "ops"\nurl = "http://127.0.0.1:1/x"\nevents = ["halt"]\n'
    )
    assert load(path, {}).webhooks[0].events == ("halt",)


def test_every_key_names_a_field_of_the_settings() -> None:
    fields = set(Settings.__struct_fields__)
    assert {field for field, _ in KEYS.values()} <= fields


@pytest.mark.parametrize("text", ["", "8440", ":8440", "host:", "host:x", "host:70000"])
def test_an_address_needs_host_and_port(text: str) -> None:
    with pytest.raises(ConfigError):
        split_listen(text)


def test_an_address_may_be_of_version_six() -> None:
    assert split_listen("[::1]:8440") == ("::1", 8440)
