"""Where each number of a stratum stands: one flat list of integers, at most 100 with one metric and 15 more for each further one."""

import math
from functools import lru_cache
from typing import Final

import msgspec

from tidegate.rollout.evidence.settings import (
    DELTAS_PPM,
    LAMBDAS_PCT,
    THETAS_PCT,
    Harm,
)

#: Counters of admission, which looks at every device, whether or not it is evidence. `VOID`: exposed, but neither good nor bad (it left the fleet).
EXPOSED: Final = 0
FAILED: Final = 1
SILENT: Final = 2
HEALTHY: Final = 3
VOID: Final = 4
#: `ALIVE + gate`, `DEAD + gate`.
ALIVE: Final = 5
DEAD: Final = 8
#: Admission's counters end here; evidence begins.
ADMISSION: Final = 11
#: Permits charged.
CHARGED: Final = 11
#: Under watch now, by kind (crash, dark); expected and seen late events, by kind.
WATCHED: Final = 12
#: What is kept for each profile, too, so that it can leave a stratum: the counters up to here.
TRACKED: Final = 14
EXPECTED: Final = 14
SEEN: Final = 16
#: The same of this day alone: a bet that was laid down this morning.
EXPECTED_TODAY: Final = 18
SEEN_TODAY: Final = 20
FAILURE: Final = 22
SILENCE: Final = FAILURE + len(DELTAS_PPM)
RACE: Final = SILENCE + len(DELTAS_PPM)
METRIC: Final = RACE + 2 * len(THETAS_PCT)

KINDS: Final = ("crash", "dark")
STREAMS: Final = ("failure", "silence", "crash", "dark", "crash_rate", "dark_rate")


class Layout(msgspec.Struct, frozen=True):
    """What depends on the settings: how long a row is, the names and weights of its streams, which sum to 1, and their logarithms; -inf of none."""

    width: int
    streams: tuple[str, ...]
    weights: tuple[float, ...]
    log_weights: tuple[float, ...]


@lru_cache(maxsize=64)
def layout(harm: Harm) -> Layout:
    """Return the layout of a row under these settings."""
    given = harm.streams
    metrics = max(1, len(harm.metrics))
    names = [*STREAMS]
    weights = [
        float(one)
        for one in (
            given.failure,
            given.silence,
            given.crash,
            given.dark,
            given.crash_rate,
            given.dark_rate,
        )
    ]
    for metric in harm.metrics:
        for window_s, weight in zip(harm.windows_s, given.metric, strict=True):
            names.append(f"metric {metric} {window_s // 3600} h")
            weights.append(weight / metrics)
    whole = sum(weights) or 1.0
    width = METRIC + len(LAMBDAS_PCT) * len(harm.windows_s) * len(harm.metrics)
    shares = tuple(one / whole for one in weights)
    logs = tuple(math.log(one) if one else -math.inf for one in shares)
    return Layout(width, tuple(names), shares, logs)


def metric_at(harm: Harm, metric: int, window: int) -> int:
    """Return where a metric's window begins in a row."""
    return METRIC + len(LAMBDAS_PCT) * (metric * len(harm.windows_s) + window)
