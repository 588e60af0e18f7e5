"""File trees in tar files, read strictly, and the digest of what they become.

A tar file may ask for anything: names that climb out, links through which a later member writes elsewhere, devices, sparse maps, headers of any length. What
is read here is a plain tree and nothing else: folders, regular files, symbolic links and hard links, each once, each below a folder that is one (`Tree`). Read
are POSIX ustar and pax headers (`pax(1)`) and GNU's long names; everything else is refused, never skipped.

The digest names the tree itself, not the tar file: whoever walks the unpacked tree comes to the same (`Digest`).
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Final, Literal, NamedTuple

from tidegate.core.errors import PublisherError
from tidegate.core.ustar import BLOCK, PIECE

#: Most members; a tree beyond that belongs into an image.
ENTRIES_MAX: Final = 200_000
#: Longest path and longest target of a link, in bytes; deepest folder; longest single name.
PATH_MAX: Final = 4095
DEPTH_MAX: Final = 128
NAME_MAX: Final = 255
#: Longest extended header, in bytes.
EXTENDED_MAX: Final = 64 << 10
#: Largest file, in bytes, and largest number that a header may hold elsewhere.
_SIZE_MAX: Final = 1 << 40
_NUMBER_MAX: Final = (1 << 32) - 2
_TIME_MAX: Final = (1 << 40) - 1
_MAGIC: Final = (b"ustar\x0000", b"ustar  \0")
_FILE: Final = (b"0", b"\0", b"7")
#: pax keywords that change nothing which is kept.
_NEEDLESS: Final = frozenset({"atime", "ctime", "comment", "uname", "gname"})
#: The same in the header that is for all members: only words.
_GLOBAL: Final = frozenset({"comment"})
_HEAD: Final = b"tidegate tree 1\n"

Kind = Literal["file", "folder", "link", "hard_link"]
#: What a release's signers may have kept that is refused or left out otherwise (`settings.keep`).
KEEP: Final = frozenset({"owners", "special_bits", "absolute_links"})


class Entry(NamedTuple):
    """One member. `path` is relative, without `.` and `..`; "" is the tree's own folder. `target` is what a link names."""

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    target: str


def _wrong(text: str) -> PublisherError:
    return PublisherError("sig.malformed", f"archive: {text}"[:300])


class Members:
    """Reads members in order; nothing about one is checked against another (`Tree` does).

    Args:
        read: returns up to that many bytes, fewer only at the end (untrusted content).
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._left = 0
        self._pad = 0
        self._count = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield members to the end of the archive.

        Raises:
            PublisherError: `sig.malformed`: cut short, or not a plain tree.
        """
        while (entry := self._next()) is not None:
            self._count += 1
            if self._count > ENTRIES_MAX:
                raise _wrong(f"more than {ENTRIES_MAX} members")
            yield entry

    def pieces(self) -> Iterator[bytes]:
        """Yield the content of the present member, in pieces of at most `PIECE` bytes.

        Raises:
            PublisherError: `sig.malformed`: cut short.
        """
        while self._left:
            piece = self._exactly(min(PIECE, self._left))
            self._left -= len(piece)
            yield piece

    def _next(self) -> Entry | None:
        more: dict[str, str] = {}
        while True:
            self._skip()
            block = self._exactly(BLOCK)
            if not block.strip(b"\0"):
                self._ended(more)
                return None
            kind = block[156:157]
            _check_sum(block)
            if kind in (b"x", b"g", b"L", b"K"):
                more |= self._extended(kind, _number(block[124:136], EXTENDED_MAX, "a header"))
                continue
            entry = _entry(block, more)
            self._left = entry.size if entry.kind == "file" else 0
            self._pad = -self._left % BLOCK
            return entry

    def _ended(self, more: dict[str, str]) -> None:
        """After the first empty block come only zeros, so that no reader sees more than another one."""
        if more:
            raise _wrong("an extended header without a member")
        while piece := self._read(PIECE):
            if piece.strip(b"\0"):
                raise _wrong("bytes after its end")

    def _extended(self, kind: bytes, size: int) -> dict[str, str]:
        body = self._exactly(size)
        self._exactly(-size % BLOCK)
        if kind in (b"L", b"K"):
            return {"path" if kind == b"L" else "linkpath": _text(body.rstrip(b"\0"))}
        found = _records(body)
        known = _GLOBAL if kind == b"g" else _NEEDLESS | _KEPT
        unknown = sorted(set(found) - known)
        if unknown:
            raise _wrong(f"extended header {unknown[0][:60]!r} is not supported")
        return {} if kind == b"g" else {key: found[key] for key in found if key in _KEPT}

    def _skip(self) -> None:
        for _ in self.pieces():
            pass
        self._exactly(self._pad)
        self._pad = 0

    def _exactly(self, size: int) -> bytes:
        found = self._read(size) if size else b""
        while len(found) < size:
            more = self._read(size - len(found))
            if not more:
                raise _wrong("it ends early")
            found += more
        return found


