"""U-Boot's environment on a medium: the same bytes as the real fw_printenv and fw_setenv, in place, and never a guess."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ubootenv import OFFSETS, SIZE, Tools

from tidegate.agent.boot import uboot_store
from tidegate.agent.boot.uboot_env import Environment, following, make_copy, read_copy
from tidegate.agent.boot.uboot_store import Place, Store, parse_places
from tidegate.core.errors import ConfigError, DeviceError

FIRST = {
    "BOOT_ORDER": "A B",
    "bootcmd": "if test ${a} = b; then run c; fi",
    "ethaddr": "02:00:00:00:00:01",
    "equals": "a=b=c",
}


@pytest.fixture(params=[1, 2], ids=["single", "redundant"])
def tools(request: pytest.FixtureRequest, tmp_path: Path) -> Tools:
    """Both forms of the environment."""
    made = Tools(tmp_path, request.param)
    made.create(FIRST)
    return made


def _refused(store: Store) -> str:
    with pytest.raises(DeviceError) as caught:
        store.read()
    assert caught.value.code == "activate.bootloader"
    return caught.value.detail


def test_what_we_write_is_what_fw_printenv_reads(tools: Tools) -> None:
    changes = {
        "BOOT_ORDER": "B A",
        "BOOT_B_LEFT": "3",
        "words": " two  spaces = more=",
        "equals": None,
    }
    for _ in range(5):
        tools.store().change(lambda _: changes)
        wanted = FIRST | {key: value for key, value in changes.items() if value is not None}
        wanted.pop("equals")
        assert tools.printed() == wanted


def test_what_fw_setenv_writes_is_what_we_read(tools: Tools) -> None:
    for turn in range(5):
        tools.set({"BOOT_ORDER": "B A", "turn": f"{turn} = x", "equals": ""})
        env = tools.store().read()
        assert (env.get("BOOT_ORDER"), env.get("turn"), env.get("equals")) == (
            "B A",
            f"{turn} = x",
            None,
        )
        assert env.get("bootcmd") == FIRST["bootcmd"]


def test_turns_with_fw_setenv_past_the_end_of_the_flag(tmp_path: Path) -> None:
    tools = Tools(tmp_path, 2)
    tools.create(FIRST)
    for turn in range(300):
        if turn % 2 and turn > 240:
            tools.set({"turn": str(turn)})
        else:
            tools.store().change(lambda _, turn=turn: {"turn": str(turn)})  # type: ignore[misc] # a default binds it
        assert tools.store().read().get("turn") == str(turn)
        if turn > 240:
            printed = tools.printed()
            assert printed is not None
            assert printed["turn"] == str(turn)


def test_everything_else_keeps_its_bytes_and_its_place(tools: Tools) -> None:
    vendor = (b"zz=last first", b"raw=\xff\xfe\\;", b"nothing", b"twice=1", b"aa=", b"twice=2")
    flag = 7 if len(tools.offsets) == 2 else None
    body = make_copy(Environment((*vendor, b"BOOT_ORDER=A B")), SIZE, flag)
    with tools.disk.open("r+b") as file:
        file.seek(OFFSETS[0])
        file.write(body)
    tools.store().change(lambda _: {"BOOT_ORDER": "B A", "twice": "3"})
    entries = tools.store().read().entries
    assert entries == (
        b"zz=last first",
        b"raw=\xff\xfe\\;",
        b"nothing",
        b"aa=",
        b"twice=3",
        b"BOOT_ORDER=B A",
    )


def test_no_byte_outside_the_copies_is_touched(tools: Tools) -> None:
    before = tools.disk.read_bytes()
    tools.store().change(lambda _: {"x": "y"})
    after = tools.disk.read_bytes()
    spans = [range(offset, offset + SIZE) for offset in tools.offsets]
    assert len(after) == len(before)
    assert all(
        after[at] == before[at]
        for at in range(len(before))
        if not any(at in span for span in spans)
    )


def test_two_copies_are_written_by_turns_and_the_one_that_counts_is_never_touched(
    tmp_path: Path,
) -> None:
    tools = Tools(tmp_path, 2)
    tools.create(FIRST)
    tools.store().change(lambda _: {"x": "0"})
    for turn in range(1, 6):
        before = [tools.disk.read_bytes()[one : one + SIZE] for one in OFFSETS]
        tools.store().change(lambda _, turn=turn: {"x": str(turn)})  # type: ignore[misc] # a default binds it
        after = [tools.disk.read_bytes()[one : one + SIZE] for one in OFFSETS]
        changed = [one != other for one, other in zip(before, after, strict=True)]
        assert changed == ([True, False] if turn % 2 else [False, True])


def test_an_environment_that_is_nearly_full_is_written_and_a_full_one_is_not(tools: Tools) -> None:
    head = 4 if len(tools.offsets) == 1 else 5
    used = sum(len(f"{key}={value}") + 1 for key, value in FIRST.items())
    room = SIZE - head - used - 1 - len("fill=") - 1
    tools.store().change(lambda _: {"fill": "x" * room})
    printed = tools.printed()
    assert printed is not None
    assert printed["fill"] == "x" * room
    before = tools.disk.read_bytes()
    with pytest.raises(DeviceError, match="full") as caught:
        tools.store().change(lambda _: {"fill": "x" * (room + 1)})
    assert caught.value.code == "activate.bootloader"
    assert tools.disk.read_bytes() == before


def test_many_variables(tools: Tools) -> None:
    many = {f"v{n:03}": str(n) for n in range(300)}
    tools.store().change(lambda _: many)
    assert tools.printed() == FIRST | many


@pytest.mark.parametrize("spoilt", [0, 1])
def test_one_bad_copy_is_made_good_by_the_next_change(tmp_path: Path, spoilt: int) -> None:
    tools = Tools(tmp_path, 2)
    tools.create(FIRST)
    tools.store().change(lambda _: {"x": "1"})
    tools.store().change(lambda _: {"x": "1", "y": "1"})
    body = bytearray(tools.disk.read_bytes())
    body[OFFSETS[spoilt] + 9] ^= 0x40
    tools.disk.write_bytes(body)
    assert tools.store().read().get("x") == "1"
    tools.store().change(lambda _: {"x": "2"})
    assert all(
        read_copy(tools.disk.read_bytes()[one : one + SIZE], redundant=True) for one in OFFSETS
    )
    printed = tools.printed()
    assert printed is not None
    assert printed["x"] == "2"


def test_no_good_copy_is_an_error_that_says_what_to_do_and_never_a_default(tools: Tools) -> None:
    body = bytearray(tools.disk.read_bytes())
    for offset in tools.offsets:
        body[offset + 9] ^= 0x40
    tools.disk.write_bytes(body)
    assert "fw_setenv" in _refused(tools.store())
    with pytest.raises(DeviceError):
        tools.store().change(lambda _: {"x": "1"})
    assert tools.disk.read_bytes() == body
    assert tools.printed() is None


def test_what_is_already_so_is_not_written_again(tools: Tools) -> None:
    tools.store().change(lambda _: {"x": "1"})
    before = tools.disk.read_bytes()
    tools.store().change(lambda _: {"x": "1", "gone": None})
    assert tools.disk.read_bytes() == before


def test_a_copy_that_cannot_be_read_counts_as_a_bad_one(tmp_path: Path) -> None:
    tools = Tools(tmp_path, 2)
    tools.create(FIRST)
    places = (tools.store().places[0], Place(str(tmp_path / "gone"), 0, SIZE))
    store = Store(places, lock=str(tools.lock))
    assert store.read().get("equals") == "a=b=c"
    with pytest.raises(DeviceError, match="gone"):
        store.change(lambda _: {"x": "1"})
    assert "gone" in _refused(Store((places[1],), lock=str(tools.lock)))


def test_a_write_that_does_not_read_back_is_an_error(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def lossy(handle: int, body: bytes, at: int) -> int:
        real(handle, bytes(body)[:100], at)
        return len(body)

    monkeypatch.setattr("os.pwrite", lossy)
    with pytest.raises(DeviceError, match="read back"):
        tools.store().change(lambda _: {"x": "1"})


def test_flash_that_is_erased_by_blocks_is_refused(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    assert "erased" in _refused(Store((Place("/dev/null", 0, SIZE),), lock=lock))
    with pytest.raises(ConfigError, match="erased"):
        parse_places("/dev/ubi0:env 0 0x1f000\n/dev/ubi0:redund 0 0x1f000", "fw_env.config")


def test_the_lock_of_the_tools_keeps_us_waiting(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uboot_store, "LOCK_WAIT_S", 0.1)
    with tools.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "held by another program" in _refused(tools.store())
    assert tools.store().read().get("equals") == "a=b=c"


def test_two_writers_lose_nothing(tools: Tools) -> None:
    program = (
        "import sys\nfrom tidegate.agent.boot.uboot_store import Store, parse_places\n"
        "store = Store(parse_places(open(sys.argv[1]).read(), 'x'), lock=sys.argv[2])\n"
        "for _ in range(40): store.change(lambda env: {'n': str(int(env.get('n') or 0) + 1)})\n"
    )
    words = [sys.executable, "-c", program, str(tools.config), str(tools.lock)]
    both = [subprocess.Popen(words) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert tools.store().read().get("n") == "80"


def test_the_write_protection_of_a_boot_partition_is_lifted_and_put_back(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands for the device; that it is a block device is said for it."""
    seen = []
    found = tools.disk.stat()
    guard = tmp_path / "sys" / f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" / "force_ro"
    guard.parent.mkdir(parents=True)
    guard.write_text("1\n")
    real = os.pwrite

    def noting(handle: int, body: bytes, at: int) -> int:
        seen.append(guard.read_text())
        return real(handle, body, at)

    monkeypatch.setattr("os.pwrite", noting)
    monkeypatch.setattr("stat.S_ISBLK", lambda _: True)
    store = Store(tools.store().places, lock=str(tools.lock), sysfs=str(tmp_path / "sys"))
    store.change(lambda _: {"x": "1"})
    assert (seen, guard.read_text()) == (["0"], "1")


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("/dev/mmcblk0 0x400000 0x4000\n", (("/dev/mmcblk0", 0x400000, 0x4000),)),
        ("# c\n\n  # d\n/e\t4096\t1000 1000 1\n", (("/e", 4096, 0x1000),)),
        ("/e 010 4000\n", (("/e", 8, 0x4000),)),
        (
            "/e 0xC0000 0x20000\n/e -0x20000 0x20000\n/ignored 0 0x40\n",
            (("/e", 0xC0000, 0x20000), ("/e", -0x20000, 0x20000)),
        ),
    ],
)
def test_the_configuration_is_read_as_the_tools_read_it(
    text: str, places: tuple[tuple[str, int, int], ...]
) -> None:
    assert parse_places(text, "x") == tuple(Place(*one) for one in places)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "/e 0x0\n",
        "/e zero 0x4000\n",
        "/e 0 0\n",
        "/e 0 99999999\n",
        "/e 0 -4000\n",
        "/e 0 0x4000\n/f 0 0x8000\n",
        "/e 0 0x4000\n/e 0x2000 0x4000\n",
        "/e 0 0x4000\n/e 0 0x4000\n",
        "uboot:\n  size : 0x4000\n",
    ],
)
def test_a_configuration_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_places(text, "fw_env.config")
    assert caught.value.code == "config.invalid"
    assert "fw_env.config" in caught.value.detail


def test_an_offset_from_the_end(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(0x3000))
    with disk.open("r+b") as file:
        file.seek(0x2000)
        file.write(make_copy(Environment((b"a=b",)), 0x1000, None))
    lock = str(tmp_path / "lock")
    assert Store((Place(str(disk), -0x1000, 0x1000),), lock=lock).read().get("a") == "b"
    assert "ends before" in _refused(Store((Place(str(disk), -0x4000, 0x1000),), lock=lock))


def test_the_flag_goes_round() -> None:
    assert [following(one) for one in (0, 1, 254, 255)] == [1, 2, 255, 0]
