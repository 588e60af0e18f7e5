"""Bars, meters and sparklines as inline SVG.

All geometry is in attributes, because the Content-Security-Policy forbids inline styles. Every function takes numbers and closed lists of class
names only, so nothing from a device can reach the markup; what they return is safe to print.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

from markupsafe import Markup

Kind = Literal[
    "ok", "go", "go2", "wait", "iso", "bad", "lost", "warn", "text3", "v0", "v1", "v2", "v3", "v4"
]

#: A share of a bad outcome is never drawn narrower than this, in percent: nine lost of 126,848 must be seen.
LEAST_BAD: Final = 0.9
BAD: Final[frozenset[Kind]] = frozenset({"bad", "lost"})
_KINDS: Final[frozenset[str]] = frozenset(
    {"ok", "go", "go2", "wait", "iso", "bad", "lost", "warn", "text3", "v0", "v1", "v2", "v3", "v4"}
)


def widths(parts: Sequence[tuple[Kind, int]]) -> list[tuple[Kind, float]]:
    """Share out 100 % over the parts, in percent rounded to 0.01; parts of 0 are left out.

    Bad outcomes are lifted to at least `LEAST_BAD`; the others shrink in proportion.
    """
    present = [(kind, max(0, count)) for kind, count in parts if count > 0]
    total = sum(count for _, count in present)
    if total == 0:
        return []
    exact = [(kind, 100 * count / total) for kind, count in present]
    lifted = {n for n, (kind, share) in enumerate(exact) if kind in BAD and share < LEAST_BAD}
    taken = LEAST_BAD * len(lifted)
    free = sum(share for n, (_, share) in enumerate(exact) if n not in lifted)
    scale = (100 - taken) / free if free else 1.0
    return [
        (kind, LEAST_BAD if n in lifted else round(share * scale, 2))
        for n, (kind, share) in enumerate(exact)
    ]


def bar(parts: Sequence[tuple[Kind, int]], height: int = 10, mark_bp: int | None = None) -> Markup:
    """Draw a share bar in the order given; `mark_bp` is a tick in basis points of the width (the open step of a ring)."""
    _known(parts)
    out = []
    shares = widths(parts)
    if not shares:
        out.append(_rect("sunken", 0, 100, height))
    x = 0.0
    edges = []
    for kind, width in shares:
        out.append(_rect(kind, x, width, height))
        edges.append(x)
        x = round(x + width, 2)
    out.extend(
        f'<rect class="f-surface" x="{_n(edge)}%" width="1" height="{height}"/>'
        for edge in edges[1:]
    )
    if mark_bp is not None and 0 < mark_bp < 10_000:
        out.append(
            f'<rect class="f-text" x="{_n(mark_bp / 100)}%" y="-3" width="1.5" height="{height + 6}"/>'
        )
    return _svg("bar", height, out)


def portion(kind: Kind, share: float, height: int = 8) -> Markup:
    """Draw one part of a whole: `share` from 0 to 1, clipped, and at least a stub where it is above 0."""
    _known([(kind, 1)])
    width = 0.0 if share <= 0 else max(LEAST_BAD, min(100.0, 100 * share))
    out = [_rect("sunken", 0, 100, height)]
    if width:
        out.append(_rect(kind, 0, round(width, 2), height))
    return _svg("bar", height, out)


def bullet(observed: float, limit: float, height: int = 6, *, fails_above: bool = True) -> Markup:
    """Draw what a gate saw against what it allows, with the limit as a tick at 80 % of the width.

    `fails_above` is false for a gate that wants at least the limit (a minimum sample, a soak).
    """
    ratio = observed / limit if limit > 0 else (2.0 if observed > 0 else 0.0)
    width = max(0.6, min(100.0, 80 * ratio))
    kind = "ok" if ratio >= 1 else "go2"
    if fails_above:
        kind = "bad" if ratio > 1 else "warn" if ratio > 0.63 else "ok"
    return _svg(
        "meter",
        height,
        [
            _rect("sunken", 0, 100, height),
            _rect(kind, 0, round(width, 2), height),
            f'<rect class="f-text3" x="80%" y="-2" width="1.5" height="{height + 4}"/>',
        ],
    )


_WIDE: Final = ' class="hide-s"'
#: Where the mark of the halt stands on an evidence meter, in percent of its width; even odds stand at 0.
HALT_AT: Final = 88.0
#: Odds from which the needle is amber: worth eyes, long before it is worth hands.
EYES_AT: Final = 3.0


def on_meter(odds: float, halts_at: int) -> float:
    """Return where odds stand on an evidence meter, in percent of its width; the scale is logarithmic, and its end is the end of the meter."""
    if odds <= 1:
        return 0.0
    return min(100.0, round(HALT_AT * math.log(odds) / math.log(max(2, halts_at)), 2))


def meter(
    odds: float, halts_at: int, permits_end_pct: int | None = None, height: int = 10
) -> Markup:
    """Draw odds against a release on a logarithmic scale, with the mark where permits end and the one where it halts.

    Args:
        odds: to 1; at even odds or below a stub is drawn.
        halts_at: odds at which it halts.
        permits_end_pct: how far on the way to a halt permits end, in percent; None = not drawn.
        height: in pixels.
    """
    end = HALT_AT if permits_end_pct is None else round(HALT_AT * permits_end_pct / 100, 2)
    where = on_meter(odds, halts_at)
    kind = "bad" if odds >= halts_at else "warn" if odds >= EYES_AT else "text3"
    stub = f'<rect class="f-line" width="3" height="{height}"/>'
    out = [
        _rect("sunken", 0, 100, height),
        _rect("warnw", end, HALT_AT - end, height),
        _rect("badw", HALT_AT, 100 - HALT_AT, height),
        _rect(kind, 0, max(where, LEAST_BAD), height) if odds > 1 else stub,
        f'<rect class="f-bad" x="{_n(HALT_AT)}%" y="-3" width="2" height="{height + 6}"/>',
    ]
    if permits_end_pct is not None:
        out.append(
            f'<rect class="f-warn" x="{_n(end)}%" y="-2" width="1.5" height="{height + 4}"/>'
        )
    return _svg("meter", height, out)


def meter_scale(halts_at: int, permits_end_pct: int) -> Markup:
    """Write the scale above a column of evidence meters."""
    ten = on_meter(10, halts_at)
    end = HALT_AT * permits_end_pct / 100
    words = [(0.0, "start", "1 : 1", False), (end, "middle", "no permits", True)]
    words += [(ten, "middle", "10", True)] if 12 < ten < end - 26 else []
    words += [(HALT_AT, "middle", "halt", False)]
    out = [
        f'<text x="{_n(x)}%" y="11" text-anchor="{anchor}"{_WIDE if wide else ""}>{word}</text>'
        for x, anchor, word, wide in words
    ]
    return _svg("scale", 16, out)


def bound(worst: float, limit: float, height: int = 6) -> Markup:
    """Draw how bad it could still be against what is let pass, the limit at the end: what is beyond it fills the bar."""
    ratio = worst / limit if limit > 0 else 2.0
    kind = "ok" if ratio <= 1 else "go2"
    return _svg(
        "meter",
        height,
        [
            _rect("sunken", 0, 100, height),
            _rect(kind, 0, round(max(LEAST_BAD, min(100.0, 100 * ratio)), 2), height),
            f'<rect class="f-text3" x="99.2%" y="-2" width="1.5" height="{height + 4}"/>',
        ],
    )


def spark(values: Sequence[int], kind: Kind = "text3", height: int = 20) -> Markup:
    """Draw a sparkline of columns with its own scale; it stands beside its figure, never alone."""
    _known([(kind, 1)])
    if not values:
        return _svg("spark", height, [])
    top = max(1, *values)
    step = 100 / len(values)
    out = []
    for n, value in enumerate(values):
        tall = 0.0 if value <= 0 else max(1.0, height * value / top)
        cls = kind if value > 0 else "line"
        tall = tall or 1.0
        out.append(
            f'<rect class="f-{cls}" x="{_n(n * step)}%" width="{_n(step * 0.74)}%" y="{_n(height - tall)}" height="{_n(tall)}"/>'
        )
    return _svg("spark", height, out)


def columns(values: Sequence[int], kind: Kind = "text3", height: int = 44) -> Markup:
    """Draw a value for each span as a column over a line, what is below 0 hanging from it; each plot has its own scale, and its words beside it."""
    _known([(kind, 1)])
    top, low = max(0, *values, 0), min(0, *values, 0)
    scale = (height - 1) / ((top - low) or 1)
    zero = top * scale
    step = 100 / max(1, len(values))
    out = [f'<rect class="f-line" y="{_n(zero)}" width="100%" height="1"/>']
    for n, value in enumerate(values):
        if value:
            tall = max(1.5, abs(value) * scale)
            y = zero - tall if value > 0 else zero + 1
            out.append(
                f'<rect class="f-{kind}" x="{_n(n * step)}%" width="{_n(step * 0.8)}%" y="{_n(y)}" height="{_n(tall)}"/>'
            )
    return _svg("spark", height, out)


def swatch(kind: Kind) -> Markup:
    """Draw the small square of a legend."""
    _known([(kind, 1)])
    square = f'<rect width="11" height="11" rx="2" class="f-{kind}"/>'
    return Markup(f'<svg viewBox="0 0 11 11" aria-hidden="true">{square}</svg>')  # noqa: S704 - closed list


def _known(parts: Sequence[tuple[Kind, int]]) -> None:
    for kind, _ in parts:
        if kind not in _KINDS:
            raise ValueError(kind)


def _rect(kind: str, x: float, width: float, height: int) -> str:
    return f'<rect class="f-{kind}" x="{_n(x)}%" width="{_n(width)}%" height="{height}"/>'


def _svg(cls: str, height: int, parts: Sequence[str]) -> Markup:
    return Markup(f'<svg class="{cls}" height="{height}" aria-hidden="true">{"".join(parts)}</svg>')  # noqa: S704 - numbers and closed lists only


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