_KEPT: Final = frozenset({"path", "linkpath", "size", "uid", "gid", "mtime"})


def _records(body: bytes) -> dict[str, str]:
    """Read the records of an extended header, a length, a keyword and a value each; no keyword twice."""
    found: dict[str, str] = {}
    at = 0
    while at < len(body):
        digits, space, _ = body[at : at + 12].partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        record = body[at : at + length]
        key, equals, value = record[len(digits) + 1 :].partition(b"=")
        if not space or length < 5 or len(record) != length or not equals or value[-1:] != b"\n":
            raise _wrong("a damaged extended header")
        name = _text(key)
        if name in found:
            raise _wrong(f"extended header {name[:60]!r} twice")
        found[name] = _text(value[:-1])
        at += length
    return found


def _entry(block: bytes, more: dict[str, str]) -> Entry:
    kind = block[156:157]
    name = more.get("path", _name(block))
    what = _KINDS.get(kind)
    if what is None:
        raise _wrong(f"{name[:80]!r} is a {_WHAT.get(kind, 'member of an unknown kind')}")
    if what == "file" and name.endswith("/"):
        what = "folder"
    size = (
        _decimal(more, "size", _SIZE_MAX)
        if "size" in more
        else _number(block[124:136], _SIZE_MAX, name)
    )
    if what == "folder":
        size = 0
    if size and what != "file":
        raise _wrong(f"{name[:80]!r}: a link with content")
    linked = what in ("link", "hard_link")
    target = more.get("linkpath", _text(block[157:257].partition(b"\0")[0])) if linked else ""
    return Entry(
        path=_path(name, root=what == "folder"),
        kind=what,
        mode=_number(block[100:108], 0o777777, name) & 0o7777,
        uid=_decimal(more, "uid", _NUMBER_MAX)
        if "uid" in more
        else _number(block[108:116], _NUMBER_MAX, name),
        gid=_decimal(more, "gid", _NUMBER_MAX)
        if "gid" in more
        else _number(block[116:124], _NUMBER_MAX, name),
        mtime=_seconds(more["mtime"])
        if "mtime" in more
        else _number(block[136:148], _TIME_MAX, name),
        size=size,
        target=_target(name, target, what),
    )


_KINDS: Final[dict[bytes, Kind]] = {
    **dict.fromkeys(_FILE, "file"),
    b"1": "hard_link",
    b"2": "link",
    b"5": "folder",
}
_WHAT: Final = {
    b"3": "character device",
    b"4": "block device",
    b"6": "FIFO",
    b"S": "sparse file",
    b"M": "part of a file",
    b"V": "volume label",
    b"D": "incremental folder",
}


def _target(name: str, target: str, kind: Kind) -> str:
    if kind == "hard_link":
        return _path(target, root=False)
    if kind == "link" and not 0 < len(target.encode()) <= PATH_MAX:
        raise _wrong(f"{name[:80]!r}: a link to a name of {len(target)} characters")
    return target


