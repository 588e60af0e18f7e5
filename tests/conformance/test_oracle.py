"""Our workflow beside python-tuf's own: whatever its client refuses, ours refuses; where ours is stricter, the table says so.

The oracle is python-tuf's `TrustedMetadataSet`, the deciding part of ngclient, with the reference time set from outside.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from tests.unit.core.repo import DAY, NOW, Repo, signer
from tuf.api.exceptions import RepositoryError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from tidegate.core.errors import PublisherError
from tidegate.core.metadata import (
    MetaInfo,
    attach,
    detached_signature,
    parse_snapshot,
    parse_targets,
    strip_signatures,
)
from tidegate.core.verify import walk_repository

GOOD = Repo()
ANCHOR = GOOD.root_body()
FILES = GOOD.files()
NEXT = GOOD.but(root_version=2)


def oracle(files: Mapping[str, bytes], now: int = NOW) -> bool:
    """Say whether python-tuf's client would take the repository."""
    try:
        trusted = TrustedMetadataSet(ANCHOR, EnvelopeType.METADATA)
        trusted.reference_time = datetime.fromtimestamp(now, UTC)
        version = 2
        while f"{version}.root.json" in files:
            trusted.update_root(files[f"{version}.root.json"])
            version += 1
        timestamp = trusted.update_timestamp(files["timestamp.json"])
        snapshot = trusted.update_snapshot(
            files[f"{timestamp.snapshot_meta.version}.snapshot.json"]
        )
        for role, parent in (("targets", "root"), ("product/gw1", "targets")):
            name = f"{snapshot.meta[f'{role}.json'].version}.{role.replace('/', '%2F')}.json"
            trusted.update_delegated_targets(files[name], role, parent)
    except (RepositoryError, KeyError):
        return False
    return True


def ours(files: Mapping[str, bytes], now: int = NOW) -> bool:
    try:
        trusted = walk_repository(files, anchor=ANCHOR, now=now)
    except PublisherError:
        return False
    return "product/gw1" in trusted.roles


def without_length() -> dict[str, bytes]:
    return FILES | {"timestamp.json": GOOD.timestamp_body(MetaInfo(100, None, None))}


def snapshot_of(**named: MetaInfo) -> dict[str, bytes]:
    documents = {
        "targets": parse_targets(FILES["1.targets.json"]).info,
        "product/gw1": parse_targets(FILES["1.product%2Fgw1.json"], "product/gw1").info,
    }
    body = GOOD.snapshot_body({**documents, **named})
    info = parse_snapshot(body).info
    return FILES | {"100.snapshot.json": body, "timestamp.json": GOOD.timestamp_body(info)}


def aliased() -> dict[str, bytes]:
    """One targets key under two ids meets a threshold of two by names, not by keys."""
    root = json.loads(NEXT.root_body())
    keyid = GOOD.targets[0].public.keyid
    root["signed"]["keys"]["alias"] = root["signed"]["keys"][keyid]
    root["signed"]["roles"]["targets"]["keyids"] = [keyid, "alias"]
    root["signatures"] = []
    body = json.dumps(root).encode()
    for one in GOOD.roots[:2]:
        body = attach(body, one.public.keyid, detached_signature(body, one))
    bare = strip_signatures(FILES["1.targets.json"])
    made = detached_signature(bare, GOOD.targets[0])
    targets = attach(attach(bare, keyid, made), "alias", made)
    found = snapshot_of(targets=parse_targets(targets).info)
    return found | {"2.root.json": body, "1.targets.json": targets}


CASES: dict[str, tuple[dict[str, bytes], int, bool, bool]] = {
    # name: files, now, what python-tuf says, what we say
    "good": (FILES, NOW, True, True),
    "a second before the end": (FILES, NOW + 30 * DAY - 1, True, True),
    "expired": (FILES, NOW + 30 * DAY, False, False),
    "a clock of 1970 sees nothing expired": (FILES, 0, True, True),
    "next root": (FILES | {"2.root.json": NEXT.root_body()}, NOW, True, True),
    "next root by one of two": (
        FILES | {"2.root.json": NEXT.root_body(GOOD.roots[0])},
        NOW,
        False,
        False,
    ),
    "next root by foreign keys": (
        FILES | {"2.root.json": NEXT.root_body(signer("x"), signer("y"))},
        NOW,
        False,
        False,
    ),
    "root skips a version": (
        FILES | {"2.root.json": GOOD.but(root_version=3).root_body()},
        NOW,
        False,
        False,
    ),
    "timestamp by a foreign key": (
        FILES | {"timestamp.json": GOOD.but(timestamp=signer("x")).timestamp_body()},
        NOW,
        False,
        False,
    ),
    "timestamp by the snapshot key": (
        FILES | {"timestamp.json": GOOD.but(timestamp=GOOD.snapshot).timestamp_body()},
        NOW,
        False,
        False,
    ),
    "snapshot of another time": (
        FILES | {"100.snapshot.json": GOOD.but(online=99).snapshot_body()},
        NOW,
        False,
        False,
    ),
    "targets of one key": (
        FILES | {"1.targets.json": GOOD.but(targets=GOOD.targets[:1]).files()["1.targets.json"]},
        NOW,
        False,
        False,
    ),
    "product by another product's key": (
        GOOD.but(product=(signer("p2"),)).files()
        | {"1.targets.json": FILES["1.targets.json"]}
        | {
            name: body
            for name, body in snapshot_of(
                **{
                    "product/gw1": parse_targets(
                        GOOD.but(product=(signer("p2"),)).product_body(), "product/gw1"
                    ).info
                }
            ).items()
            if name in ("100.snapshot.json", "timestamp.json")
        },
        NOW,
        False,
        False,
    ),
    "captive portal": (FILES | {"timestamp.json": b"<html>"}, NOW, False, False),
    "product missing in snapshot's place": (
        {name: body for name, body in FILES.items() if "product" not in name},
        NOW,
        False,
        False,
    ),
    # --- where ours is stricter ---
    "one key under two ids": (aliased(), NOW, True, False),
    "no length and no digest in timestamp": (without_length(), NOW, True, False),
    "no digest in snapshot": (snapshot_of(targets=MetaInfo(1, None, None)), NOW, True, False),
    "a duplicate key in the JSON": (
        FILES | {"timestamp.json": FILES["timestamp.json"][:-1] + b',"signatures":[]}'},
        NOW,
        False,
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_ours_refuses_whatever_the_reference_refuses(name: str) -> None:
    files, now, theirs, our = CASES[name]
    assert (oracle(files, now), ours(files, now)) == (theirs, our)
    assert theirs or not our
