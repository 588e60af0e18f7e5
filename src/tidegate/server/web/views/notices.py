"""What the world is told, and where."""

from dataclasses import dataclass

from tidegate.server.outbox import ChannelFacts, NoticeFacts


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """A channel of the settings with its newest message; None: nothing was ever sent to it."""

    channel: ChannelFacts
    newest: NoticeFacts | None = None


@dataclass(frozen=True, slots=True)
class NoticesPage:
    """Channels and one page of messages, newest first. `problem`: the settings of the channels cannot be read, and why."""

    now: int
    channels: tuple[ChannelRow, ...]
    rows: tuple[NoticeFacts, ...]
    in_state: str = ""
    problem: str = ""
    next_cursor: str = ""