def _path(name: str, *, root: bool) -> str:
    """Return a plain relative path. A leading `./` and a trailing `/` are what tar writes; everything else that is not plain is refused."""
    if name.startswith("/"):
        raise _wrong(f"{name[:80]!r} is absolute")
    plain = name.removesuffix("/")
    while plain.startswith("./"):
        plain = plain[2:]
    if plain in ("", "."):
        if not root or not name:
            raise _wrong(f"{name[:80]!r} names nothing")
        return ""
    parts = plain.split("/")
    if any(one in ("", ".", "..") for one in parts):
        raise _wrong(f"{name[:80]!r} is no plain path")
    if len(plain.encode()) > PATH_MAX or len(parts) > DEPTH_MAX:
        raise _wrong(f"{name[:80]!r} is too long or too deep")
    if any(len(one.encode()) > NAME_MAX for one in parts):
        raise _wrong(f"{name[:80]!r}: a name over {NAME_MAX} bytes")
    return plain


def _name(block: bytes) -> str:
    name = _text(block[:100].partition(b"\0")[0])
    # GNU tar keeps other things where POSIX keeps the folder.
    prefix = _text(block[345:500].partition(b"\0")[0]) if block[257:265] == _MAGIC[0] else ""
    return f"{prefix}/{name}" if prefix else name


def _check_sum(block: bytes) -> None:
    if block[257:265] not in _MAGIC:
        raise _wrong("no tar header where one is due")
    if _number(block[148:156], 1 << 20, "a header") != sum(block[:148]) + 256 + sum(block[156:]):
        raise _wrong("a damaged tar header")


