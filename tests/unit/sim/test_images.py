"""Images are made of real files, and two versions differ by a real change."""

from pathlib import Path

from tidegate.sim.disk import PAGE
from tidegate.sim.images import TreeSpec, make_packed, make_tree


def test_a_packed_image_is_real_files_and_the_same_tree_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    first = make_tree(tmp_path / "a", TreeSpec("1.0", packages=("json",)))
    make_tree(tmp_path / "b", TreeSpec("1.0", packages=("json",)))
    image = make_packed(tmp_path / "a")
    assert make_packed(tmp_path / "b") == image
    assert b"class JSONDecoder" in image
    assert first > 20_000
    assert len(image) % PAGE == 0


def test_the_next_version_changes_a_part_and_not_everything(tmp_path: Path) -> None:
    make_tree(tmp_path / "a", TreeSpec("1.0"))
    make_tree(tmp_path / "b", TreeSpec("1.1", extra="queue.py"))
    old, new = make_packed(tmp_path / "a"), make_packed(tmp_path / "b")
    known = {old[at : at + PAGE] for at in range(0, len(old), PAGE)}
    changed = [at for at in range(0, len(new), PAGE) if new[at : at + PAGE] not in known]
    assert len(changed) > 0
    assert old != new
