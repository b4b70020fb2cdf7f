"""What the plots share: panels with a legend, scales, points with interval and tooltip, and the SVG."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from statistics import median
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Transform, offset_copy

from mmlora.pages.measured import Measured
from mmlora.pages.style import COLOURS, Look

WIDTH = 420.0
"""Width of a panel in points; a phone shows it at three quarters of its size."""
_HEIGHT = 290.0
_WIDE = 5  # times the median width of an interval
_TIP = "tip: "
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        svg: the content of its file, for white paper.
        width: width in points.
    """

    svg: str
    width: float

    @property
    def inline(self) -> str:
        """The drawing as part of an HTML page, coloured by the page's CSS variables."""
        names = {colour: name for name, colour in COLOURS.items()}
        coloured = re.sub("|".join(names), lambda match: f"var(--{names[match[0]]})", self.svg)
        return coloured.replace(f' xmlns="{_SVG}"', "", 1)


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        slug: stem of its files' names.
        title: the title above it.
        pictures: the panels.
        caption: how to read it; Markdown.
    """

    slug: str
    title: str
    pictures: tuple[Picture, ...]
    caption: str

    def files(self) -> dict[str, str]:
        """Return each panel's SVG by file name."""
        many = len(self.pictures) > 1
        return {
            f"{self.slug}{f'-{number}' if many else ''}.svg": picture.svg
            for number, picture in enumerate(self.pictures, 1)
        }


def make(slug: str, title: str, figures: Iterable[Figure], caption: str) -> Plot:
    """Return a plot from its panels; ``slug`` is unique in the page."""
    pictures = (_picture(figure, title, f"{slug}-{i}") for i, figure in enumerate(figures))
    return Plot(slug, title, tuple(pictures), caption)


def panel(
    looks: Iterable[Look] = (), *, height: float = _HEIGHT, width: float = WIDTH
) -> tuple[Figure, Axes]:
    """Return an empty panel with its legend above.

    Args:
        looks: the series in the legend.
        height: height of the panel without its legend, in points.
        width: width of the panel, in points.
    """
    handles = [Line2D([], [], label=look.label, **_legend_mark(look)) for look in looks]
    longest = max((len(look.label) for look in looks), default=0)
    columns = max(1, min(len(handles), int(width / (34 + 6.8 * longest))))
    rows = math.ceil(len(handles) / columns) if handles else 0
    figure = Figure(figsize=(width / 72, (height + 17 * rows) / 72), layout="constrained")
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=columns)
    return figure, figure.subplots()


def _legend_mark(look: Look) -> dict[str, Any]:
    return look.point if look.marker else look.line


def limits(values: Sequence[float], *, log: bool = False, zero: bool = False) -> tuple[float, float]:
    """Return limits of an axis that contain the values with a margin.

    Args:
        values: at least one value.
        log: whether the axis is logarithmic.
        zero: whether the limits have to contain 0.
    """
    if log:
        low, high = math.log10(min(values)), math.log10(max(values))
        pad = max((high - low) * 0.08, 0.12)
        return 10 ** (low - pad), 10 ** (high + pad)
    kept = [*values, 0.0] if zero else list(values)
    low, high = min(kept), max(kept)
    pad = (high - low) * 0.07 or abs(high) * 0.05 or 0.001
    return low - pad, high + pad


def ends(estimates: Iterable[Measured]) -> list[float]:
    """Return the values and bounds of estimates that an axis has to contain.

    The bounds of very wide intervals are left out, so that the others do not shrink to dots.
    """
    estimates = list(estimates)
    bounds = [(e.low, e.high) for e in estimates if e.low is not None and e.high is not None]
    usual = median(high - low for low, high in bounds) if bounds else 0.0
    kept = [(low, high) for low, high in bounds if high - low <= _WIDE * usual]
    return [e.value for e in estimates] + [bound for pair in kept for bound in pair]


def label_differences(axis: Any, rule: Any) -> None:
    """Show the sign of an axis' values, and draw a line at 0 by ``rule`` (``axhline`` or ``axvline``)."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, sign=True)))
    rule(0, color=COLOURS["soft"], linewidth=1.2)


def use_log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with round numbers."""
    axes.set_xscale("log")
    low, high = limits(values, log=True)
    axes.set_xlim(low, high)
    locator: Any = LogLocator(subs=(1,) if high / low > 1000 else (1, 2, 5))
    if sum(low <= value <= high for value in locator.tick_values(low, high)) < 3:
        locator = MaxNLocator(4)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))


