"""Scenarios of a whole refresh, of timestamp, snapshot and targets. The names are those of the TUF project's suite; what they do is written anew."""

from typing import Any

from tests.conformance.repository import key, when
from tests.conformance.scenario import Lab, scenario
from tests.unit.core.repo import DAY, NOW
from tuf.api.metadata import DelegatedRole, MetaFile  # type: ignore[attr-defined]

ALL = ("root", "targets", "snapshot", "timestamp")
FIRST = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]


def started(lab: Lab) -> None:
    lab.init()
    assert lab.refresh()


# --- basics -------------------------------------------------------------------------------------------------------------


@scenario()
def basic_refresh_requests(lab: Lab, _: None) -> None:
    started(lab)
    assert lab.repo.asked == FIRST


@scenario()
def basic_refresh_trusted_data(lab: Lab, _: None) -> None:
    started(lab)
    for role in ALL:
        assert lab.body(role) == lab.repo.served(role)


@scenario()
def basic_metadata_hash_support(lab: Lab, _: None) -> None:
    lab.repo.complete = True
    lab.repo.publish("targets", "snapshot", "timestamp")
    started(lab)


@scenario()
def metadata_bytes_match(lab: Lab, _: None) -> None:
    body = lab.repo.files["timestamp.json"] + b"\n \n"
    lab.repo.files["timestamp.json"] = body
    started(lab)
    assert lab.body("timestamp") == body


@scenario()
def implicit_refresh(lab: Lab, _: None) -> None:
    lab.init()
    assert not lab.download("nobody/knows")
    assert lab.repo.asked == FIRST
    assert [role for role, _ in lab.roles()] == ["root", "snapshot", "targets", "timestamp"]


@scenario()
def custom_fields(lab: Lab, _: None) -> None:
    started(lab)
    root = lab.repo.root
    root.unrecognized_fields["x-vendor"] = {"a": [1, 2]}
    root.roles["root"].unrecognized_fields["x-note"] = "kept"
    lab.repo.publish("root")
    assert lab.refresh()
    assert lab.version("root") == 2


@scenario()
def deprecated_keyid_hash_algorithms(lab: Lab, _: None) -> None:
    lab.init()
    fresh = key("with a field of old")
    fresh.public_key.unrecognized_fields["keyid_hash_algorithms"] = "md5"
    lab.repo.only_keys("snapshot", fresh)
    lab.repo.publish("root", "snapshot", "timestamp")
    assert lab.refresh()
    assert lab.version("snapshot") == 2


@scenario({"ed25519": "ed25519", "ecdsa": "ecdsa"})
def keytype_and_scheme(lab: Lab, keytype: str) -> None:
    started(lab)
    lab.repo.add_key("root", key("second root", keytype))
    lab.repo.root.roles["root"].threshold = 2
    lab.repo.publish("root")
    assert lab.refresh()
    lab.repo.publish("root")
    lab.repo.edit("root", lambda plain: replace_signature(plain, 1, plain["signatures"][0]["sig"]))
    assert not lab.refresh()
    assert lab.version("root") == 2


def replace_signature(plain: dict[str, Any], index: int, sig: str) -> None:
    plain["signatures"][index]["sig"] = sig


@scenario()
def static_repository(lab: Lab, _: None) -> None:
    """The habits of other tools: many roots, P-256 keys of the older type name, a role two steps down, artifacts in folders."""
    repo = lab.repo
    lab.init()
    for _n in range(11):
        repo.rotate("root")
        repo.signers["root"].append(key(f"root after {repo.root.version - 1}"))
        if repo.root.version == 1:
            repo.signers["root"][-1] = key("first root")
        repo.publish("root")
    for one in repo.root.keys.values():
        one.keytype = "ecdsa-sha2-nistp256"
    repo.delegate("targets", DelegatedRole("registry", [], 1, True, ["registry/*"]))
    repo.add_target("registry", "registry/keys.json", b"{}", "sha512", "sha256")
    repo.publish("registry", "targets", "snapshot", "timestamp", "root")
    assert lab.refresh()
    assert lab.version("root") == 13
    assert lab.download("registry/keys.json")


