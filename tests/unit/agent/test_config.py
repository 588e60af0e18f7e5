"""`agent.toml`: fragments, environment, and every mistake at once."""

from pathlib import Path

import pytest

from tidegate.agent import config
from tidegate.core.errors import ConfigError

GOOD = """
[device]
product = "gw1"
model = "gw1"
revision = 3
id = "dev-1"
[device.attributes]
vendor = "acme"
[server]
url = "http://127.0.0.1:1"
root = "{folder}/root.json"
[[slot]]
name = "A"
path = "{folder}/A"
size = "64MiB"
[[slot]]
name = "B"
path = "/dev/mmcblk0p3"
[bootloader]
name = "file"
[bootloader.file]
path = "{folder}/boot.json"
[download]
rate = "2MiB/s"
window = ["Mon-Fri 22:00-04:00", "Sat,Sun"]
zone = "Europe/Paris"
"""


def write(folder: Path, text: str = GOOD, **more: str) -> Path:
    (folder / "root.json").write_bytes(b"{}")
    path = folder / "agent.toml"
    path.write_text(text.replace("{folder}", str(folder)) + "".join(more.values()))
    return path


def mistakes(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.read(write(folder, text), environ)
    return caught.value.detail.splitlines()


def test_a_good_file_is_understood(tmp_path: Path) -> None:
    found = config.read(write(tmp_path))
    assert found.settings.rate == 2 << 20
    assert found.settings.download_windows == ("Mon-Fri 22:00-04:00", "Sat,Sun")
    assert found.settings.download_zone == "Europe/Paris"
    assert found.settings.attributes == {"vendor": "acme"}
    assert found.slots == {
        "A": (f"{tmp_path}/A", 64 << 20),
        "B": ("/dev/mmcblk0p3", None),
    }
    assert found.boot_settings["path"] == f"{tmp_path}/boot.json"
    assert (found.socket_mode, found.settings.hold_max_s) == (0o660, 7 * 86_400)


def test_drop_ins_come_later_in_name_order_and_the_environment_last(tmp_path: Path) -> None:
    path = write(tmp_path)
    folder = tmp_path / "agent.toml.d"
    folder.mkdir()
    (folder / "20.toml").write_text('[device]\nsite = "two"\nregion = "eu"\n')
    (folder / "10.toml").write_text('[device]\nsite = "one"\n[[slot]]\nname = "A"\nsize = "8MiB"\n')
    found = config.read(path, {"TIDEGATE_AGENT_DEVICE_REGION": "us", "PATH": "x"})
    assert (found.settings.site, found.settings.region) == ("two", "us")
    assert found.slots["A"] == (f"{tmp_path}/A", 8 << 20)
    shown = config.show(path, {"TIDEGATE_AGENT_DEVICE_REGION": "us"}, origin=True)
    assert "device.region = 'us'   # TIDEGATE_AGENT_DEVICE_REGION" in shown
    assert f"device.site = 'two'   # {folder / '20.toml'}" in shown


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    found = mistakes(tmp_path, GOOD + 'rat = "1MiB/s"\n')
    assert found == [
        f'{tmp_path}/agent.toml: unknown key download.rat; did you mean "download.rate"?'
    ]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("[poll]\ninterval = 300\n", "interval"),
        ('[activate]\nwindow = ["25:00-26:00"]\n', "window"),
        ('[activate]\nzone = "Europe/Pari"\n', "zone"),
        ('[health]\nconfirm = "maybe"\n', "confirm"),
        ('[socket]\nmode = "0999"\n', "mode"),
        ("[installer]\nallow = 3\n", "allow"),
        ("[state]\ndir = 7\n", "dir"),
        ("[slots]\n", "slots"),
        ("slot = 3\n", "slot"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, line: str, word: str) -> None:
    text = GOOD + line
    if line.startswith("slot"):
        text = line + GOOD.replace("[[slot]]", "[[slat]]")
    assert any(word in one for one in mistakes(tmp_path, text))


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('product = "gw1"\n', "").replace("2MiB/s", "2")
    found = mistakes(tmp_path, text + '[pol]\ninterval = "5m"\n')
    assert len(found) == 3


def test_two_slots_are_needed(tmp_path: Path) -> None:
    text = GOOD.replace('[[slot]]\nname = "B"\npath = "/dev/mmcblk0p3"\n', "")
    assert mistakes(tmp_path, text) == ["[[slot]]: two are needed, 1 are there"]


def test_broken_toml_and_a_missing_file_say_where(tmp_path: Path) -> None:
    assert "agent.toml" in mistakes(tmp_path, "[device\n")[0]
    with pytest.raises(ConfigError) as caught:
        config.read(tmp_path / "none.toml")
    assert caught.value.code == "config.unreadable"


def test_the_revision_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "rev").write_text("5\n")
    text = GOOD.replace("revision = 3", 'revision_file = "{folder}/rev"')
    assert config.read(write(tmp_path, text)).settings.hardware.rev == 5
    assert mistakes(tmp_path, GOOD.replace("revision = 3", "")) == [
        "device.revision or device.revision_file is missing"
    ]


def test_a_device_id_that_the_wire_refuses_is_refused_here(tmp_path: Path) -> None:
    assert mistakes(tmp_path, GOOD.replace('"dev-1"', '"not an id"')) != []


def test_other_components_are_told_by_counter_and_where_needed_by_image(tmp_path: Path) -> None:
    image = "ab" * 32
    more = f'\n[components]\nmcu = 40\nradio = "7 {image}"\n'
    found = config.read(write(tmp_path, GOOD + more), {}).settings.components
    assert (found["mcu"].counter, found["mcu"].sha256) == (40, None)
    assert (found["radio"].counter, found["radio"].sha256) == (7, image)
    for wrong in ('"x"', '"40 short"', '"-1"', f'"{image}"', "[1]"):
        said = mistakes(tmp_path, f"{GOOD}\n[components]\nmcu = {wrong}\n")
        assert "components.mcu" in said[0]


def test_components_beside_the_slots_have_a_folder_each(tmp_path: Path) -> None:
    text = f'[component.app]\npath = "{tmp_path}/app"\n[component.motd]\n[state]\ndir = "{tmp_path}/s"\n'
    found = config.read(write(tmp_path, GOOD + text), {})
    assert found.beside == {"app": f"{tmp_path}/app", "motd": f"{tmp_path}/s/components/motd"}
    assert found.settings.beside == ("app", "motd")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[component.app]\npath = "relative"\n', "absolute"),
        ("[component.app]\npath = 3\n", "absolute"),
        ('[component.app]\npaht = "/x"\n', "component.app.paht"),
        ('[component.a]\npath = "/x"\n[component.b]\npath = "/x/"\n', "another component"),
        ("[component.mcu]\n[components]\nmcu = 3\n", "either"),
        ("[component]\napp = 3\n", "table"),
        ("component = 3\n", "component"),
    ],
)
def test_a_component_that_cannot_be_is_named(tmp_path: Path, text: str, word: str) -> None:
    whole = text + GOOD if text.startswith("component =") else GOOD + text
    assert any(word in one for one in mistakes(tmp_path, whole))
