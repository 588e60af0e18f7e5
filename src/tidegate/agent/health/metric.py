"""Check `metric`: a number that software publishes keeps its bounds.

`source`: a file, or `http://127.0.0.1:PORT/metrics`, in the Prometheus text format. `metric`: `name`, or `name{label="value"}`; several samples that fit are
added. Bounds: `max` and `min` for a gauge; `max_per_hour` for a counter, its growth since the first look in this warm-up, the first hour counted as a whole
one. A counter that fell began anew: what was counted before stays counted. Numbers in a contract are whole; `scale` (default 1) is what the metric is
multiplied with before it is compared, so that `max = 800, scale = 1000` means 0.8. A metric that is not there fails.
"""

from tidegate.agent.checkup.metric_source import MetricSource
from tidegate.agent.checkup.metric_text import parse_wanted
from tidegate.agent.health import CheckSettings, Place, number, text
from tidegate.agent.ports import HealthProbe
from tidegate.core.errors import ConfigError

REASON = "health.error_rate"
KNOWN = frozenset({"source", "metric", "max", "min", "max_per_hour", "scale"})
_BOUNDS = ("min", "max", "max_per_hour")


def create(settings: CheckSettings, place: Place) -> HealthProbe:
    """Make the probe."""
    source = MetricSource(
        text(settings, "source"), parse_wanted(text(settings, "metric")), place.timeout_s
    )
    bounds: dict[str, int] = {}
    for one in _BOUNDS:
        found = settings.get(one)
        if found is not None and (not isinstance(found, int) or isinstance(found, bool)):
            raise ConfigError("config.invalid", f"{one} is not a whole number")
        if isinstance(found, int):
            bounds[one] = found
    if not bounds:
        raise ConfigError("config.missing", "max, min or max_per_hour: which bounds?")
    return Metric(source, bounds, max(1, number(settings, "scale", 1)), place)


class Metric:
    """One number, compared with its bounds and with its first look."""

    def __init__(
        self, source: MetricSource, bounds: dict[str, int], scale: int, place: Place
    ) -> None:
        self._source = source
        self._bounds = bounds
        self._scale = scale
        self._place = place

    def check(self, now: float) -> tuple[bool, str]:
        """Read it and compare."""
        found, problem = self._source.value()
        if found is None:
            return False, problem
        value, bounds = found * self._scale, self._bounds
        if "min" in bounds and value < bounds["min"]:
            return False, f"{found:g} is below {bounds['min'] / self._scale:g}"
        if "max" in bounds and value > bounds["max"]:
            return False, f"{found:g} is above {bounds['max'] / self._scale:g}"
        if "max_per_hour" not in bounds:
            return True, f"{found:g}"
        grown = self._place.growth(int(value))
        allowed = bounds["max_per_hour"] * self._place.hours(now)
        return grown <= allowed, f"grew by {grown / self._scale:g}"