def _number(value: float, *, sign: bool = False) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and (size > 1e3 or abs(value) >= 1e4):
            return f"{value / size:g}{letter}"
    value = 0.0 if abs(value) < 1e-12 else value
    return f"{value:+.6g}" if sign and value else f"{value:.6g}"


def point(
    axes: Axes, x: float, y: float, look: Look, tip: str, *, shift: float = 0.0, small: bool = False
) -> None:
    """Draw a point.

    Args:
        axes: the axes to draw on.
        x: x value.
        y: y value.
        look: look of its series.
        tip: tooltip.
        shift: offset to the right of ``x`` in points.
        small: whether to draw it small, as one of very many.
    """
    transform = _beside(axes, shift)
    size = {"markersize": 5} if small else {}
    axes.plot([x], [y], transform=transform, gid=_TIP + tip, **{**look.point, **size}, zorder=3)


def bar(
    axes: Axes, ends_x: Sequence[float], ends_y: Sequence[float], look: Look, *, shift: float = 0.0
) -> None:
    """Draw an interval from one end to the other, ``shift`` points to the right."""
    transform = _beside(axes, shift)
    axes.plot(ends_x, ends_y, transform=transform, color=COLOURS[look.colour], alpha=0.75, zorder=2)


def _beside(axes: Axes, shift: float) -> Transform:
    """Return the transform of values to places ``shift`` points further right."""
    return offset_copy(axes.transData, axes.get_figure(root=True), x=shift, units="points")


def vertical_bar(axes: Axes, x: float, estimate: Measured, look: Look, shift: float = 0.0) -> None:
    """Draw the interval of an estimate as a vertical bar, if it has one."""
    if estimate.low is not None and estimate.high is not None:
        bar(axes, (x, x), (estimate.low, estimate.high), look, shift=shift)


def series(
    axes: Axes, points: Sequence[tuple[float, Measured]], look: Look, shift: float, *, bars: bool
) -> None:
    """Draw points joined by a line, each with its interval if ``bars`` is true."""
    transform = _beside(axes, shift)
    axes.plot([x for x, _ in points], [e.value for _, e in points], transform=transform, **look.line)
    for x, estimate in points if look.marker else ():
        if bars:
            vertical_bar(axes, x, estimate, look, shift)
        point(axes, x, estimate.value, look, f"{look.label} at {x:g}: {estimate.value:.4f}", shift=shift)


def tipped(artist: Any, tip: str) -> Any:
    """Return an artist with a tooltip."""
    artist.set_gid(_TIP + tip)
    return artist


def _picture(figure: Figure, title: str, salt: str) -> Picture:
    """Return a figure as SVG with its tooltips and title, without metadata, styles and unused ids."""
    written = StringIO()
    with rc_context({"svg.hashsalt": salt}):  # makes ids unique in the page
        figure.savefig(written, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(written.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in list(root.iter()):
        _clean(element)
    width = figure.get_figwidth() * 72
    root.attrib = {"xmlns": _SVG, "class": "plot", "role": "img", "viewBox": root.attrib["viewBox"]}
    _entitle(root, title)
    return Picture(ElementTree.tostring(root, encoding="unicode") + "\n", width)


def _clean(element: ElementTree.Element) -> None:
    element.tag = element.tag.rpartition("}")[2]
    if (name := element.get("id", "")).startswith(_TIP):
        _entitle(element, name.removeprefix(_TIP))
    if element.tag == "g":
        element.attrib.pop("id", None)  # the same in every drawing
    if link := element.attrib.pop(_LINK, None):
        element.set("href", link)
    if "font:" in element.get("style", ""):
        plain = r"font-size: \2; font-family: system-ui, sans-serif"
        element.set("style", re.sub(r"font: (\d+ )?([\d.]+px) [^;]*", plain, element.attrib["style"]))


def _entitle(element: ElementTree.Element, text: str) -> None:
    title = ElementTree.Element("title")
    title.text = text
    element.insert(0, title)
