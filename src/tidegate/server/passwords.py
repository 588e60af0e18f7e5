"""Passwords made of words: short enough to type from a terminal, long enough that nobody guesses them."""

from collections.abc import Callable
from typing import Final

#: 128 short words that do not sound alike; five of them and four digits are about 48 bits, behind argon2 and a limit on tries.
WORDS: Final = tuple(
    (  # noqa: SIM905 - a list literal of 128 lines reads worse
        "acorn amber anchor apple arrow badge bamboo basin beacon birch bison blanket bottle branch bridge bronze "
        "bucket button cabin cactus candle canoe canyon carpet cedar chalk cherry circle clover cobalt copper coral "
        "cotton cradle crane cricket crystal daisy desert dolphin donkey dragon drum eagle ember falcon feather fern "
        "field flint forest fossil fountain galaxy garden garlic ginger glacier granite hammer harbor hazel helmet heron "
        "honey horizon island ivory jacket jasmine jungle kettle ladder lagoon lantern lemon lily lobster magnet maple "
        "marble meadow melon mirror monkey moss mountain needle nickel oasis olive onion orchid otter oyster paddle "
        "panda pebble pepper pillow planet pocket prairie pumpkin quartz rabbit raven ribbon river rocket saddle salmon "
        "shadow silver spider spruce summit sunset thistle thunder timber tulip tunnel turtle valley velvet walnut willow"
    ).split()
)


def made_of_words(token_bytes: Callable[[int], bytes], count: int = 5) -> str:
    """Return a password such as `maple-otter-cobalt-river-4821`.

    Args:
        token_bytes: the source of randomness.
        count: how many words; 7 bits each.
    """
    raw = token_bytes(count + 4)
    words = [WORDS[byte % len(WORDS)] for byte in raw[:count]]
    number = int.from_bytes(raw[count:], "big") % 10_000
    return "-".join([*words, f"{number:04d}"])