def _number(field: bytes, most: int, name: str) -> int:
    """Read an octal number, or one in base 256, as GNU tar and Python write large ones."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    else:
        text = field.strip(b" \0")
        if text.strip(b"01234567"):
            raise _wrong(f"{name[:80]!r}: a number that is none")
        value = int(text or b"0", 8)
    if value > most:
        raise _wrong(f"{name[:80]!r}: {value} is over {most}")
    return value


def _decimal(more: dict[str, str], key: str, most: int) -> int:
    text = more[key]
    if not text.isascii() or not text.isdigit() or len(text) > 13 or int(text) > most:
        raise _wrong(f"extended header {key} = {text[:40]!r}")
    return int(text)


def _seconds(text: str) -> int:
    """Read a time; what is before 1970 or behind the point changes nothing that is kept."""
    whole, _, rest = text.partition(".")
    sign = whole.removeprefix("-")
    if not (sign + rest).isascii() or not sign.isdigit() or (rest and not rest.isdigit()):
        raise _wrong(f"extended header mtime = {text[:40]!r}")
    return 0 if whole.startswith("-") else min(int(whole[:14]), _TIME_MAX)


def _text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _wrong("a name that is not UTF-8") from error
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise _wrong(f"{text[:80]!r}: a name with control characters")
    return text


class Tree:
    """Holds each member against those before it: what it asks for can be made below one folder, and only there.

    Args:
        keep: of `KEEP`; everything else is refused or left out.
    """

    def __init__(self, keep: frozenset[str] = frozenset()) -> None:
        self._keep = keep
        self._seen: dict[str, Kind] = {"": "folder"}
        self._named: set[str] = set()

    def admit(self, entry: Entry) -> tuple[str, ...]:
        """Take one member; return the folders above it that no member named, outermost first: they have to be made.

        Raises:
            PublisherError: `sig.malformed`.
        """
        path = entry.path
        if path in self._named or (path in self._seen and entry.kind != "folder"):
            raise _wrong(f"{path[:80]!r} is in it twice")
        made = self._folders(path)
        if entry.mode & 0o7000 and "special_bits" not in self._keep:
            raise _wrong(
                f'{path[:80]!r} has mode {entry.mode:04o}: keep = ["special_bits"] allows that'
            )
        if entry.kind == "hard_link" and self._seen.get(entry.target) != "file":
            raise _wrong(f"{path[:80]!r}: a hard link to no file that came before it")
        if entry.kind == "link":
            self._check_link(path, entry.target)
        self._named.add(path)
        self._seen[path] = "file" if entry.kind == "hard_link" else entry.kind
        return made

    def _folders(self, path: str) -> tuple[str, ...]:
        parts = path.split("/")[:-1]
        made = []
        for count in range(1, len(parts) + 1):
            above = "/".join(parts[:count])
            found = self._seen.setdefault(above, "folder")
            if found != "folder":
                raise _wrong(f"{path[:80]!r} is below {above[:80]!r}, which is a {found}")
            if above not in self._named:
                self._named.add(above)
                made.append(above)
        return tuple(made)

    def _check_link(self, path: str, target: str) -> None:
        """A link must not lead out of the tree, by its own words; nothing is ever written through one."""
        if target.startswith("/"):
            if "absolute_links" not in self._keep:
                raise _wrong(
                    f'{path[:80]!r} links to {target[:80]!r}: keep = ["absolute_links"] allows that'
                )
            depth = 0
        else:
            depth = path.count("/")
        for one in target.split("/"):
            depth += 0 if one in ("", ".") else -1 if one == ".." else 1
            if depth < 0:
                raise _wrong(f"{path[:80]!r} links out of the tree: {target[:80]!r}")


class Digest:
    """The digest of a tree, from its members in any order.

    It covers path, kind, mode, size and SHA-256 of content (or target), and the owner's numbers where those are kept; not times. A hard link counts as the
    file that it is.
    """

    def __init__(self, *, owners: bool) -> None:
        self._owners = owners
        self._lines: dict[bytes, str] = {}
        #: Bytes of all files, as far as added.
        self.size = 0

    def add(
        self, path: str, kind: str, mode: int, owner: tuple[int, int], size: int, content: str
    ) -> None:
        """Add one member; `content` is the SHA-256 of a file or the target of a link. A folder that is added again replaces itself."""
        numbers = owner if self._owners else (0, 0)
        line = [path, kind, 0 if kind == "link" else mode, *numbers, size, content]
        key = path.encode("utf-8", "surrogateescape")
        if kind == "file":
            self.size += size
        self._lines[key] = json.dumps(line, separators=(",", ":"))

    def hexdigest(self) -> str:
        """Return the digest, 64 hex digits."""
        digest = hashlib.sha256(_HEAD)
        for key in sorted(self._lines):
            digest.update(self._lines[key].encode() + b"\n")
        return digest.hexdigest()


#: What a folder gets that no member names.
FOLDER_MODE: Final = 0o755


def measure(read: Callable[[int], bytes], keep: frozenset[str] = frozenset()) -> tuple[int, str]:
    """Read a whole archive, as a device will, without writing anything.

    Args:
        read: returns up to that many bytes, fewer only at the end (untrusted content).
        keep: of `KEEP`.

    Returns:
        Bytes of all files in it, and the digest of the tree.

    Raises:
        PublisherError: `sig.malformed`: a device would refuse it.
    """
    members, tree = Members(read), Tree(keep)
    digest = Digest(owners="owners" in keep)
    files: dict[str, tuple[Entry, str]] = {}
    digest.add("", "folder", FOLDER_MODE, (0, 0), 0, "")
    for entry in members:
        for above in tree.admit(entry):
            digest.add(above, "folder", FOLDER_MODE, (0, 0), 0, "")
        content = entry.target
        if entry.kind == "file":
            sha = hashlib.sha256()
            for piece in members.pieces():
                sha.update(piece)
            content = sha.hexdigest()
            files[entry.path] = (entry, content)
        if entry.kind == "hard_link":
            first, content = files[entry.target]
            entry = first._replace(path=entry.path)  # noqa: PLW2901 - the same file under another name
        digest.add(entry.path, entry.kind, entry.mode, (entry.uid, entry.gid), entry.size, content)
    return digest.size, digest.hexdigest()
