"""Signed heads of the log, copied to where the server cannot take them back, and verified from there."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.objectstore import bucket, moto, raw_client
from tests.unit.server.rig import Rig

from tidegate.cli import run
from tidegate.core.audit import checkpoint as notes
from tidegate.core.errors import ConfigError
from tidegate.server import audit, copies
from tidegate.server.blobs import Where
from tidegate.server.doctor import examine
from tidegate.server.tick import tick

__all__ = ["bucket", "moto"]

KEEP_S = 30 * 86_400


def _server(tmp_path: Path, copy: str, **more: Any) -> Rig:
    made = Rig(tmp_path / "data", more={"audit_copy": copy, **more})
    made.publish_trust(("gw1",))
    made.release(1)
    return made


def _signed(rig: Rig) -> audit.Signed:
    """Do something, have its head signed, and sent."""
    rig.now += 600
    rig.write(lambda conn: audit.record(conn, int(rig.now), "olga", "group.add", "pilot"))
    tick(rig.app.services, int(rig.now))
    head: audit.Signed | None = rig.read(audit.newest_checkpoint)
    assert head is not None
    _settle(rig)
    return head


def _settle(rig: Rig) -> None:
    """Wait until nothing is on its way."""
    with rig.app.services.copier._busy:
        pass


def _verify(rig: Rig, tmp_path: Path, place: str, *more: str) -> tuple[int, dict[str, Any]]:
    export = tmp_path / "audit.jsonl"
    rows = rig.read(audit.export)

    export.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in rows))
    key = notes.verifier_of(audit.ORIGIN, rig.app.services.keys.audit.public).text

    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        code = run(
            ["audit", "verify", str(export), "--checkpoints", place, "--key", key, "--json", *more]
        )
    return code, json.loads(told.getvalue())


def test_a_head_is_copied_once_to_a_folder_and_vouches_for_the_log(
    tmp_path: Path, over: None
) -> None:
    place = tmp_path / "vault" / "heads"
    rig = _server(tmp_path, str(place))
    try:
        first, second = _signed(rig), _signed(rig)
        files = sorted(place.iterdir())
        assert [one.name for one in files] == [copies.name_of(first), copies.name_of(second)]
        assert files[1].read_text() == second.note
        assert files[0].stat().st_mode & 0o777 == 0o444
        assert rig.app.services.copier.send(rig.app.store, int(rig.now)) is None, "nothing is new"
        code, verdict = _verify(rig, tmp_path, str(place))
        assert (code, verdict["ok"], verdict["covered"]) == (0, True, second.size)

        files[1].chmod(0o644)
        files[1].write_text(second.note.replace(str(second.size), str(second.size + 1), 1))
        code, verdict = _verify(rig, tmp_path, str(place))
        assert (code, verdict["faults"][0]["kind"]) == (3, "forged")
    finally:
        rig.close()


def test_a_log_that_was_written_anew_does_not_fit_its_copies(tmp_path: Path, over: None) -> None:
    place = tmp_path / "heads"
    rig = _server(tmp_path, str(place))
    try:
        head = _signed(rig)
        other = notes.Checkpoint(origin=audit.ORIGIN, size=head.size, root=bytes(32))
        copy = place / copies.name_of(head)
        copy.chmod(0o644)
        copy.write_text(notes.sign(other, rig.app.services.keys.audit))
        code, verdict = _verify(rig, tmp_path, str(place))
        assert (code, verdict["faults"][0]["kind"]) == (3, "forked")
    finally:
        rig.close()


def test_copies_in_a_bucket_are_locked_and_what_is_written_over_them_stands_beside(
    tmp_path: Path, over: None, moto: str, bucket: str
) -> None:
    vault, client = f"{bucket}-vault", raw_client(moto)
    client.create_bucket(Bucket=vault, ObjectLockEnabledForBucket=True)
    place = f"s3://{vault}/heads"
    rig = _server(tmp_path, place, audit_copy_endpoint=moto, audit_copy_keep_s=KEEP_S)
    try:
        head = _signed(rig)
        key = f"heads/{copies.name_of(head)}"
        held = client.head_object(Bucket=vault, Key=key)
        assert held["ObjectLockMode"] == "COMPLIANCE"
        assert int(held["ObjectLockRetainUntilDate"].timestamp()) == int(rig.now) + KEEP_S
        (version,) = client.list_object_versions(Bucket=vault)["Versions"]
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            client.delete_object(Bucket=vault, Key=key, VersionId=version["VersionId"])

        client.put_object(Bucket=vault, Key=key, Body=b"nothing to see here")
        client.delete_object(Bucket=vault, Key=key)
        code, verdict = _verify(rig, tmp_path, place, "--endpoint", moto)
        assert (code, verdict["covered"]) == (0, head.size)
        found = copies.open_copies(place, Where(endpoint=moto))
        assert found.newest() == head.size
        assert rig.app.services.copier.wrong == ""
    finally:
        rig.close()


def test_a_bucket_without_a_lock_refuses_what_is_to_be_locked_and_the_doctor_says_so(
    tmp_path: Path, over: None, moto: str, bucket: str
) -> None:
    rig = _server(
        tmp_path, f"s3://{bucket}/heads", audit_copy_endpoint=moto, audit_copy_keep_s=KEEP_S
    )
    try:
        _signed(rig)
        assert rig.app.services.copier.wrong
        rig.now += copies.LATE_S
        checks = {one.name: one for one in examine(rig.app.services.settings, int(rig.now))}
        assert checks["audit copy"].level == "failed"
        assert "behind" in checks["audit copy"].text
    finally:
        rig.close()


def test_a_place_that_cannot_be_written_holds_nothing_up_and_is_tried_again(
    tmp_path: Path, over: None
) -> None:
    (tmp_path / "file").write_text("in the way")
    rig = _server(tmp_path, str(tmp_path / "file" / "heads"))
    try:
        head = _signed(rig)
        assert "heads" in rig.app.services.copier.wrong
        (tmp_path / "file").unlink()
        assert rig.app.services.copier.send(rig.app.store, int(rig.now)) is not None
        _settle(rig)
        assert rig.app.services.copier.wrong == ""
        assert (tmp_path / "file" / "heads" / copies.name_of(head)).is_file()
    finally:
        rig.close()


def test_no_place_is_no_work(rig: Rig) -> None:
    assert rig.app.services.copier.send(rig.app.store, int(rig.now)) is None
    with pytest.raises(ConfigError):
        list(copies.open_copies("/nowhere/at/all", Where()).notes())
