"""Any image survives packing and unpacking; any damage ends in a known code."""

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.test_payload import CONTAINER, IMAGE, unpack

from tidegate.core.errors import TidegateError
from tidegate.core.payload import HEADER_SIZE, Index, head_size
from tidegate.publisher.pack import pack

BLOCKS = st.lists(st.sampled_from([bytes(4096), *(bytes([n]) * 4096 for n in range(1, 6))]))


@given(
    blocks=BLOCKS,
    tail=st.binary(max_size=5_000),
    segment=st.sampled_from([4096, 8192, 1 << 20]),
    jobs=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_any_image_survives(blocks: list[bytes], tail: bytes, segment: int, jobs: int) -> None:
    image = b"".join(blocks) + tail
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "image", Path(folder) / "payload"
        source.write_bytes(image or b"x")
        made = pack(source, out, level=1, segment_size=segment, jobs=jobs)
        container = out.read_bytes()
    assert unpack(container) == (image or b"x")
    assert made.sha256 == hashlib.sha256(container).hexdigest()
    assert made.image_sha256 == hashlib.sha256(image or b"x").hexdigest()
    head = container[: head_size(container[:HEADER_SIZE])]
    assert made.index_sha256 == hashlib.sha256(head).hexdigest()
    assert Index.parse(head).length == made.length == len(container)


@given(at=st.integers(0, len(CONTAINER) - 1), flip=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_damage_is_a_known_error_or_changes_nothing(at: int, flip: int, cut: bool) -> None:
    """Without the signed digest of the head, damage may go unseen only where nothing depends on the bytes."""
    damaged = (
        CONTAINER[:at]
        if cut
        else CONTAINER[:at] + bytes([CONTAINER[at] ^ flip]) + CONTAINER[at + 1 :]
    )
    try:
        found = unpack(damaged)
    except TidegateError:
        return
    assert not cut
    assert found == IMAGE or damaged[:HEADER_SIZE] == CONTAINER[:HEADER_SIZE]


@given(raw=st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_as_an_index_end_in_a_known_error(raw: bytes) -> None:
    import zstandard

    frame = zstandard.ZstdCompressor().compress(raw or b"x")
    header = (
        CONTAINER[:8] + len(frame).to_bytes(4, "little") + (len(raw) or 1).to_bytes(4, "little")
    )
    with pytest.raises(TidegateError):
        Index.parse(header + frame)
