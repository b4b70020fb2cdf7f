"""A small plotting kit: scales, axes, markers and legends as SVG text, coloured by the page's style sheet.

Text stays text, colours are classes (so a plot follows a light or dark page), and equal data gives equal
bytes.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

STYLE = """
.plot { --ink:#1d2129; --soft:#5b6472; --line:#d9dde3; --paper:#fff; --blue:#0072b2; --red:#c8450a;
  --green:#00805f; --purple:#a14d86; --orange:#b97800; --grey:#737b87; --sky:#2f93c8;
  --brown:#7a5230; --heat:#0072b2 }
@media (prefers-color-scheme: dark) {
.plot { --ink:#e8eaee; --soft:#a4adba; --line:#3a4049; --paper:#16191e; --blue:#4aa8e8; --red:#ff8a55;
  --green:#35c79b; --purple:#dd92c4; --orange:#eeb13c; --grey:#a2aab5; --sky:#8fd0f5;
  --brown:#c9a27c; --heat:#3f9fe0 } }
.plot text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink) }
.plot .title { font-size: 14px; font-weight: 600 } .plot .soft { fill: var(--soft) }
.plot .small { font-size: 11px }
.plot .start { text-anchor: start } .plot .middle { text-anchor: middle } .plot .end { text-anchor: end }
.plot .rule { stroke: var(--line); stroke-width: 1 } .plot .zero { stroke: var(--soft); stroke-width: 1.2 }
.plot .bar { stroke: var(--c); stroke-width: 1.6; opacity: .75 }
.plot .path { stroke: var(--c); stroke-width: 1.6; fill: none }
.plot .dashed { stroke: var(--c); stroke-width: 1.6; stroke-dasharray: 5 4; fill: none }
.plot .dot { fill: var(--c); stroke: var(--paper); stroke-width: 1 }
.plot .hollow { fill: var(--paper); stroke: var(--c); stroke-width: 1.8 }
.plot text.onheat { fill: var(--paper) }
.plot .cell { fill: var(--heat) } .plot .own { fill: none; stroke: var(--ink); stroke-width: 1.6 }
""" + "\n".join(
    f".plot .{name} {{ --c: var(--{name}) }}"
    for name in ("ink", "blue", "red", "green", "purple", "orange", "grey", "sky", "brown")
)
CYCLE = ("blue", "red", "green", "purple", "orange", "sky", "brown", "grey")
SHAPES = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels.

    Attributes:
        low: value at ``start``.
        high: value at ``end``.
        start: pixel.
        end: pixel; may be below ``start``.
        log: whether in powers of ten; values must then be above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return a value's pixel; beyond the ends, that of the end."""
        inside = min(max(value, self.low), self.high)
        at, low, high = (math.log10(v) if self.log else v for v in (inside, self.low, self.high))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values inside, four to seven or so."""
        if not self.log:
            step = _round_step((self.high - self.low) / 5)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [i * step for i in range(first, last + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        many = math.log10(self.high / self.low) > 3
        found = [m * 10.0**p for p in decades for m in ((1,) if many else (1, 2, 5))]
        inside = [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]
        return inside if len(inside) > 2 else Scale(self.low, self.high, 0, 1).ticks()


def fit(values: Sequence[float], start: float, end: float, *, log: bool = False, zero: bool = False) -> Scale:
    """Return a scale that holds the values with a margin.

    Args:
        values: at least one.
        start: pixel of the lowest.
        end: pixel of the highest.
        log: powers of ten; values of 0 or less are left out.
        zero: whether 0 is to be inside.
    """
    if log:
        kept = [math.log10(v) for v in values if v > 0] or [0.0]
        low, high = min(kept), max(kept)
        pad = max((high - low) * 0.08, 0.12)
        return Scale(10 ** (low - pad), 10 ** (high + pad), start, end, True)
    kept = [*values, 0.0] if zero else list(values)
    low, high = min(kept), max(kept)
    pad = (high - low) * 0.07 or abs(high) * 0.05 or 0.001
    return Scale(low - pad, high + pad, start, end)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(m for m in (1, 2, 2.5, 5, 10) if rough <= m * power * 1.0001)


def number(value: float, signed: bool = False) -> str:
    """Return a tick's label."""
    if abs(value) >= 1e9:
        return f"{value / 1e9:g}G"
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:g}k"
    value = 0.0 if abs(value) < 1e-12 else value
    return f"{value:+.6g}" if signed and value else f"{value:.6g}"


