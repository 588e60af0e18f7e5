"""The container: what a device may be given, and what it must refuse without growing."""

import hashlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard
from tests.unit.core.repo import release

from tidegate.core.accept import check_index
from tidegate.core.errors import TidegateError
from tidegate.core.payload import (
    BLOCK_SIZE,
    COPY,
    DIFF,
    HEADER_SIZE,
    PLAIN,
    RAW_INDEX_MAX,
    STORED_INDEX_MAX,
    TAKE,
    ZERO,
    Index,
    Operation,
    Segment,
    decode_segment,
    encode_head,
    head_lengths,
    head_size,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "payload"
TEXT = b"".join(b"line %d of a real file\n" % n for n in range(2_000))[:20_000]
IMAGE = TEXT[:8192] + bytes(8192) + TEXT[8192:20_000]
TARGET = hashlib.sha256(IMAGE).digest()


def code(act: Callable[[], object]) -> str:
    with pytest.raises(TidegateError) as caught:
        act()
    return caught.value.code


def frame(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(plain)


def segment(plain: bytes, stored: bytes, kind: int = PLAIN) -> Segment:
    return Segment(
        kind,
        0,
        len(stored),
        hashlib.sha256(stored).digest(),
        len(plain),
        hashlib.sha256(plain).digest(),
    )


STREAM = TEXT[:8192] + TEXT[8192:20_000] + bytes(-20_000 % BLOCK_SIZE)
PARTS = [STREAM[at : at + 8192] for at in range(0, len(STREAM), 8192)]
BODIES = [frame(part) for part in PARTS]
SEGMENTS = tuple(segment(part, body) for part, body in zip(PARTS, BODIES, strict=True))
OPERATIONS = (Operation(TAKE, 0, 2), Operation(ZERO, 0, 2), Operation(TAKE, 2, 3))


def head(
    *,
    image_size: int = len(IMAGE),
    segment_size: int = 8192,
    operations: tuple[Operation, ...] = OPERATIONS,
    segments: tuple[Segment, ...] = SEGMENTS,
    base: bytes | None = None,
    reference: tuple[tuple[int, int], ...] = (),
) -> bytes:
    return encode_head(
        image_size=image_size,
        segment_size=segment_size,
        target_sha256=TARGET,
        operations=operations,
        segments=segments,
        base_sha256=base,
        reference=reference,
    )


CONTAINER = head() + b"".join(BODIES)


def unpack(container: bytes) -> bytes:
    index = Index.parse(container[: head_size(container[:HEADER_SIZE])])
    index.require_supported()
    slot = bytearray(b"\xff" * index.image_size)
    for offset, length in index.zeros():
        slot[offset : offset + length] = bytes(length)
    for number, one in enumerate(index.segments):
        plain = decode_segment(
            index, number, container[one.offset : one.offset + one.stored_length]
        )
        for write in index.writes(number):
            slot[write.target_offset : write.target_offset + write.length] = plain[
                write.offset : write.offset + write.length
            ]
    return bytes(slot)


def test_a_container_unpacks_to_its_image() -> None:
    assert unpack(CONTAINER) == IMAGE


def test_the_golden_container_is_still_read() -> None:
    """The format is pinned: devices in the field read what was published years ago."""
    container = (GOLDEN / "full.payload").read_bytes()
    image = unpack(container)
    assert hashlib.sha256(image).hexdigest() == (GOLDEN / "full.sha256").read_text().strip()
    index = Index.parse(container[: head_size(container)])
    assert (index.image_size, len(index.segments), index.length) == (
        len(image),
        2,
        len(container),
    )
    assert [one.kind for one in index.operations] == [TAKE, ZERO, TAKE, TAKE, TAKE]


def test_everything_in_the_index_has_its_place() -> None:
    index = Index.parse(head())
    assert index.image_size == len(IMAGE)
    assert index.target_sha256 == TARGET.hex()
    assert index.base_sha256 is None
    assert index.length == len(CONTAINER)
    assert list(index.zeros()) == [(8192, 8192)]
    assert index.resume_at(0) == 0
    assert index.resume_at(index.segments[1].offset) == 1
    assert index.resume_at(index.length) == 3


def test_a_last_block_that_is_not_whole_is_cut_again() -> None:
    writes = [write for number in range(3) for write in Index.parse(head()).writes(number)]
    assert max(write.target_offset + write.length for write in writes) == len(IMAGE)


@pytest.mark.parametrize("keep", [0, 4, HEADER_SIZE - 1, HEADER_SIZE, HEADER_SIZE + 9])
def test_a_head_that_ends_early_is_a_cut_transfer(keep: int) -> None:
    assert code(lambda: Index.parse(head()[:keep])) == "download.truncated"


def patched(at: int, new: bytes) -> bytes:
    made = head()
    return made[:at] + new + made[at + len(new) :]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (patched(0, b"PK"), "sig.malformed"),
        (patched(4, b"\x02"), "compat.agent"),
        (patched(6, b"\x01"), "compat.agent"),
        (patched(8, (STORED_INDEX_MAX + 1).to_bytes(4, "little")), "sig.malformed"),
        (patched(12, (RAW_INDEX_MAX + 1).to_bytes(4, "little")), "sig.malformed"),
        (patched(12, b"\xff\xff\x00\x00"), "sig.malformed"),
        (patched(8, bytes(4)), "sig.malformed"),
        (patched(HEADER_SIZE, b"\0\0\0\0"), "sig.malformed"),
    ],
)
def test_a_hostile_header_is_refused(body: bytes, expected: str) -> None:
    assert code(lambda: Index.parse(body)) == expected


