"""Scenarios of delegations, signatures and downloads. Their names are those of the TUF project's suite; what they do is written anew."""

from dataclasses import dataclass, field
from typing import Any

from tests.conformance.repository import key, quoted
from tests.conformance.scenario import Lab, scenario
from tests.conformance.top_roles import ALL
from tuf.api.metadata import DelegatedRole, MetaFile  # type: ignore[attr-defined]

# --- delegations --------------------------------------------------------------------------------------------------------


def delegate(
    lab: Lab, above: str, name: str, *paths: str, terminating: bool = False
) -> DelegatedRole:
    role = DelegatedRole(name, [], 1, terminating, list(paths or ("*",)))
    lab.repo.delegate(above, role)
    return role


@scenario()
def delegation_not_in_snapshot(lab: Lab, _: None) -> None:
    lab.init()
    delegate(lab, "targets", "extra", "extra/*")
    lab.repo.publish("extra", "targets")
    del lab.repo.snapshot.meta["extra.json"]
    lab.repo.publish("snapshot", "timestamp")
    assert lab.refresh()
    lab.repo.asked.clear()
    assert not lab.download("extra/file")
    assert lab.repo.asked == ["2.root.json", "timestamp.json"]
    assert lab.version("extra") is None


@scenario()
def cached_role_is_verified_against_current_delegator(lab: Lab, _: None) -> None:
    """Two delegators name one role with a key each; it signs with the first's only."""
    lab.init()
    for side in ("a", "b"):
        delegate(lab, "targets", f"parent-{side}", f"{side}/*")
        delegate(lab, f"parent-{side}", "shared", f"{side}/*")
    lab.repo.signers["shared"] = [key("parent-a shared")]
    lab.repo.add_target("shared", "a/file", b"good")
    lab.repo.add_target("shared", "b/file", b"bad")
    lab.repo.publish("shared", "parent-a", "parent-b", "targets", "snapshot", "timestamp")
    assert not lab.download("a/file", "b/file")
    assert lab.downloaded() == [b"good"]


@dataclass(frozen=True)
class Edge:
    """One delegation."""

    above: str
    name: str
    paths: tuple[str, ...] = ("*",)
    terminating: bool = False


GRAPHS: dict[str, tuple[tuple[Edge, ...], str]] = {
    "one": ((Edge("targets", "A"),), "A"),
    "two beside": ((Edge("targets", "A"), Edge("targets", "B")), "AB"),
    "two levels": ((Edge("targets", "A"), Edge("targets", "B"), Edge("B", "C")), "ABC"),
    "two levels, depth first": (
        (Edge("targets", "A"), Edge("targets", "B"), Edge("A", "C"), Edge("A", "D")),
        "ACDB",
    ),
    "three levels, depth first": (
        (Edge("targets", "A"), Edge("targets", "B"), Edge("A", "C"), Edge("C", "D")),
        "ACDB",
    ),
    "terminating on the second level": (
        (
            Edge("targets", "A"),
            Edge("targets", "B"),
            Edge("A", "C", terminating=True),
            Edge("A", "D"),
        ),
        "AC",
    ),
    "terminating, with a child": (
        (
            Edge("targets", "A"),
            Edge("targets", "B"),
            Edge("A", "C", terminating=True),
            Edge("C", "D"),
        ),
        "ACD",
    ),
    "other paths on the first level": (
        (Edge("targets", "A", ("*.py",)), Edge("targets", "B"), Edge("A", "C")),
        "B",
    ),
    "other paths on the second level": (
        (Edge("targets", "A"), Edge("targets", "B"), Edge("A", "C", ("*.py",)), Edge("C", "D")),
        "AB",
    ),
    "circle": (
        (
            Edge("targets", "A"),
            Edge("targets", "B"),
            Edge("B", "C"),
            Edge("C", "D"),
            Edge("D", "B"),
        ),
        "ABCD",
    ),
    "two delegators of one": (
        (Edge("targets", "A"), Edge("targets", "B"), Edge("B", "C"), Edge("A", "C")),
        "ACB",
    ),
    "two delegators of one, by path": (
        (Edge("targets", "A"), Edge("targets", "B"), Edge("B", "C"), Edge("A", "C", ("*.py",))),
        "ABC",
    ),
}