def text(x: float, y: float, content: str, classes: str = "start", turn: float = 0) -> str:
    """Return a text; ``turn`` in degrees around its place."""
    spin = f' transform="rotate({turn:g} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{classes}"{spin}>{html.escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> str:
    """Return a straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{classes}"/>'


def path(points: Sequence[tuple[float, float]], classes: str) -> str:
    """Return a broken line through points."""
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{classes}"/>'


def marker(x: float, y: float, look: Look, tip: str = "", size: float = 4.2) -> str:
    """Return a marker; ``tip`` shows when pointed at."""
    classes = f"{'hollow' if look.hollow else 'dot'} {look.colour}"
    inside = f"<title>{html.escape(tip)}</title>" if tip else ""
    if look.shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" class="{classes}">{inside}</circle>'
    s = size * 1.05
    corners = {
        "square": [(-s, -s), (s, -s), (s, s), (-s, s)],
        "triangle": [(0, -s * 1.2), (s * 1.15, s * 0.9), (-s * 1.15, s * 0.9)],
        "diamond": [(0, -s * 1.3), (s * 1.3, 0), (0, s * 1.3), (-s * 1.3, 0)],
    }[look.shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" class="{classes}">{inside}</polygon>'


@dataclass(frozen=True)
class Look:
    """How a series is drawn.

    Attributes:
        label: in the legend.
        colour: class of colour.
        shape: of its markers.
        hollow: whether they are.
        dashed: a level, drawn as a dashed line and no markers.
    """

    label: str
    colour: str
    shape: str = "circle"
    hollow: bool = False
    dashed: bool = False


def looks(labels: Sequence[str]) -> list[Look]:
    """Return a look each, told apart by colour and shape both."""
    return [Look(label, CYCLE[i % 8], SHAPES[(i + i // 8) % 4]) for i, label in enumerate(labels)]


def legend(x: float, y: float, width: float, looked: Sequence[Look]) -> tuple[list[str], float]:
    """Return a legend that wraps at ``width``, and the height that it took."""
    parts, left, top = [], x, y
    for look in looked:
        step = 30 + 6.9 * len(look.label)
        if left > x and left + step > x + width:
            left, top = x, top + 19
        mark = (
            line(left - 1, top, left + 12, top, f"dashed {look.colour}")
            if look.dashed
            else marker(left + 5, top, look)
        )
        parts += [mark, text(left + 16, top + 4, look.label, "start small")]
        left += step
    return parts, top - y + 19


@dataclass(frozen=True)
class Frame:
    """The room that axes span, in pixels.

    Attributes:
        x: scale across.
        y: scale up.
    """

    x: Scale
    y: Scale

    def axes(
        self, x_title: str, y_title: str, *, signed: bool = False, x_at: Sequence[float] = ()
    ) -> list[str]:
        """Return grid lines, ticks and titles.

        Args:
            x_title: what is across, with its unit.
            y_title: what is up, with its unit.
            signed: whether values up are differences: written with their sign, 0 drawn as a rule.
            x_at: where to put ticks across; by itself where empty.
        """
        left, right, bottom, top = self.x.start, self.x.end, self.y.start, self.y.end
        parts = []
        for value in self.y.ticks():
            at = self.y(value)
            parts.append(line(left, at, right, at, "rule"))
            parts.append(text(left - 7, at + 4, number(value, signed), "end small soft"))
        if signed and self.y.low < 0 < self.y.high:
            parts.append(line(left, self.y(0), right, self.y(0), "zero"))
        for value in x_at or self.x.ticks():
            at = self.x(value)
            parts.append(line(at, bottom, at, bottom + 4, "zero"))
            parts.append(text(at, bottom + 17, number(value), "middle small soft"))
        parts.append(line(left, bottom, right, bottom, "zero"))
        parts.append(text((left + right) / 2, bottom + 36, x_title, "middle soft"))
        parts.append(text(left - 62, (bottom + top) / 2, y_title, "middle soft", -90))
        return parts


def picture(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    """Return the whole SVG, to be set into a page."""
    inner = "\n".join(parts)
    return (
        f'<svg class="plot" role="img"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px">'
        f"\n<title>{html.escape(title)}</title>\n{text(0, 16, title, 'start title')}\n{inner}\n</svg>"
    )


def standalone(drawing: str) -> str:
    """Return a drawing as a file of its own: on white paper, as pages that show it may be of any colour."""
    light, rest = STYLE[: STYLE.index("@media")], STYLE[STYLE.index(".plot text") :]
    drawing = drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    drawing = drawing.replace('style="', 'style="background:#fff;padding:12px;', 1)
    return drawing.replace("</title>", f"</title>\n<style>{light}{rest}</style>", 1) + "\n"
