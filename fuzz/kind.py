"""What a target of fuzzing is."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

from tidegate.core.errors import TidegateError

Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """A parser under test.

    Attributes:
        name: what `fuzz/run` calls it.
        check: gives it any bytes.
        seeds: good inputs, from which damage starts.
        words: pieces that belong to the format, for the fuzzer's dictionary.
        memory: most bytes that one input may cost beyond what the process had, by the peak of its resident memory.
    """

    name: str
    check: Check
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    memory: int = 16 << 20


def refusing(work: Callable[[bytes], object]) -> Check:
    """Let the promised refusal pass; whatever else is raised is a finding."""

    @functools.wraps(work)
    def check(body: bytes) -> None:
        with contextlib.suppress(TidegateError):
            work(body)

    return check