@scenario(GRAPHS)
def graph_traversal(lab: Lab, case: tuple[tuple[Edge, ...], str]) -> None:
    edges, visited = case
    lab.init()
    for edge in edges:
        delegate(lab, edge.above, edge.name, *edge.paths, terminating=edge.terminating)
    lab.repo.publish(*{edge.name for edge in edges}, "targets", "snapshot", "timestamp")
    assert not lab.download("missing")
    assert "".join(name.split(".")[1] for name in lab.repo.asked[4:]) == visited


@dataclass(frozen=True)
class Search:
    """A path, whether it is found, and in which roles it is looked for."""

    path: str
    found: bool
    visited: str = ""
    body: bytes = field(default=b"content")


SEARCHES: dict[str, Search] = {
    "no delegation": Search("file", True),
    "wildcard": Search("README.md", True, "A"),
    "separators x": Search("releases/x/x_v1", True, "BC"),
    "separators y": Search("releases/y/y_v1.zip", True, "BD"),
    "not delegated all the way": Search("releases/z/z_v1.zip", False, "B"),
    "a wildcard is no separator": Search("releases/README.md", False),
    "a question mark is one character": Search("foo-1.tgz", True, "A"),
    "and no more than one": Search("foo-alpha.tgz", False),
    "case counts": Search("README.MD", False),
}


@scenario(SEARCHES)
def targetfile_search(lab: Lab, case: Search) -> None:
    lab.init()
    delegate(lab, "targets", "A", "*.doc", "*.md", "foo-?.tgz")
    delegate(lab, "targets", "B", "releases/*/*")
    delegate(lab, "B", "C", "releases/x/*")
    delegate(lab, "B", "D", "releases/y/*.zip")
    places = {"targets": ["file"], "C": ["releases/x/x_v1"]}
    places["A"] = ["README.md", "releases/README.md", "foo-1.tgz", "foo-alpha.tgz"]
    places["D"] = ["releases/y/y_v1.zip", "releases/z/z_v1.zip"]
    for role, paths in places.items():
        for path in paths:
            lab.repo.add_target(role, path, f"{role} {path}".encode())
    lab.repo.publish("A", "B", "C", "D", "targets", "snapshot", "timestamp")
    assert lab.download(case.path) == case.found
    assert "".join(name.split(".")[1] for name in lab.repo.asked[4:]) == case.visited
    assert lab.downloaded() == ([lab.repo.artifacts[case.path]] if case.found else [])


@scenario({name: name for name in ("?", "#", "/role", "../role", "ü", "a b", "..")})
def unusual_role_name(lab: Lab, name: str) -> None:
    lab.init()
    delegate(lab, "targets", name)
    lab.repo.publish(name, "targets", "snapshot", "timestamp")
    assert not lab.download("nobody")
    assert f"1.{quoted(name)}.json" in lab.repo.asked
    assert len(lab.roles()) == 5


# --- signatures and types -----------------------------------------------------------------------------------------------


UNSIGNED = {
    "root": [("root", 1)],
    "timestamp": [("root", 2)],
    "snapshot": [("root", 2), ("timestamp", 2)],
    "targets": [("root", 2), ("snapshot", 2), ("timestamp", 2)],
}


@scenario({role: (role, believed) for role, believed in UNSIGNED.items()})
def unsigned_metadata(lab: Lab, case: tuple[str, list[tuple[str, int]]]) -> None:
    role, believed = case
    lab.init()
    lab.repo.signers[role].clear()
    lab.repo.publish(*ALL)
    assert not lab.refresh()
    assert lab.roles() == believed