@pytest.mark.parametrize(
    "operations",
    [
        (),
        (Operation(TAKE, 0, 4), Operation(ZERO, 0, 2)),
        (Operation(TAKE, 0, 5), Operation(ZERO, 0, 2), Operation(TAKE, 0, 2)),
        (Operation(TAKE, 1, 5), Operation(ZERO, 0, 2)),
        (Operation(TAKE, 0, 2), Operation(ZERO, 0, 2), Operation(TAKE, 3, 3)),
        (Operation(TAKE, 0, 2), Operation(TAKE, 0, 0), Operation(ZERO, 0, 5)),
    ],
    ids=["none", "too few", "too many", "gap at start", "gap", "empty"],
)
def test_operations_cover_the_target_exactly_once(operations: tuple[Operation, ...]) -> None:
    assert code(lambda: Index.parse(head(operations=operations))) == "sig.malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"segments": SEGMENTS[:2]},
        {"segments": (*SEGMENTS, SEGMENTS[0])},
        {"segments": (segment(PARTS[0], bytes(9_000)), *SEGMENTS[1:])},
        {"segments": (segment(PARTS[0], BODIES[0], DIFF), *SEGMENTS[1:])},
        {"segment_size": 4097},
        {"segment_size": 8 << 20},
        {"image_size": 0},
        {"operations": (Operation(COPY, 0, 7),), "segments": ()},
        {"reference": ((0, 1),)},
    ],
    ids=[
        "segment missing",
        "segment too many",
        "larger than its bound",
        "difference without base",
        "segment of odd size",
        "segment over the limit",
        "empty image",
        "copy without base",
        "reference without base",
    ],
)
def test_an_index_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    assert code(lambda: Index.parse(head(**changes))) == "sig.malformed"  # type: ignore[arg-type]


def test_a_target_that_is_not_covered_to_its_end_is_refused() -> None:
    short = head(operations=(Operation(ZERO, 0, 3),), segments=())
    assert code(lambda: Index.parse(short)) == "sig.malformed"


def with_raw(change: Callable[[bytes], bytes]) -> bytes:
    """Return a head whose raw index was changed."""
    raw = change(zstandard.ZstdDecompressor().decompress(head()[HEADER_SIZE:]))
    stored = frame(raw)
    lengths = len(stored).to_bytes(4, "little") + len(raw).to_bytes(4, "little")
    return head()[:8] + lengths + stored


def test_bytes_after_the_index_are_refused() -> None:
    assert Index.parse(with_raw(lambda raw: raw)).operations == OPERATIONS
    assert code(lambda: Index.parse(with_raw(lambda raw: raw + b"\0"))) == "sig.malformed"
    assert code(lambda: Index.parse(with_raw(lambda raw: raw[:-1]))) == "sig.malformed"


def test_an_operation_of_unknown_kind_is_refused() -> None:
    three = b"\x03t\x00\x02z"
    changed = with_raw(lambda raw: raw.replace(three, three.replace(b"t", b"x")))
    assert code(lambda: Index.parse(changed)) == "sig.malformed"


def test_a_number_without_end_is_refused() -> None:
    assert code(lambda: Index.parse(with_raw(lambda _: b"\xff" * 40))) == "sig.malformed"


