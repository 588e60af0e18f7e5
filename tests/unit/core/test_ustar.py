"""Tar files of bundles: what ordinary tools write is read, and what a stranger may slip in is refused before it costs anything."""

import io
import tarfile
from collections.abc import Callable

import pytest

from tidegate.core.errors import PublisherError
from tidegate.core.ustar import BLOCK, END, Reader, header, padding

LONG = "metadata/" + "9" * 16 + ".product%2F" + "p" * 64 + ".json"


def archive(*members: tuple[str, bytes]) -> bytes:
    """Write a file as the publisher does."""
    return (
        b"".join(header(name, len(body)) + body + padding(len(body)) for name, body in members)
        + END
    )


def listed(body: bytes) -> list[tuple[str, bytes]]:
    """Read a file to its end."""
    reader, found = Reader(io.BytesIO(body).read), []
    while (one := reader.next()) is not None:
        found.append((one[0], reader.content()))
    return found


def by_tarfile(kind: int, change: Callable[[tarfile.TarInfo], None] = lambda _: None) -> bytes:
    """Write a file with Python's own tar."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as tar:
        info = tarfile.TarInfo("bundle.json")
        info.size = 5
        change(info)
        tar.addfile(info, io.BytesIO(b"hello"))
    return sink.getvalue()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 3_000_000])
def test_what_is_written_is_read_by_us_and_by_others(size: int) -> None:
    members = [("bundle.json", b"x" * size), (LONG, b"second"), ("payloads/" + "ab" * 32, b"")]
    body = archive(*members)
    assert listed(body) == members
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert [(one.name, one.size, one.isreg()) for one in tar] == [
            (name, len(content), True) for name, content in members
        ]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_files_of_other_tools_are_read(kind: int) -> None:
    assert listed(by_tarfile(kind)) == [("bundle.json", b"hello")]


def test_sizes_beyond_eight_gigabytes_survive() -> None:
    size = (1 << 33) + 7
    block = header("payloads/big", size)
    assert Reader(io.BytesIO(block).read).next() == ("payloads/big", size)
    assert tarfile.TarInfo.frombuf(block, "utf-8", "strict").size == size


def test_a_member_is_skipped_without_being_held() -> None:
    asked: list[int] = []
    body = io.BytesIO(archive(("a", bytes(5_000_000)), ("b", b"b")))

    def read(size: int) -> bytes:
        asked.append(size)
        return body.read(size)

    reader = Reader(read)
    assert reader.next() == ("a", 5_000_000)
    assert reader.next() == ("b", 1)
    assert max(asked) == 1 << 20


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE,
    ],
)  # fmt: skip
def test_whatever_is_no_plain_file_is_refused_unread(kind: bytes) -> None:
    block = bytearray(header("bundle.json", 1 << 39))
    block[156:157] = kind
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 0x20 + sum(block[156:]))
    with pytest.raises(PublisherError, match="no plain file") as caught:
        Reader(io.BytesIO(bytes(block)).read).next()
    assert caught.value.code == "release.malformed"


@pytest.mark.parametrize("at", [0, 1, BLOCK - 1, BLOCK, BLOCK + 3, 2 * BLOCK - 1, 2 * BLOCK])
def test_a_file_cut_anywhere_says_so(at: int) -> None:
    with pytest.raises(PublisherError, match="ends early"):
        listed(archive(("a", b"hello"))[:at])


def test_a_damaged_header_is_refused() -> None:
    body = archive(("a", b"hello"))
    for at in set(range(BLOCK)) - set(
        range(148, 156)
    ):  # blanks may stand for zeros in the checksum
        if body[at] != 0x20:
            with pytest.raises(PublisherError):
                listed(body[:at] + b" " + body[at + 1 :])


def test_a_claim_of_more_than_a_terabyte_is_refused() -> None:
    with pytest.raises(PublisherError, match="claims"):
        Reader(io.BytesIO(header("a", (1 << 40) + 1)).read).next()


def test_a_name_that_does_not_fit_is_refused_and_not_cut() -> None:
    with pytest.raises(PublisherError, match="too long"):
        header("x" * 101, 1)
