"""The API as Python: one method for each operation, typed structs in and out, every failure a `TidegateError` with its code.

    from tidegate.client import Client, structs

    server = Client("https://updates.example.com", token)
    for rollout in server.rollouts_list(state="active"):
        server.rollouts_halt(rollout.name, structs.Act(reason="screens stay black"))

Structs and methods are generated from the description of the API (`make docs`); what is written by hand here is how a call travels. The command line uses
nothing else. It needs nothing but the base install.
"""

from tidegate.client import structs
from tidegate.client.link import File, Progress, fresh_key
from tidegate.client.listing import Listing
from tidegate.client.problems import problem
from tidegate.client.routes import Every
from tidegate.client.stream import StreamEvent
from tidegate.client.tag import Tag

__all__ = ["Client", "File", "Listing", "Progress", "StreamEvent", "Tag", "fresh_key", "problem", "structs"]  # fmt: skip


class Client(Every):
    """Talks to one server as one person. Every failure is a `TidegateError`; nothing is connected before the first call."""
