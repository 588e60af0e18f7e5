"""Templates: what turns a view into a page or a fragment. Autoescape is on everywhere; nothing marks foreign text as safe."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import tidegate
from tidegate.server.web import charts, words
from tidegate.server.web.assets import Assets
from tidegate.server.web.charts import Kind
from tidegate.server.web.views import Chart, Odds

#: The regions of each page that the stream keeps live: the folder is the page, the file the region.
LIVE: Final[Mapping[str, tuple[str, ...]]] = {
    "fleet": ("head", "firmware", "inbox", "rollouts", "outcomes", "security"),
    "rollouts": ("list",),
    "rollout": (
        "head",
        "dock",
        "ask",
        "facts",
        "rings",
        "evidence",
        "proof",
        "permits",
        "normal",
        "gates",
        "variants",
        "exposure",
        "reasons",
        "log",
        "decisions",
        "owed",
        "terms",
    ),
    "device": ("head", "why", "timeline", "slots", "contract", "identity"),
    "incidents": ("list",),
}

#: Regions of a rollout whose policy has an evidence guard; without one they are not there.
EVIDENCE: Final = frozenset({"evidence", "proof", "permits", "normal"})

_RAMP: Final[tuple[Kind, ...]] = ("v0", "v1", "v2", "v3", "v4")


class Renderer:
    """Renders pages and fragments. Safe to call from several threads."""

    def __init__(self, assets: Assets) -> None:
        """Compile nothing yet; templates are compiled at their first use."""
        self._env = Environment(
            loader=PackageLoader("tidegate.server.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._env.globals.update(
            bar=charts.bar,
            portion=charts.portion,
            bullet=charts.bullet,
            spark=charts.spark,
            columns=charts.columns,
            meter_of=_meter,
            meter_scale=charts.meter_scale,
            bound=charts.bound,
            swatch=charts.swatch,
            percent=words.percent,
            static=assets.url,
            version=tidegate.__version__,
        )
        self._env.filters.update(
            state=words.state,
            number=words.number,
            signed=words.signed,
            size=words.size,
            duration=words.duration,
            when=words.when,
            rfc3339=words.rfc3339,
            stamp=words.stamp,
            date=words.date,
            short_hash=words.short_hash,
            plain=words.plain,
            plural=words.plural,
            points=words.points,
            ramp=ramp,
            chart_json=chart_json,
        )

    def page(self, template: str, context: Mapping[str, Any]) -> str:
        """Render a whole page from `templates/TEMPLATE.html`."""
        return self._env.get_template(f"{template}.html").render(_defaults() | dict(context))

    def fragment(self, page: str, region: str, context: Mapping[str, Any]) -> str:
        """Render one live region of a page.

        Raises:
            KeyError: the page has no such region.
        """
        if region not in LIVE[page]:
            raise KeyError(region)
        return (
            self._env.get_template(f"{page}/{region}.html")
            .render(_defaults() | dict(context))
            .strip()
        )


def ramp(counts: Iterable[tuple[str, int]]) -> list[tuple[Kind, int]]:
    """Give each count its step of the version ramp: the first is the strongest."""
    return [(_RAMP[min(n, len(_RAMP) - 1)], count) for n, (_, count) in enumerate(counts)]


def _meter(odds: Odds, height: int = 10) -> Markup:
    return charts.meter(odds.value, odds.halts_at, odds.permits_end_pct, height)


def chart_json(chart: Chart) -> Markup:
    """Write a chart's data for a `script` element of type application/json: `<`, `>` and `&` are escaped, so no text can close it."""
    text = json.dumps(dataclasses.asdict(chart), separators=(",", ":"), ensure_ascii=True)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - escaped just above


def _defaults() -> dict[str, Any]:
    return {
        "theme": "",
        "section": "",
        "live": "",
        "notice": None,
        "own_halt": False,
        "widening": False,
        "csrf_token": "",
        "back": "",
    }
