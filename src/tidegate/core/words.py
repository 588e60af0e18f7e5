"""Digest words: a digest as eight words that two people compare by voice. For documents of a ceremony, and for the keys of devices.

The list is this project's own: 256 words, short, apart in sound, one byte each. Eight of them are 64 bits of SHA-256.
"""

import hashlib
from typing import Final

from tidegate.core.errors import RequestError

COUNT: Final = 8

WORDS: Final = tuple(
    """
    acorn actor album alley amber anchor apple apron arrow atlas autumn bacon badge bagel bamboo banjo
    barrel basket beacon beaver bicycle biscuit blanket bonfire bottle bridge broom bubble bucket button cabin cactus
    camel candle canoe canvas captain carbon carpet castle cedar cellar cement cherry chimney cinema circus clover
    cobra coffee comet compass copper coral cotton cousin cradle crayon cricket crystal cuckoo curtain cycle dagger
    daisy dancer desert diamond dinner doctor dolphin donkey dragon drawer eagle echo elbow elephant ember engine
    fabric falcon feather fiddle finger flamingo forest fossil fountain fridge galaxy garden garlic ginger giraffe glacier
    goblin granite guitar hammer harbor harvest hazel helmet hermit honey hornet hotel husky igloo island ivory
    jacket jaguar jasmine jelly jigsaw jungle kayak kettle kiosk kitchen kiwi koala ladder lagoon lantern laundry
    lemon lettuce lilac lizard lobster lotus magnet mango maple marble meadow melon mirror mitten monkey mosaic
    muffin museum napkin nectar needle nickel nougat novel nutmeg oasis ocean octopus olive onion opal orbit
    orchid otter oven oxygen oyster paddle palace panda parrot peanut pebble pelican pencil pepper piano pigeon
    pillow pilot planet plaza pocket polka poppy potato prism puddle pumpkin puppet pyramid quail quartz quiver
    rabbit radar radio raven ribbon river rocket rubber saddle salmon sandal satin saturn scooter seagull shadow
    shovel silver siren socket spider spruce squid stadium sugar sunset table teapot temple thimble ticket tiger
    timber toffee tomato trumpet tulip tunnel turnip turtle umbrella valley vanilla velvet violin volcano waffle wagon
    walnut whistle willow window winter wizard yogurt zebra zigzag zipper rainbow rooster sailor sparrow tractor vulture
    """.split()  # noqa: SIM905 - one quote a word would hide the list
)


def digest_words(body: bytes) -> str:
    """Return the eight words of a document's bytes."""
    return " ".join(WORDS[byte] for byte in hashlib.sha256(body).digest()[:COUNT])


def same_words(typed: str, expected: str) -> bool:
    """Say whether somebody typed these words, whatever the case and the blanks."""
    return typed.lower().split() == expected.split()


def key_words(key_sha256: str) -> str:
    """Return the eight words of a key's digest (64 hex digits): what a device shows, and a person compares."""
    return " ".join(WORDS[byte] for byte in bytes.fromhex(key_sha256)[:COUNT])


def key_beginning(typed: str) -> str:
    """Return the hex digits that a typed fingerprint (untrusted) stands for: 16 for eight words, up to 64 for digits.

    Blanks, colons and dashes between digits are passed over, as is a leading `sha256:`.

    Raises:
        RequestError: `request.invalid`: neither eight words of the list nor 16 to 64 hex digits.
    """
    text = typed.strip().lower().removeprefix("sha256:")
    found = text.split()
    known = {word: number for number, word in enumerate(WORDS)}
    if len(found) == COUNT and all(word in known for word in found):
        return bytes(known[word] for word in found).hex()
    digits = "".join(one for one in text if one not in " :-\t")
    if 2 * COUNT <= len(digits) <= 64 and all(one in "0123456789abcdef" for one in digits):
        return digits
    raise RequestError(
        "request.invalid", "a fingerprint is the eight words, or 16 to 64 hex digits, of a key"
    )
