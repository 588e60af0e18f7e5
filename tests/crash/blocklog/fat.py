"""A reader of FAT12, FAT16 and FAT32, as a boot loader reads: the first allocation table, the first entry of a name, the chain of clusters.

Source: Microsoft's FAT specification, version 1.03. Only what a boot loader needs: long names, folders, files. Nothing is repaired: an entry that leads to a
free or impossible cluster is damage here, not an empty file, as it is to firmware.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_LONG, _LABEL, _FOLDER = 0x0F, 0x08, 0x10
_FREE, _GONE = 0x00, 0xE5


class DamagedFatError(Exception):
    """What was asked for cannot be read."""


@dataclass(frozen=True)
class Node:
    """One entry of a folder."""

    name: str
    folder: bool
    cluster: int
    size: int


class Fat:
    """A volume. `image` may be larger than the volume, and may change between two volumes, not under one."""

    def __init__(self, image: bytes | bytearray) -> None:
        self._image = image
        (sector,) = struct.unpack_from("<H", image, 11)
        if sector not in {512, 1024, 2048, 4096}:
            raise DamagedFatError(f"sectors of {sector} bytes")
        per_cluster = image[13]
        reserved, tables = struct.unpack_from("<HB", image, 14)
        roots, small, _, table_small = struct.unpack_from("<HHBH", image, 17)
        large, table_large = struct.unpack_from("<II", image, 32)
        table = table_small or table_large
        if not per_cluster or not tables or not table:
            raise DamagedFatError("no volume")
        self._cluster = per_cluster * sector
        self._table = reserved * sector
        self._root = (reserved + tables * table) * sector
        self._root_bytes = -(-roots * 32 // sector) * sector
        self._data = self._root + self._root_bytes
        self._count = ((small or large) * sector - self._data) // self._cluster
        self._bits = 12 if self._count < 4085 else 16 if self._count < 65525 else 32
        self._first = struct.unpack_from("<I", image, 44)[0] if self._bits == 32 else 0

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            DamagedFatError: it is not there, or cannot be followed.
        """
        *folders, name = path.strip("/").split("/")
        node = self._find("/".join(folders), name)
        if node.folder:
            raise DamagedFatError(f"{path} is a folder")
        body = self._chain(node.cluster, node.size)
        if len(body) < node.size:
            raise DamagedFatError(f"{path}: {len(body)} of {node.size} bytes")
        return body[: node.size]

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder, as they stand there: one that is there twice is twice in it."""
        return [one.name for one in self._nodes(folder)]

    def _find(self, folder: str, name: str) -> Node:
        for node in self._nodes(folder):
            if node.name.casefold() == name.casefold():
                return node
        raise DamagedFatError(f"no {name} in /{folder}")

    def _nodes(self, folder: str) -> Iterator[Node]:
        body = self._image[self._root : self._root + self._root_bytes]
        if self._bits == 32:
            body = bytearray(self._chain(self._first, None))
        for name in filter(None, folder.split("/")):
            for node in _entries(body):
                if node.folder and node.name.casefold() == name.casefold():
                    body = bytearray(self._chain(node.cluster, None))
                    break
            else:
                raise DamagedFatError(f"no folder {name}")
        return (one for one in _entries(body) if one.name not in {".", ".."})

    def _chain(self, cluster: int, size: int | None) -> bytes:
        if size == 0:
            return b""
        pieces: list[bytes] = []
        seen: set[int] = set()
        while cluster < self._end():
            if not 2 <= cluster < self._count + 2 or cluster in seen:
                raise DamagedFatError(f"a chain leads to cluster {cluster}")
            seen.add(cluster)
            at = self._data + (cluster - 2) * self._cluster
            pieces.append(bytes(self._image[at : at + self._cluster]))
            cluster = self._next(cluster)
        return b"".join(pieces)

    def _end(self) -> int:
        return {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}[self._bits]

    def _next(self, cluster: int) -> int:
        table = self._table
        if self._bits == 32:
            return int(struct.unpack_from("<I", self._image, table + cluster * 4)[0]) & 0x0FFFFFFF
        if self._bits == 16:
            return int(struct.unpack_from("<H", self._image, table + cluster * 2)[0])
        pair = int(struct.unpack_from("<H", self._image, table + cluster * 3 // 2)[0])
        return pair >> 4 if cluster & 1 else pair & 0xFFF


def _entries(body: bytes | bytearray) -> Iterator[Node]:
    long: list[str] = []
    for at in range(0, len(body) - 31, 32):
        entry = body[at : at + 32]
        if entry[0] == _FREE:
            return
        if entry[0] == _GONE:
            long = []
        elif entry[11] == _LONG:
            text = bytes(entry[1:11] + entry[14:26] + entry[28:32]).decode("utf-16-le", "replace")
            long.insert(0, text.split("\0")[0].rstrip("\uffff"))
        elif entry[11] & _LABEL:
            long = []
        else:
            high, low, size = struct.unpack("<H4xHI", entry[20:32])
            name = "".join(long) or _short(entry)
            yield Node(name, bool(entry[11] & _FOLDER), high << 16 | low, size)
            long = []


def _short(entry: bytes | bytearray) -> str:
    stem = bytes(entry[:8]).decode("cp437").rstrip()
    ending = bytes(entry[8:11]).decode("cp437").rstrip()
    # Windows NT's bits, which Linux writes as well: stem or ending are of small letters.
    stem = stem.lower() if entry[12] & 0x08 else stem
    ending = ending.lower() if entry[12] & 0x10 else ending
    return f"{stem}.{ending}" if ending else stem
