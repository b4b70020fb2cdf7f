"""What the plots share: panels with a legend, scales, points with interval and tip, and the SVG of it all."""

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

from mmlora.experiments.report.plots.style import COLOURS, Look
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study
from mmlora.experiments.report.tables import interval, signed

BASELINE = "pooled_domain"
WIDTH = 420.0
"""Of a panel, in points: what a phone shows at three quarters of its size."""
_HEIGHT = 290.0
_MANY = 5  # times the median width of an interval
_TIP = "tip: "
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True)
class Picture:
    """A drawing.

    Attributes:
        svg: as a file holds it, on white paper.
        width: points.
    """

    svg: str
    width: float

    @property
    def inline(self) -> str:
        """The drawing as part of an HTML page, whose variables colour it."""
        names = {colour: name for name, colour in COLOURS.items()}
        coloured = re.sub("|".join(names), lambda found: f"var(--{names[found[0]]})", self.svg)
        return coloured.replace(f' xmlns="{_SVG}"', "", 1)


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        slug: of its files.
        title: above it.
        pictures: its panels.
        caption: how to read it, in a sentence; Markdown.
    """

    slug: str
    title: str
    pictures: tuple[Picture, ...]
    caption: str

    def files(self) -> dict[str, str]:
        """Return each panel's SVG by the name of its file."""
        many = len(self.pictures) > 1
        return {
            f"{self.slug}{f'-{number}' if many else ''}.svg": picture.svg
            for number, picture in enumerate(self.pictures, 1)
        }


def make(study: Study, slug: str, title: str, figures: Iterable[Figure], caption: str) -> Plot:
    """Return the plot of a study from its panels."""
    whole, name = f"{title}: {study.title}", f"{slug}-{study.slug}"
    pictures = (_picture(figure, whole, f"{name}-{i}") for i, figure in enumerate(figures))
    return Plot(name, whole, tuple(pictures), caption)


def panel(
    looks: Iterable[Look] = (), *, height: float = _HEIGHT, width: float = WIDTH
) -> tuple[Figure, Axes]:
    """Return an empty panel, its legend above.

    Args:
        looks: what the legend names.
        height: of the panel without its legend, in points.
        width: of the panel, in points.
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
    """Return ends of an axis that hold the values with a margin.

    Args:
        values: at least one.
        log: for a logarithmic axis.
        zero: whether 0 is to be inside.
    """
    if log:
        low, high = math.log10(min(values)), math.log10(max(values))
        pad = max((high - low) * 0.08, 0.12)
        return 10 ** (low - pad), 10 ** (high + pad)
    kept = [*values, 0.0] if zero else list(values)
    low, high = min(kept), max(kept)
    pad = (high - low) * 0.07 or abs(high) * 0.05 or 0.001
    return low - pad, high + pad


def ends(estimates: Iterable[Estimate]) -> list[float]:
    """Return the values of all, and their bounds, for an axis to hold.

    An interval of many times the usual width is left to run out of the frame, or the others would be dots.
    """
    found = list(estimates)
    bounds = [(e.low, e.high) for e in found if e.low is not None and e.high is not None]
    usual = median(high - low for low, high in bounds) if bounds else 0.0
    kept = [(low, high) for low, high in bounds if high - low <= _MANY * usual]
    return [e.value for e in found] + [bound for pair in kept for bound in pair]


def label_differences(axis: Any, rule: Any) -> None:
    """Write an axis' values with their sign, and draw 0 by ``rule``: ``axhline`` or ``axvline``."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, sign=True)))
    rule(0, color=COLOURS["soft"], linewidth=1.2)


def use_log_axis(axes: Axes, values: Sequence[float]) -> None:
    """Make the axis across logarithmic, with round numbers on it."""
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
        axes: to draw on.
        x: across.
        y: up.
        look: of its series.
        tip: shows when it is pointed at.
        shift: points to the right of ``x``.
        small: whether it is one of very many.
    """
    place = _beside(axes, shift)
    size = {"markersize": 5} if small else {}
    axes.plot([x], [y], transform=place, gid=_TIP + tip, **{**look.point, **size}, zorder=3)


def bar(
    axes: Axes, ends_x: Sequence[float], ends_y: Sequence[float], look: Look, *, shift: float = 0.0
) -> None:
    """Draw an interval from one end to the other, ``shift`` points aside."""
    place = _beside(axes, shift)
    axes.plot(ends_x, ends_y, transform=place, color=COLOURS[look.colour], alpha=0.75, zorder=2)


def _beside(axes: Axes, shift: float) -> Transform:
    """Places so many points to the right of where values lie."""
    return offset_copy(axes.transData, axes.get_figure(root=True), x=shift, units="points")


def upright(axes: Axes, x: float, found: Estimate, look: Look, shift: float = 0.0) -> None:
    """Draw an interval upright, where there is one."""
    if found.low is not None and found.high is not None:
        bar(axes, (x, x), (found.low, found.high), look, shift=shift)


def series(
    axes: Axes, points: Sequence[tuple[float, Estimate]], look: Look, shift: float, *, bars: bool
) -> None:
    """Draw points joined by a line, each with its interval where ``bars`` says so."""
    place = _beside(axes, shift)
    axes.plot([x for x, _ in points], [e.value for _, e in points], transform=place, **look.line)
    for x, found in points if look.marker else ():
        if bars:
            upright(axes, x, found, look, shift)
        point(axes, x, found.value, look, f"{look.label} at {x:g}: {found.value:.4f}", shift=shift)


def tip_of(where: str, look: Look, found: Estimate) -> str:
    """Return what shows when the point of a difference is pointed at."""
    return f"{where}, {look.label}: {signed(found.value)} {interval(found)}"


def tipped(artist: Any, tip: str) -> Any:
    """Have a tip shown when an artist is pointed at."""
    artist.set_gid(_TIP + tip)
    return artist


def over(study: Study) -> str:
    """Return what a mean of a study is over."""
    count = len(study.backbones)
    return f"mean over {seeds(study)}" + (f" and {count} backbones" if count > 1 else "")


def seeds(study: Study) -> str:
    """Return how many seeds a study has."""
    count = len(study.seeds())
    return f"{count} seed{'s' * (count != 1)}"


def _picture(figure: Figure, title: str, salt: str) -> Picture:
    """Return a figure as SVG: without what names no thing, with its tips, and its title."""
    written = StringIO()
    with rc_context({"svg.hashsalt": salt}):  # ids that no other drawing of the page has
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
