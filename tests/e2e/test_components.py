"""Components beside the slots with the real agent, server and file system: update modules of Debian's `mender-client` unchanged, archives, and all at once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.plant import PRODUCT, Plant, slot_digest

from tidegate.sim.cast import ReleasePlan
from tidegate.sim.virtual_board import VirtualBoard, wait_for
from tidegate.sim.workshop import Recipe, contract

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]

NAME = "board-1"
MODULES = Path("/usr/share/mender/modules/v3")


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    if made.served.process.poll() is None:
        made.served.kill()


def needs(module: str) -> None:
    if not (MODULES / module).exists():
        pytest.skip("tier: no update modules here; install the Debian package mender-client")


def board_with(plant: Plant, text: str) -> tuple[Path, VirtualBoard]:
    """Make a board whose agent keeps components, and start it."""
    board = plant.board(NAME, plant.release(1))
    path = board / "agent.toml"
    path.write_text(path.read_text() + text)
    device = VirtualBoard(board)
    device.start()
    return board, device


def publish(plant: Plant, counter: int, *recipes: Recipe) -> None:
    """Publish a release of these components."""
    version = plant.version(counter)
    plant.shop.publish(ReleasePlan(counter, version, "queue.py"), recipes)


def recipe(
    plant: Plant,
    name: str,
    form: str,
    source: Path,
    *,
    healthy: bool = True,
    beside: str = "",
    **settings: str,
) -> Recipe:
    """Describe one component; one that is not healthy waits for what never comes."""
    marker = plant.marker if healthy else plant.folder / "never"
    check = {"type": "boot", "by": f"marker:{marker}"}
    health = contract([check], warmup_s=1, timeout_s=4, interval_s=1)
    return Recipe(
        name, source, PRODUCT, (0, 9), health, format=form, settings=settings, beside=beside
    )


def ended(plant: Plant, counter: int, state: str) -> tuple[str, str]:
    """Wait until the update to a release has ended so; return reason and detail."""
    found: list[tuple[str, str]] = []

    def over() -> bool:
        found[:] = plant.rows(
            "SELECT coalesce(reason, ''), detail FROM \"update\" WHERE state = :state AND release_counter = :counter",
            state=state,
            counter=counter,
        )
        return bool(found)

    assert wait_for(over, 150), [
        (one["kind"], one.get("reason"), one.get("detail"))
        for one in plant.control.device_log(NAME)
    ][:12]
    return found[0]


def files(folder: Path, **content: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in content.items():
        (folder / name).write_text(text)
    return folder


def clean(board: Path, component: str) -> bool:
    """Say whether nothing of an update is left in a component's folder."""
    return not list((board / "state" / "components" / component).iterdir())


MODULE = '[installer]\nallow = ["raw_image", "module", "archive"]\n[component.motd]\n'


def test_a_stock_module_updates_one_file_and_puts_the_old_one_back(
    plant: Plant, tmp_path: Path
) -> None:
    needs("single-file")
    target = tmp_path / "etc"
    files(target, motd="as it was\n")
    board, device = board_with(plant, MODULE)
    try:
        good = files(
            tmp_path / "good",
            motd="hello\n",
            dest_dir=str(target),
            filename="motd",
            permissions="640",
        )
        publish(plant, 2, recipe(plant, "motd", "module", good, module="single-file"))
        plant.roll_out(2)
        assert ended(plant, 2, "confirmed") == ("", "")
        assert (target / "motd").read_text() == "hello\n"
        assert (target / "motd").stat().st_mode & 0o777 == 0o640
        assert device.boots == 1, "a component alone needs no restart"
        assert wait_for(lambda: clean(board, "motd"), 20)

        bad = files(tmp_path / "bad", motd="worse\n", dest_dir=str(target), filename="motd")
        publish(plant, 3, recipe(plant, "motd", "module", bad, module="single-file", healthy=False))
        plant.roll_out(3)
        assert ended(plant, 3, "reverted")[0] == "health.boot"
        assert (target / "motd").read_text() == "hello\n"
        assert wait_for(lambda: clean(board, "motd"), 20)
        running = plant.rows("SELECT running_counter FROM device WHERE id = :name", name=NAME)
        assert wait_for(
            lambda: (
                plant.rows("SELECT running_counter FROM device WHERE id = :name", name=NAME)
                == [(2,)]
            ),
            20,
        ), running
    finally:
        device.stop()


