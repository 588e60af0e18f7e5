"""Hostile archives: each is signed, whole and on its device; each wants something made outside its folder, or something that is no plain file tree."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.agent.install import unpack
from tidegate.core.archive import measure
from tidegate.core.errors import TidegateError

Make = Callable[[tarfile.TarFile], None]


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    """Make a header."""
    found = tarfile.TarInfo(name)
    found.type = kind
    found.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in more.items():
        setattr(found, key, value)
    return found


def add(tar: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> None:
    """Add a member; regular ones get six bytes."""
    found = member(name, kind, **more)
    if kind == tarfile.REGTYPE:
        found.size = 6
        tar.addfile(found, io.BytesIO(b"hidden"))
    else:
        tar.addfile(found)


def each(*members: tuple[str, bytes, dict[str, object]]) -> Make:
    """Add several members."""

    def make(tar: tarfile.TarFile) -> None:
        for name, kind, more in members:
            add(tar, name, kind, **more)

    return make


def one(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> Make:
    """Add one member."""
    return each((name, kind, more))


FILE, LINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE

HOSTILE: dict[str, Make] = {
    "an absolute name": one("/etc/passwd"),
    "a name that climbs": one("../outside"),
    "a name that climbs in the middle": one("a/../../outside"),
    "a name that climbs and comes back": one("a/../b"),
    "a name with a dot inside": one("a/./b"),
    "an empty name between slashes": one("a//b"),
    "the folder itself as a file": one("."),
    "the folder above": one("..", FOLDER),
    "a name that is not UTF-8": one("b\udcffd"),
    "a name with a newline": one("a\nb"),
    "a name with an escape": one("a\x1b[2Jb"),
    "a name of 300 bytes": one("n" * 300),
    "a path of 5000 bytes": one("/".join(["n" * 99] * 50)),
    "a thousand folders deep": one("d/" * 1000 + "f"),
    "a link to an absolute name": one("a", LINK, linkname="/etc"),
    "a link that climbs": one("a", LINK, linkname="../outside"),
    "a link that climbs from below": one("a/b", LINK, linkname="../../outside"),
    "a link that climbs late": one("a", LINK, linkname="b/../../outside"),
    "a link to nothing": one("a", LINK, linkname=""),
    "a link of 5000 bytes": one("a", LINK, linkname="n/" * 2500),
    "a file below a link": each(("a", LINK, {"linkname": "."}), ("a/b", FILE, {})),
    "a file below a link to a folder": each(
        ("d", FOLDER, {}), ("a", LINK, {"linkname": "d"}), ("a/b", FILE, {})
    ),
    "a link in place of a folder": each(
        ("d", FOLDER, {}), ("d", LINK, {"linkname": "."}), ("d/f", FILE, {})
    ),
    "a link in place of a folder made by the way": each(
        ("d/e", FILE, {}), ("d", LINK, {"linkname": "."}), ("d/f", FILE, {})
    ),
    "a file in place of a link": each(("a", LINK, {"linkname": "b"}), ("a", FILE, {})),
    "a file twice": each(("a", FILE, {}), ("a", FILE, {})),
    "a file twice, spelt differently": each(("a", FILE, {}), ("./a", FILE, {})),
    "a folder twice": each(("a", FOLDER, {}), ("a/", FOLDER, {})),
    "a folder in place of a file": each(("a", FILE, {}), ("a", FOLDER, {})),
    "a file below a file": each(("a", FILE, {}), ("a/b", FILE, {})),
    "a hard link to a file outside": one("a", HARD, linkname="/etc/passwd"),
    "a hard link that climbs": one("a", HARD, linkname="../outside"),
    "a hard link to nothing": one("a", HARD, linkname="b"),
    "a hard link to itself": one("a", HARD, linkname="a"),
    "a hard link to a link": each(("a", LINK, {"linkname": "b"}), ("c", HARD, {"linkname": "a"})),
    "a hard link to a folder": each(("a", FOLDER, {}), ("c", HARD, {"linkname": "a"})),
    "a hard link to what comes later": each(("c", HARD, {"linkname": "a"}), ("a", FILE, {})),
    "a character device": one("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a block device": one("sda", tarfile.BLKTYPE, devmajor=8),
    "a FIFO": one("pipe", tarfile.FIFOTYPE),
    "a sparse file": one("hole", tarfile.GNUTYPE_SPARSE),
    "a set-user-ID file": one("su", mode=0o4755),
    "a set-group-ID folder": one("d", FOLDER, mode=0o2755),
    "a sticky folder": one("d", FOLDER, mode=0o1777),
    "a kind that nobody knows": one("what", b"Z"),
}
#: What only extended headers can ask for.
EXTENDED: dict[str, Make] = {
    "a capability": one("a", pax_headers={"SCHILY.xattr.security.capability": "x"}),
    "an access list": one("a", pax_headers={"SCHILY.acl.access": "user::rwx"}),
    "a sparse map in an extended header": one("a", pax_headers={"GNU.sparse.major": "1"}),
    "another character set": one("a", pax_headers={"hdrcharset": "BINARY"}),
    "an extended header of a MiB": one("a", pax_headers={"comment": "c" * (1 << 20)}),
    "an extended name that climbs": one("a", pax_headers={"path": "../outside"}),
    "an extended target that climbs": one("a", LINK, linkname="b", pax_headers={"linkpath": "/x"}),
    "a negative owner": one("a", pax_headers={"uid": "-1"}),
    "a size beyond all": one("a", pax_headers={"size": "9" * 12}),
    "a time that is none": one("a", pax_headers={"mtime": "now"}),
}


def archive(make: Make, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Write an archive."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        make(tar)
    return out.getvalue()


def listing(folder: Path) -> list[str]:
    """Name everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(body: bytes, folder: Path) -> str:
    """Unpack into a folder of a folder; return the code, after making sure that nothing came to stand beside it."""
    inner = folder / "inner"
    inner.mkdir(mode=0o700)
    path = folder / "archive.tar"
    path.write_bytes(body)
    (folder / "outside").write_text("as it was")
    with pytest.raises(TidegateError) as caught:
        unpack.unpack(str(path), str(inner), frozenset())
    beside = [one for one in listing(folder) if not one.startswith("inner")]
    assert beside == ["archive.tar", "outside"]
    assert (folder / "outside").read_text() == "as it was"
    return caught.value.code


