"""Lift of each domain against how many rows it has, and how dense it is: two scatters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from mmlora.experiments.report.plots.drawing import (
    BASELINE,
    Plot,
    ends,
    label_differences,
    limits,
    make,
    over,
    panel,
    point,
    tip_of,
    upright,
    use_log_axis,
)
from mmlora.experiments.report.plots.style import look_of
from mmlora.experiments.report.reading import Domain
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study, Variant

_ARMS = ("separate", "mlora", "moe_mlora")
_FEWEST = 4  # domains, for a scatter to show anything
_UNLIKE = 1.5  # times as many rows, or as dense, as the least
_CROWDED = 120  # points, from which on intervals would hide each other
_Points = list[tuple[Variant, Domain, Estimate]]


def lift_by_size(study: Study) -> Plot | None:
    """Each domain's lift against its training rows, and against its density."""
    variants = [v for v in study.main_variants() if v.arm in _ARMS and study.paired_rows(v, BASELINE)]
    points = _points(study, variants)
    if len({domain.name for _, domain, _ in points}) < _FEWEST or not _unlike([d for _, d, _ in points]):
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
        f"Each point is a domain: how far an arm's AUC there lies above that of `{BASELINE}` "
        f"({over(study)}), by how many rows it was trained on (first) and how densely its users and items "
        "meet (second)" + ("." if crowded else ", with 95% intervals."),
    )


def _panel(study: Study, points: _Points, title: str, size: Callable[[Domain], float]) -> Figure:
    variants = list(dict.fromkeys(v for v, *_ in points))
    looks = {v: look_of(study, v) for v in variants}
    lifts, crowded = [lift for *_, lift in points], len(points) > _CROWDED
    figure, axes = panel(looks.values())
    axes.set_ylim(*limits([e.value for e in lifts] if crowded else ends(lifts), zero=True))
    use_log_axis(axes, [size(domain) for _, domain, _ in points])
    axes.set_xlabel(title)
    axes.set_ylabel(f"AUC less that of {BASELINE}")
    label_differences(axes.yaxis, axes.axhline)
    for v, domain, lift in points:
        shift = 3.0 * (variants.index(v) - (len(variants) - 1) / 2)
        if not crowded:
            upright(axes, size(domain), lift, looks[v], shift)
        tip = tip_of(domain.name, looks[v], lift)
        point(axes, size(domain), lift.value, looks[v], tip, shift=shift, small=crowded)
    return figure


def _unlike(domains: Sequence[Domain]) -> bool:
    """Whether domains differ in size or density: there is nothing to see where they are all alike."""
    rows, density = [d.train_rows for d in domains], [d.density for d in domains]
    return max(rows) > _UNLIKE * min(rows) or max(density) > _UNLIKE * min(density)


def _points(study: Study, variants: list[Variant]) -> _Points:
    """The lifts of domains: of each row of dials by itself, as dials change what domains are."""
    groups = [[row for row in study.rows if row.dials == dials] for dials in study.dial_values()]
    return [
        (v, domain, lift)
        for rows in groups
        for domain in study.domains(rows)
        for v in variants
        if domain.train_rows > 0 and domain.density > 0
        if (lift := study.difference(rows, v, BASELINE, domain.name)) is not None
    ]