@scenario()
def faketime(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.root.expires = when(NOW + 7 * DAY)
    lab.repo.publish("root")
    assert lab.refresh()
    assert not lab.refresh(days=8)


# --- timestamp ----------------------------------------------------------------------------------------------------------


@scenario()
def timestamp_404(lab: Lab, _: None) -> None:
    started(lab)
    lab.repo.drop("timestamp")
    assert not lab.refresh()
    assert lab.repo.asked[-1] == "timestamp.json"


@scenario()
def timestamp_expired(lab: Lab, _: None) -> None:
    started(lab)
    lab.repo.timestamp.expires = when(NOW - DAY)
    lab.repo.publish("timestamp")
    assert not lab.refresh()
    assert lab.version("timestamp") == 1


@scenario()
def expired_local_timestamp(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.timestamp.expires = when(NOW + 7 * DAY)
    lab.repo.publish("timestamp")
    assert lab.refresh()
    lab.repo.timestamp.expires = when(NOW + 21 * DAY)
    lab.repo.publish("targets", "snapshot", "timestamp")
    assert lab.refresh(days=18)
    assert lab.roles() == [("root", 1), ("snapshot", 2), ("targets", 2), ("timestamp", 3)]


@scenario()
def timestamp_content_changes(lab: Lab, _: None) -> None:
    started(lab)
    before = lab.body("timestamp")
    lab.repo.timestamp.snapshot_meta = MetaFile(100)
    lab.repo.publish("timestamp", version=1)
    assert lab.refresh()
    assert lab.repo.asked[-1] == "timestamp.json"
    assert lab.body("timestamp") == before


@scenario()
def new_timestamp_version_rollback(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.publish("timestamp")
    assert lab.refresh()
    lab.repo.publish("timestamp", version=1)
    assert not lab.refresh()
    assert lab.version("timestamp") == 2
    assert lab.repo.asked[-1] == "timestamp.json"


@scenario()
def new_timestamp_fast_forward_recovery(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.publish("timestamp", version=1 << 40)
    assert lab.refresh()
    lab.repo.publish("timestamp", version=2)
    assert not lab.refresh()
    lab.repo.rotate("timestamp")
    lab.repo.publish("root")
    lab.repo.publish("timestamp", version=2)
    assert lab.refresh()
    assert lab.version("timestamp") == 2


# --- snapshot -----------------------------------------------------------------------------------------------------------


@scenario()
def snapshot_404(lab: Lab, _: None) -> None:
    started(lab)
    lab.repo.timestamp.snapshot_meta = MetaFile(2)
    lab.repo.publish("timestamp")
    assert not lab.refresh()
    assert lab.repo.asked[-1] == "2.snapshot.json"
    assert lab.roles() == [("root", 1), ("snapshot", 1), ("targets", 1), ("timestamp", 2)]


@scenario()
def snapshot_expired(lab: Lab, _: None) -> None:
    started(lab)
    lab.repo.snapshot.expires = when(NOW - DAY)
    lab.repo.publish("snapshot", "timestamp")
    assert not lab.refresh()
    assert lab.roles() == [("root", 1), ("snapshot", 1), ("targets", 1), ("timestamp", 2)]


@scenario({"basic": False, "with digests": True})
def snapshot_rollback(lab: Lab, complete: bool) -> None:
    lab.init()
    lab.repo.complete = complete
    lab.repo.publish("snapshot", "timestamp")
    assert lab.refresh()
    lab.repo.publish("snapshot", version=1)
    lab.repo.publish("timestamp")
    assert not lab.refresh()
    assert (lab.version("timestamp"), lab.version("snapshot")) == (2, 2)
    assert lab.repo.asked[-1] == "timestamp.json"


@scenario()
def snapshot_hash_mismatch(lab: Lab, _: None) -> None:
    lab.repo.complete = True
    lab.repo.publish("snapshot", "timestamp")
    started(lab)
    lab.repo.publish("snapshot")
    meta = lab.repo.timestamp.snapshot_meta
    assert meta.hashes is not None
    meta.hashes["sha256"] = "0" * 64
    lab.repo.publish("timestamp")
    assert not lab.refresh()
    assert (lab.version("timestamp"), lab.version("snapshot")) == (3, 2)


@scenario()
def snapshot_does_not_meet_threshold(lab: Lab, _: None) -> None:
    lab.repo.only_keys("snapshot", *(key(f"s{n}") for n in range(3)), threshold=3)
    lab.init()
    lab.repo.publish(*ALL)
    assert lab.refresh()
    lab.repo.signers["snapshot"].pop()
    lab.repo.publish("targets", "snapshot", "timestamp")
    assert not lab.refresh()
    assert lab.version("snapshot") == 2


@scenario()
def snapshot_has_too_few_keys(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.only_keys("snapshot", *(key(f"s{n}") for n in range(5)), threshold=6)
    lab.repo.publish("root", "snapshot", "timestamp")
    assert not lab.refresh()
    assert (lab.version("root"), lab.version("snapshot")) == (2, None)


@scenario()
def new_snapshot_fast_forward_recovery(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.publish("snapshot", version=1 << 40)
    lab.repo.publish("timestamp")
    assert lab.refresh()
    lab.repo.rotate("snapshot")
    lab.repo.rotate("timestamp")
    lab.repo.publish("snapshot", version=2)
    lab.repo.publish("root", "targets", "timestamp")
    lab.repo.publish("snapshot", version=2)
    lab.repo.publish("timestamp")
    assert lab.refresh()
    assert lab.version("snapshot") == 2


# --- targets ------------------------------------------------------------------------------------------------------------


@scenario()
def targets_404(lab: Lab, _: None) -> None:
    started(lab)
    lab.repo.snapshot.meta["targets.json"] = MetaFile(2)
    lab.repo.publish("snapshot", "timestamp")
    assert not lab.refresh()
    assert lab.repo.asked[-1] == "2.targets.json"
    assert lab.roles() == [("root", 1), ("snapshot", 2), ("targets", 1), ("timestamp", 2)]


@scenario()
def targets_expired(lab: Lab, _: None) -> None:
    started(lab)
    lab.repo.targets.expires = when(NOW - DAY)
    lab.repo.publish("targets", "snapshot", "timestamp")
    assert not lab.refresh()
    assert lab.roles() == [("root", 1), ("snapshot", 2), ("targets", 1), ("timestamp", 2)]


@scenario({"basic": False, "with digests": True})
def targets_rollback(lab: Lab, complete: bool) -> None:
    lab.init()
    lab.repo.complete = complete
    lab.repo.publish("targets", "snapshot", "timestamp")
    assert lab.refresh()
    lab.repo.publish("targets", version=1)
    lab.repo.publish("snapshot", "timestamp")
    assert not lab.refresh()
    assert (lab.version("snapshot"), lab.version("targets")) == (2, 2)


@scenario()
def targets_hash_mismatch(lab: Lab, _: None) -> None:
    lab.repo.complete = True
    lab.repo.publish("targets", "snapshot", "timestamp")
    started(lab)
    lab.repo.publish("targets")
    meta = lab.repo.snapshot.meta["targets.json"]
    assert meta.hashes is not None
    meta.hashes["sha256"] = "0" * 64
    lab.repo.publish("snapshot", "timestamp")
    assert not lab.refresh()
    assert (lab.version("snapshot"), lab.version("targets")) == (3, 2)


@scenario()
def targets_fast_forward_recovery(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.delegate("targets", DelegatedRole("extra", [], 1, False, ["extra/*"]))
    lab.repo.publish("targets", version=100)
    lab.repo.publish("extra", "snapshot", "timestamp")
    assert lab.refresh()
    lab.repo.rotate("snapshot")
    lab.repo.publish("targets", version=1)
    del lab.repo.snapshot.meta["extra.json"]
    lab.repo.publish("root", "snapshot", "timestamp")
    assert lab.refresh()
    assert lab.version("targets") == 1


@scenario()
def targets_role_removal(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.delegate("targets", DelegatedRole("extra", [], 1, False, ["extra/*"]))
    lab.repo.publish("extra", "targets", "snapshot", "timestamp")
    assert lab.refresh()
    del lab.repo.snapshot.meta["extra.json"]
    lab.repo.publish("snapshot", "timestamp")
    assert not lab.refresh()
    assert lab.version("snapshot") == 2