def test_a_delta_is_parsed_and_refused_with_a_word_of_its_own() -> None:
    """The format holds deltas from the start; this version only says that it cannot unpack them."""
    delta = head(
        operations=(Operation(COPY, 9, 4), Operation(TAKE, 0, 2), Operation(COPY, 5, 1)),
        segments=(with_pages(segment(PARTS[0], BODIES[0], DIFF), ((0, 1), (2, 1))),),
        base=bytes(32),
        reference=((3, 40), (100, 8)),
    )
    index = Index.parse(delta)
    assert [one.start for one in index.operations] == [9, 0, 5]
    assert index.reference == ((3, 40), (100, 8))
    assert index.segments[0].pages == ((0, 1), (2, 1))
    assert code(index.require_supported) == "compat.agent"
    assert code(lambda: decode_segment(index, 0, BODIES[0])) == "compat.agent"


def with_pages(one: Segment, pages: tuple[tuple[int, int], ...]) -> Segment:
    return Segment(
        one.kind,
        0,
        one.stored_length,
        one.stored_sha256,
        one.plain_length,
        one.plain_sha256,
        pages,
    )


def test_a_reference_page_outside_the_reference_is_refused() -> None:
    delta = head(
        operations=(Operation(COPY, 0, 5), Operation(TAKE, 0, 2)),
        segments=(with_pages(segment(PARTS[0], BODIES[0], DIFF), ((0, 2),)),),
        base=bytes(32),
        reference=((0, 16),),
    )
    assert code(lambda: Index.parse(delta)) == "sig.malformed"


# --- segments -----------------------------------------------------------------------------------------------------------


def decode(plain: bytes, stored: bytes, given: bytes | None = None) -> bytes:
    """Decode the only segment of a container whose index describes `plain` and `stored`."""
    made = head(
        image_size=len(plain),
        operations=(Operation(TAKE, 0, len(plain) // BLOCK_SIZE),),
        segments=(segment(plain, stored),),
    )
    return decode_segment(Index.parse(made), 0, stored if given is None else given)


def test_bytes_that_are_not_the_signed_ones_never_reach_the_decoder() -> None:
    changed = bytes([BODIES[0][0] ^ 1]) + BODIES[0][1:]
    assert code(lambda: decode(PARTS[0], BODIES[0], changed)) == "download.hash"
    assert code(lambda: decode(PARTS[0], BODIES[0], BODIES[0][:-1])) == "download.truncated"
    assert code(lambda: decode(PARTS[0], BODIES[0], BODIES[0] + b"\0")) == "download.truncated"


def test_a_frame_that_declares_another_size_is_refused_before_it_grows() -> None:
    bomb = frame(bytes(64 << 20))
    tracemalloc.start()
    assert code(lambda: decode(PARTS[0], bomb)) == "sig.malformed"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_frame_that_declares_no_size_is_refused() -> None:
    nameless = zstandard.ZstdCompressor(write_content_size=False).compress(PARTS[0])
    assert code(lambda: decode(PARTS[0], nameless)) == "sig.malformed"


@pytest.mark.parametrize("stored", [BODIES[0] + b"\0", BODIES[0] * 2, b"no zstd at all", b""])
def test_what_is_not_exactly_one_frame_is_refused(stored: bytes) -> None:
    assert code(lambda: decode(PARTS[0], stored)) == "sig.malformed"


def test_a_frame_of_other_bytes_than_promised_is_refused() -> None:
    other = frame(bytes(8192))
    made = head(
        image_size=8192,
        operations=(Operation(TAKE, 0, 2),),
        segments=(
            Segment(
                PLAIN,
                0,
                len(other),
                hashlib.sha256(other).digest(),
                8192,
                hashlib.sha256(PARTS[0]).digest(),
            ),
        ),
    )
    assert code(lambda: decode_segment(Index.parse(made), 0, other)) == "sig.malformed"


def test_an_index_must_be_of_the_image_that_was_signed() -> None:
    index = Index.parse(head())
    good = release(118).release
    install = msgspec.structs.replace(good.install, size=len(IMAGE), sha256=TARGET.hex())
    check_index(index, msgspec.structs.replace(good, install=install))
    assert code(lambda: check_index(index, good)) == "release.malformed"


def test_the_lengths_of_a_head_are_known_from_its_first_bytes() -> None:
    made = head()
    assert head_size(made[:HEADER_SIZE]) == len(made)
    assert head_lengths(made[:HEADER_SIZE])[0] == len(made) - HEADER_SIZE