CASES = [
    *((make, tarfile.PAX_FORMAT, name) for name, make in (HOSTILE | EXTENDED).items()),
    *((make, tarfile.GNU_FORMAT, f"{name}, by GNU") for name, make in HOSTILE.items()),
]


@pytest.mark.parametrize(
    ("make", "form"), [(make, form) for make, form, _ in CASES], ids=[name for *_, name in CASES]
)
def test_a_hostile_archive_is_refused_and_nothing_is_made_outside(
    make: Make, form: int, tmp_path: Path
) -> None:
    body = archive(make, form)
    assert refused(body, tmp_path) == "sig.malformed"
    # Whoever publishes is told the same.
    with pytest.raises(TidegateError) as caught:
        measure(io.BytesIO(body).read)
    assert caught.value.code == "sig.malformed"


def _raw(**fields: bytes) -> bytes:
    """Write one header by hand, with its sum."""
    block = bytearray(512)
    places = {
        "name": 0,
        "mode": 100,
        "uid": 108,
        "gid": 116,
        "size": 124,
        "mtime": 136,
        "kind": 156,
        "link": 157,
        "magic": 257,
        "prefix": 345,
    }
    usual = {
        "name": b"a",
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"00000000000\0",
        "mtime": b"00000000000\0",
        "kind": b"0",
        "magic": b"ustar\x0000",
    }
    for key, value in {**usual, **fields}.items():
        block[places[key] : places[key] + len(value)] = value
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = bytes(1024)
RAW: dict[str, bytes] = {
    "nothing": b"",
    "text": b"#!/bin/sh\n" * 100,
    "half a header": _raw()[:300],
    "no end": _raw(),
    "a damaged sum": _raw()[:150] + b"9" + _raw()[151:] + END,
    "another magic": _raw(magic=b"USTAR\x0000") + END,
    "a size that is no number": _raw(size=b"00000000x00\0") + END,
    "a negative size": _raw(size=b"\xff" * 12) + END,
    "a size in base 256 beyond all": _raw(size=b"\x80" + b"\x7f" * 11) + END,
    "a file longer than the archive": _raw(size=b"00000010000\0") + END,
    "a prefix that climbs": _raw(prefix=b"../..") + END,
    "an absolute prefix": _raw(prefix=b"/etc") + END,
    "a link with content": _raw(kind=b"2", link=b"b", size=b"00000000001\0") + bytes(512) + END,
    "bytes after the end": _raw() + END + _raw(name=b"b") + END,
    "a long name and no member": _raw(kind=b"L", size=b"00000000005\0")
    + b"a/../".ljust(512, b"\0")
    + END,
    "a long name that climbs": _raw(kind=b"L", size=b"00000000006\0")
    + b"../../".ljust(512, b"\0")
    + _raw()
    + END,
    "a long name of 4 GiB": _raw(kind=b"L", size=b"37777777777\0") + END,
    "an extended header whose length is a lie": _raw(kind=b"x", size=b"00000000013\0")
    + b"99 path=b\n\0".ljust(512, b"\0")
    + _raw()
    + END,
    "an extended header with a keyword twice": _raw(kind=b"x", size=b"00000000024\0")
    + b"10 path=b\n10 path=c\n".ljust(512, b"\0")
    + _raw()
    + END,
    "an extended header for all that names one": _raw(kind=b"g", size=b"00000000012\0")
    + b"10 path=b\n".ljust(512, b"\0")
    + _raw()
    + END,
}


@pytest.mark.parametrize("name", RAW)
def test_a_damaged_archive_is_refused(name: str, tmp_path: Path) -> None:
    assert refused(RAW[name], tmp_path) == "sig.malformed"


def test_a_tree_that_grew_a_link_meanwhile_is_not_written_through(tmp_path: Path) -> None:
    """Nobody else can be there; were somebody all the same, the kernel would not follow."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "outside").mkdir()
    (inner / "d").symlink_to(tmp_path / "outside")
    handle = os.open(inner, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError), unpack._above(handle, "d/f"):
            pass
    finally:
        os.close(handle)
    assert list((tmp_path / "outside").iterdir()) == []


def test_what_was_in_the_folder_is_gone_and_what_a_link_there_named_is_not(tmp_path: Path) -> None:
    inner, outside = tmp_path / "inner", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    inner.mkdir()
    (inner / "old").symlink_to(outside)
    (inner / "sub").mkdir()
    (inner / "sub" / "old").symlink_to(outside)
    path = tmp_path / "archive.tar"
    path.write_bytes(archive(one("a")))
    unpack.unpack(str(path), str(inner), frozenset())
    assert listing(inner) == ["a"]
    assert (outside / "precious").read_text() == "kept"
