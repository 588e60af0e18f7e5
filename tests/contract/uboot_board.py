"""The medium of a U-Boot board and the loader's way of reading and saving its environment: written from U-Boot's sources, without the agent's code."""

import struct
import zlib
from pathlib import Path

SIZE = 0x1000


class UbootBoard:
    """One or two copies of the environment in a file that stands for a disk.

    Args:
        folder: for the file and the lock.
        copies: 1 or 2.
    """

    def __init__(self, folder: Path, copies: int) -> None:
        self.disk = folder / "disk.img"
        self.offsets = (0x800, 0x3000)[:copies]
        self.disk.write_bytes(b"\xa5" * 0x5000)
        self._lock = folder / "env.lock"

    def settings(self) -> dict[str, object]:
        """Return what `[bootloader.uboot]` holds."""
        lines = [f"{self.disk} {offset:#x} {SIZE:#x}" for offset in self.offsets]
        return {"env": lines, "lock": str(self._lock)}

    def load(self) -> dict[str, str]:
        """Return the variables, as U-Boot does at power-on."""
        copies = [self._copy(one) for one in self.offsets]
        found = copies[self._counting()]
        assert found is not None, "U-Boot would start with what was compiled in"
        return found[1]

    def save(self, env: dict[str, str]) -> None:
        """Save the variables, as `saveenv` does: sorted, into the copy that does not count."""
        data = b"".join(f"{key}={env[key]}\0".encode() for key in sorted(env) if env[key]) + b"\0"
        if len(self.offsets) == 1:
            body = data.ljust(SIZE - 4, b"\0")
            self._put(self.offsets[0], struct.pack("<I", zlib.crc32(body)) + body)
            return
        counting = self._counting()
        copy = self._copy(self.offsets[counting])
        flag = 0 if copy is None else (copy[0] + 1) % 256
        body = data.ljust(SIZE - 5, b"\0")
        self._put(self.offsets[1 - counting], struct.pack("<IB", zlib.crc32(body), flag) + body)

    def damage(self) -> None:
        """Spoil all copies."""
        for offset in self.offsets:
            self._put(offset + 100, b"\xff\x00\xff")

    def _counting(self) -> int:
        flags = [None if copy is None else copy[0] for copy in map(self._copy, self.offsets)]
        if len(flags) == 1 or flags[1] is None:
            return 0
        if flags[0] is None:
            return 1
        if sorted(flags) == [0, 255]:  # type: ignore[type-var] # neither is None here
            return flags.index(0)
        return int(flags[1] > flags[0])

    def _put(self, offset: int, body: bytes) -> None:
        with self.disk.open("r+b") as file:
            file.seek(offset)
            file.write(body)

    def _copy(self, offset: int) -> tuple[int, dict[str, str]] | None:
        body = self.disk.read_bytes()[offset : offset + SIZE]
        head = 4 if len(self.offsets) == 1 else 5
        crc, data = struct.unpack("<I", body[:4])[0], body[head:]
        if crc != zlib.crc32(data):
            return None
        entries = data.split(b"\0\0")[0].decode().split("\0")
        return (body[4] if head == 5 else 0), dict(one.split("=", 1) for one in entries if one)
