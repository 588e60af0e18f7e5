"""What the invented story holds over time, and what the world was told of it."""

from typing import Final

from tests.browser.records import DAY, HOSTILE

from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.outbox import ChannelFacts, NoticeFacts, State
from tidegate.server.web import views as v

_SENT: Final[tuple[tuple[str, State, int, str | None], ...]] = (
    ("incident.opened", "waiting", 0, None),
    ("rollout.halted", "retrying", 3, f"answered 503: {HOSTILE}"),
    ("rollout.halted", "delivered", 1, None),
    ("approval.asked", "dead", 20, "no answer within 10 s"),
)


def _rising(count: int, most: int) -> tuple[int, ...]:
    return tuple(most * n * n // (count * count) for n in range(1, count + 1))


def _groups(count: int) -> tuple[v.PlotGroup, ...]:
    rare = tuple(1 if n in {count // 3, count // 2} else 0 for n in range(count))
    taken = tuple(-2 if n == count - 1 else one for n, one in enumerate(_rising(count, 4_000)))
    return (
        v.PlotGroup(
            "ends", "Outcomes", "updates that ended",
            (
                v.Plot("Confirmed", taken, "ok", "confirmed"),
                v.Plot("Went back by itself", rare, "bad", "reverted"),
                v.Plot("Lost, silent past the deadline", (0,) * count, "lost", "lost"),
            ),
        ),
        v.PlotGroup(
            "run", "Versions over time", "devices, as they report it",
            (
                v.Plot("2.5.0", _rising(count, 23_929), "v0", level=True),
                v.Plot("2.4.1", (98_471,) * count, "v1", level=True),
                v.Plot(HOSTILE, (12,) * count, "v2", level=True),
            ),
        ),
        v.PlotGroup(
            "downloads", "Downloads", "what arrived, and what failed by reason",
            (
                v.Plot("Bytes fetched", _rising(count, 61_000_000_000), "go2", unit="bytes"),
                v.Plot("bytes did not match their digest", rare, "bad", code="download.hash"),
            ),
        ),
        v.PlotGroup("reasons", "Other reasons", "most first", (), "Nothing failed."),
    )  # fmt: skip


class Told:
    """The part of the reader that these pages need."""

    def history(self, days: int, now: int, sight: Sight = SEES_ALL) -> v.HistoryPage:
        """Return the fleet's history."""
        del sight
        count = days or 30
        at = tuple(now // DAY * DAY - (count - 1 - n) * DAY for n in range(count))
        return v.HistoryPage(now, at, DAY, _groups(count), days=count, periods=(7, 30, 90))

    def rollout_history(self, name: str, now: int) -> v.HistoryPage | None:
        """Return a rollout's history; one that has not begun has none."""
        if name != "gw1-2.5.0":
            return v.HistoryPage(now, (), 3_600, (), rollout=name) if name != "nope" else None
        at = tuple(now - (89 - n) * 10_800 for n in range(90))
        return v.HistoryPage(now, at, 10_800, _groups(90), rollout=name)

    def notices(self, in_state: str, cursor: str, now: int) -> v.NoticesPage:
        """Return channels, and messages of every state."""
        del cursor
        if in_state == "dead":
            return v.NoticesPage(now, (), (), in_state, "webhook ops: its secret is not readable")
        made = [
            NoticeFacts(
                number=n, id=f"msg_{now}_{n}", channel="ops", kind="webhook", event=event,
                about="INC-2026-014", state=state, tries=tries, created_at=now - n * 7_000,
                next_at=now + 300 if state == "retrying" else 0,
                done_at=now - 60 if state in {"delivered", "dead"} else None, error=error,
            )
            for n, (event, state, tries, error) in enumerate(_SENT, 1)
        ]  # fmt: skip
        places = ("https://alarms.example.net/hooks/tidegate?" + "x" * 90, "ops@example.net")
        channels = (
            v.ChannelRow(ChannelFacts(name="ops", kind="webhook", place=places[0], events=()), made[0]),
            v.ChannelRow(
                ChannelFacts(name="desk", kind="mail", place=places[1], events=("incident.opened",))
            ),
        )  # fmt: skip
        return v.NoticesPage(now, channels, tuple(made), in_state)
