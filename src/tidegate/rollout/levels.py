"""How much a rollout asks of a device, in one word: offered, required, required by a date, or fetched ahead.

The words are made of what a device understands (`core.protocol.DeliveryPolicy`) and of `Policy.prefetch`, so that they can be read back from any rollout,
whoever made it and however it was written.
"""

from typing import Final, Literal

from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout.model import Policy

Level = Literal["offered", "required", "required-by", "prefetch"]
LEVELS: Final[tuple[Level, ...]] = ("offered", "required", "required-by", "prefetch")
#: What each asks for, in a few words.
MEANS: Final[dict[Level, str]] = {
    "offered": "downloaded and staged; its owner decides when it activates",
    "required": "activated as soon as windows, inhibitors and permits allow",
    "required-by": "activated as soon as it may be, and by a date; past it a security release waits for no window",
    "prefetch": "downloaded and staged by everybody at once; activated ring by ring once it is let go",
}


def level_of(policy: Policy, delivery: DeliveryPolicy) -> Level:
    """Return the level of a rollout."""
    if policy.prefetch:
        return "prefetch"
    if delivery.activate == "manual":
        return "offered"
    return "required-by" if delivery.deadline else "required"
