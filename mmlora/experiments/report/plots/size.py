"""Lift of each domain against its number of rows and its density: two scatter plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from mmlora.experiments.report.plots.common import BASELINE, difference_tip, look_of, make, mean_text
from mmlora.experiments.report.reading import Domain
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study, Variant
from mmlora.pages.drawing import (
    Plot,
    ends,
    label_differences,
    limits,
    panel,
    point,
    use_log_axis,
    vertical_bar,
)

_ARMS = ("separate", "mlora", "moe_mlora")
_LEAST_DOMAINS = 4
_LEAST_RATIO = 1.5  # of the largest to the smallest number of rows or density
_CROWDED = 120  # with more points, intervals would hide each other
_Points = list[tuple[Variant, Domain, Estimate]]


def lift_by_size(study: Study) -> Plot | None:
    """Plot each domain's lift against its training rows, and against its density."""
    variants = [v for v in study.main_variants() if v.arm in _ARMS and study.paired_rows(v, BASELINE)]
    points = _points(study, variants)
    domains = [domain for _, domain, _ in points]
    if len({domain.name for domain in domains}) < _LEAST_DOMAINS or not _differ(domains):
        return None
    crowded = len(points) > _CROWDED
    figures = [
        _panel(study, points, "training rows of the domain (log scale)", lambda d: float(d.train_rows)),
        _panel(study, points, "density: share of user-item pairs (log scale)", lambda d: d.density),
    ]
    return make(
        study,
        "size",
        "Lift against domain size and density",
        figures,
        f"Each point is a domain: an arm's AUC minus that of `{BASELINE}` ({mean_text(study)}), against the "
        "number of its training rows (first) and the density of its user-item pairs (second)"
        + ("." if crowded else ", with 95% intervals."),
    )


def _panel(study: Study, points: _Points, title: str, size: Callable[[Domain], float]) -> Figure:
    variants = list(dict.fromkeys(v for v, *_ in points))
    looks = {v: look_of(study, v) for v in variants}
    lifts, crowded = [lift for *_, lift in points], len(points) > _CROWDED
    figure, axes = panel(looks.values())
    axes.set_ylim(*limits([e.value for e in lifts] if crowded else ends(lifts), zero=True))
    use_log_axis(axes, [size(domain) for _, domain, _ in points])
    axes.set_xlabel(title)
    axes.set_ylabel(f"AUC minus that of {BASELINE}")
    label_differences(axes.yaxis, axes.axhline)
    for v, domain, lift in points:
        shift = 3.0 * (variants.index(v) - (len(variants) - 1) / 2)
        if not crowded:
            vertical_bar(axes, size(domain), lift, looks[v], shift)
        tip = difference_tip(domain.name, looks[v], lift)
        point(axes, size(domain), lift.value, looks[v], tip, shift=shift, small=crowded)
    return figure


def _differ(domains: Sequence[Domain]) -> bool:
    """Return whether domains differ enough in size or density for a scatter plot to show anything."""
    rows, density = [d.train_rows for d in domains], [d.density for d in domains]
    return max(rows) > _LEAST_RATIO * min(rows) or max(density) > _LEAST_RATIO * min(density)


def _points(study: Study, variants: list[Variant]) -> _Points:
    """Return the lifts of domains for each value of the dials, because dials change the domains."""
    groups = [[row for row in study.rows if row.dials == dials] for dials in study.dial_values()]
    return [
        (v, domain, lift)
        for rows in groups
        for domain in study.domains(rows)
        for v in variants
        if domain.train_rows > 0 and domain.density > 0
        if (lift := study.difference(rows, v, BASELINE, domain.name)) is not None
    ]