@scenario()
def invalid_sig_in_valid_metadata(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.add_key("timestamp", key("second timestamp"))
    for sig in ("00" * 70, "", "not hex"):
        lab.repo.publish("root", "timestamp")

        def spoil(plain: dict[str, Any], sig: str = sig) -> None:
            plain["signatures"][0]["sig"] = sig

        lab.repo.edit("timestamp", spoil)
        assert lab.refresh()


@scenario()
def duplicate_keys(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.only_keys("snapshot", key("only"), threshold=6)
    keyid = lab.repo.root.roles["snapshot"].keyids[0]
    lab.repo.root.roles["snapshot"].keyids = [keyid] * 9
    lab.repo.publish("root", "snapshot", "timestamp")
    lab.repo.edit("snapshot", lambda plain: plain["signatures"].extend(plain["signatures"] * 8))
    assert not lab.refresh()
    assert lab.version("snapshot") is None


@scenario()
def duplicate_sig_keyids(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.edit("snapshot", lambda plain: plain["signatures"].extend(plain["signatures"]))
    assert not lab.refresh()
    assert lab.version("snapshot") is None


@scenario()
def incorrect_metadata_type(lab: Lab, _: None) -> None:
    lab.init()
    lab.repo.add_key("snapshot", lab.repo.signers["timestamp"][0])
    lab.repo.snapshot.meta = {"snapshot.json": MetaFile(1)}
    lab.repo.publish("root", "snapshot")
    lab.repo.files["timestamp.json"] = lab.repo.served("snapshot")
    assert not lab.refresh()
    assert lab.roles() == [("root", 2)]


@scenario({role: (role, believed) for role, believed in UNSIGNED.items() if role != "timestamp"})
def url_and_metadata_version_mismatch(lab: Lab, case: tuple[str, list[tuple[str, int]]]) -> None:
    role, believed = case
    lab.init()
    for one in ALL:
        lab.repo.signed[one].version += 2 if one == role else 1
        lab.repo.serve(one, lab.repo.sign(one), version=2)
    assert not lab.refresh()
    assert lab.roles() == believed


# --- downloads ----------------------------------------------------------------------------------------------------------


def offer(lab: Lab, path: str, body: bytes, *kinds: str) -> None:
    lab.repo.add_target("targets", path, body, *kinds)
    lab.repo.publish("targets", "snapshot", "timestamp")


@scenario()
def client_downloads_expected_file(lab: Lab, _: None) -> None:
    lab.init()
    offer(lab, "file.txt", b"content")
    assert lab.refresh()
    assert lab.downloaded() == []
    assert lab.download("file.txt")
    assert lab.downloaded() == [b"content"]


@scenario()
def client_downloads_expected_file_in_sub_dir(lab: Lab, _: None) -> None:
    lab.init()
    offer(lab, "path/to/file.txt", b"content")
    assert lab.download("path/to/file.txt")
    assert lab.downloaded() == [b"content"]


@scenario()
def artifact_cache(lab: Lab, _: None) -> None:
    lab.init()
    offer(lab, "file.txt", b"content")
    assert lab.download("file.txt")
    assert lab.download("file.txt")
    assert len(lab.repo.fetched) == 1


@scenario({"sha256": ("sha256",), "sha512": ("sha512",), "both": ("sha256", "sha512")})
def download_with_hash_algorithms(lab: Lab, kinds: tuple[str, ...]) -> None:
    lab.init()
    offer(lab, "file.txt", b"content", *kinds)
    assert lab.download("file.txt")
    hashes = lab.repo.targets.targets["file.txt"].hashes
    assert lab.repo.fetched[0].partition(".")[0] in hashes.values()
    assert lab.downloaded() == [b"content"]


@scenario()
def download_with_unknown_hash_algorithm(lab: Lab, _: None) -> None:
    lab.init()
    target = lab.repo.add_target("targets", "file.txt", b"content")
    target.hashes = {"crc32": target.hashes["sha256"]}
    lab.repo.publish("targets", "snapshot", "timestamp")
    assert not lab.download("file.txt")
    assert lab.downloaded() == []


@scenario()
def repository_substitutes_target_file(lab: Lab, _: None) -> None:
    lab.init()
    offer(lab, "one", b"first content")
    offer(lab, "two", b"other")
    assert lab.download("one")
    lab.repo.artifacts.update(one=b"malicious and longer than that", two=b"malicious too")
    lab.download("one")
    assert lab.downloaded() == [b"first content"]
    assert not lab.download("two")
    assert lab.downloaded() == [b"first content"]


@scenario()
def multiple_changes_to_target(lab: Lab, _: None) -> None:
    lab.init()
    offer(lab, "file", b"content")
    assert lab.download("file")
    expected = [b"content"]
    for n in range(11):
        content = f"content {n}".encode()
        offer(lab, "file", content)
        offer(lab, f"new-{n}", f"new {n}".encode())
        if n % 5:
            continue
        assert lab.download("file")
        assert lab.download(f"new-{n}")
        expected = sorted([*(one for one in expected if one.startswith(b"new")), content])
        expected = sorted([*expected, f"new {n}".encode()])
        assert lab.downloaded() == expected
        lab.repo.artifacts["file"] = f"malicious {n}".encode()
        lab.repo.publish("targets", "snapshot", "timestamp")
        lab.download("file")
        assert lab.downloaded() == expected