def test_a_stock_module_updates_a_directory_and_puts_the_old_one_back(
    plant: Plant, tmp_path: Path
) -> None:
    needs("directory")
    target = tmp_path / "app"
    files(target, version="1")
    _, device = board_with(plant, MODULE)
    try:
        for counter, healthy in ((2, True), (3, False)):
            payload = tmp_path / f"payload-{counter}"
            tree = files(tmp_path / f"tree-{counter}", version=str(counter))
            payload.mkdir()
            assert os.system(f"tar -C {tree} -cf {payload}/update.tar .") == 0
            (payload / "dest_dir").write_text(str(target))
            one = recipe(plant, "motd", "module", payload, module="directory", healthy=healthy)
            publish(plant, counter, one)
            plant.roll_out(counter)
            ended(plant, counter, "confirmed" if healthy else "reverted")
            assert (target / "version").read_text() == "2"
    finally:
        device.stop()


def test_an_image_an_archive_and_a_module_come_together_and_go_together(
    plant: Plant, tmp_path: Path
) -> None:
    needs("single-file")
    target, app = tmp_path / "etc", tmp_path / "opt-app"
    files(target, motd="as it was\n")
    text = MODULE + f'[component.app]\npath = "{app}"\n'
    board, device = board_with(plant, text)
    first = slot_digest(board, "A")
    try:
        for counter, healthy in ((2, True), (3, False)):
            image = plant.image(counter)
            tree = files(tmp_path / f"app-{counter}", version=str(counter))
            (tree / "latest").symlink_to("version")
            motd = files(
                tmp_path / f"motd-{counter}",
                motd=f"release {counter}\n",
                dest_dir=str(target),
                filename="motd",
            )
            publish(
                plant,
                counter,
                recipe(plant, "rootfs", "raw_image", image, healthy=healthy),
                recipe(plant, "app", "archive", tree, beside="rootfs"),
                recipe(plant, "motd", "module", motd, beside="rootfs", module="single-file"),
            )
            plant.roll_out(counter)
            ended(plant, counter, "confirmed" if healthy else "reverted")
            assert (app / "current" / "latest").read_text() == "2"
            assert (target / "motd").read_text() == "release 2\n"
            assert device.running == "B"
    finally:
        device.stop()
    assert slot_digest(board, "B") == plant.shop.installed(2, PRODUCT)
    assert slot_digest(board, "A") != first
    said = plant.rows("SELECT components FROM device WHERE id = :name", name=NAME)
    assert '"counter":2' in said[0][0].replace(" ", "")


def test_a_module_that_cannot_roll_back_is_refused_before_anything_is_touched(
    plant: Plant, tmp_path: Path
) -> None:
    needs("script")
    mark = tmp_path / "ran"
    payload = files(tmp_path / "payload", run=f"#!/bin/sh\ntouch {mark}\n")
    _, device = board_with(plant, MODULE)
    try:
        publish(plant, 2, recipe(plant, "motd", "module", payload, module="script"))
        plant.roll_out(2)
        reason, detail = ended(plant, 2, "failed")
        assert reason == "install.installer"
        assert "module script cannot roll back" in detail
        assert not mark.exists()

        accepted = recipe(
            plant, "motd", "module", payload, module="script", rollback="none", healthy=False
        )
        publish(plant, 3, accepted)
        plant.roll_out(3)
        reason, detail = ended(plant, 3, "failed")
        assert reason == "health.boot"
        assert "motd could not be taken back" in detail
        assert mark.exists()
    finally:
        device.stop()
