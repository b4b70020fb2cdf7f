"""What the plots share: their looks, their words, series with intervals, and two panels side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from mmlora.experiments.arms import ArmName
from mmlora.experiments.report import svg
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study, Variant
from mmlora.experiments.report.svg import Frame, Look, line, marker
from mmlora.experiments.report.tables import interval, signed

BASELINE = "pooled_domain"
WIDTH = 920
_LOOKS: dict[ArmName, tuple[str, str, bool]] = {
    "pooled": ("grey", "circle", True),
    "pooled_domain": ("grey", "circle", False),
    "separate": ("purple", "square", False),
    "mlora": ("blue", "circle", False),
    "mlora_matched": ("blue", "square", True),
    "moe_mlora": ("red", "circle", False),
    "placebo_mlora": ("blue", "triangle", True),
    "placebo_moe_mlora": ("red", "triangle", True),
    "uniform_gate": ("orange", "square", True),
    "random_gate": ("orange", "diamond", True),
    "joint": ("green", "diamond", False),
}
"""Colour, one a family of arms; marker; whether that is hollow, as of controls."""
_MANY = 5  # times the median width of an interval
PANELS = ((76, 426), (546, 896))  # left and right end of each, in pixels


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        slug: of its file.
        title: of the picture.
        drawing: the SVG.
        caption: how to read it, in a sentence; Markdown.
    """

    slug: str
    title: str
    drawing: str
    caption: str


def make(
    study: Study, slug: str, title: str, size: tuple[float, float], parts: Sequence[str], caption: str
) -> Plot:
    """Return the plot of a study from what is drawn in it."""
    whole = f"{title}: {study.title}"
    return Plot(f"{slug}-{study.slug}", whole, svg.picture(*size, whole, parts), caption)


def look_of(study: Study, variant: Variant) -> Look:
    """Return how a variant is drawn: as its arm always is."""
    return Look(study.label(variant), *_LOOKS[variant.arm])


def ends(estimates: Iterable[Estimate]) -> list[float]:
    """Return the values of all, and their bounds, for a scale to hold.

    An interval of many times the usual width is left to run out of the frame, or the others would be dots.
    """
    found = list(estimates)
    bounds = [(e.low, e.high) for e in found if e.low is not None and e.high is not None]
    usual = median(high - low for low, high in bounds) if bounds else 0.0
    kept = [(low, high) for low, high in bounds if high - low <= _MANY * usual]
    return [e.value for e in found] + [bound for pair in kept for bound in pair]


def tip(where: str, look: Look, found: Estimate) -> str:
    """Return what shows when a marker of a difference is pointed at."""
    return f"{where}, {look.label}: {signed(found.value)} {interval(found)}"


def upright(frame: Frame, at: float, found: Estimate, look: Look, shift: float = 0.0) -> list[str]:
    """Return an interval as an upright bar, ``shift`` pixels aside; nothing where there is none."""
    if found.low is None or found.high is None:
        return []
    x = frame.x(at) + shift
    return [line(x, frame.y(found.low), x, frame.y(found.high), f"bar {look.colour}")]


def series(
    frame: Frame, points: Sequence[tuple[float, Estimate]], look: Look, shift: float, *, bars: bool
) -> list[str]:
    """Return points joined by a line, each with its interval where ``bars`` says so."""
    at = [(frame.x(x) + shift, frame.y(found.value)) for x, found in points]
    parts = [svg.path(at, f"{'dashed' if look.dashed else 'path'} {look.colour}")]
    if look.dashed:
        return parts
    for (x, found), (px, py) in zip(points, at, strict=True):
        parts += upright(frame, x, found, look, shift) if bars else []
        parts.append(marker(px, py, look, f"{look.label} at {x:g}: {found.value:.4f}"))
    return parts


def over(study: Study) -> str:
    """Return what a mean of a study is over."""
    count = len(study.backbones)
    return f"mean over {seeds(study)}" + (f" and {count} backbones" if count > 1 else "")


def seeds(study: Study) -> str:
    """Return how many seeds a study has."""
    count = len(study.seeds())
    return f"{count} seed{'s' * (count != 1)}"
