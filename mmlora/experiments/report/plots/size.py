"""Lift of each domain against how many rows it has, and how dense it is: two scatters."""

from __future__ import annotations

from collections.abc import Sequence

from mmlora.experiments.report import svg
from mmlora.experiments.report.plots.drawing import (
    BASELINE,
    PANELS,
    WIDTH,
    Plot,
    ends,
    look_of,
    make,
    over,
    tip,
    upright,
)
from mmlora.experiments.report.reading import Domain
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study, Variant
from mmlora.experiments.report.svg import Frame, marker

_ARMS = ("separate", "mlora", "moe_mlora")
_FEWEST = 4  # domains, for a scatter to show anything
_UNLIKE = 1.5  # times as many rows, or as dense, as the least
_CROWDED = 120  # points, from which on intervals would hide each other


def lift_by_size(study: Study) -> Plot | None:
    """Each domain's lift against its training rows, and against its density."""
    variants = [v for v in study.main_variants() if v.arm in _ARMS and study.paired_rows(v, BASELINE)]
    points = _points(study, variants)
    if len({domain.name for _, domain, _ in points}) < _FEWEST or not _unlike([d for _, d, _ in points]):
        return None
    looks = {v: look_of(study, v) for v in variants}
    parts, height = svg.legend(0, 38, WIDTH, list(looks.values()))
    top, crowded = 46 + height, len(points) > _CROWDED
    lifts = [lift for *_, lift in points]
    y = svg.fit([e.value for e in lifts] if crowded else ends(lifts), top + 260, top, zero=True)
    rows, density = "training rows of the domain (log scale)", "density: share of user-item pairs (log scale)"
    for (left, right), title in zip(PANELS, (rows, density), strict=True):
        at = [float(d.train_rows) if title == rows else d.density for _, d, _ in points]
        frame = Frame(svg.fit(at, left, right, log=True), y)
        parts += frame.axes(title, f"AUC less that of {BASELINE}", signed=True)
        for value, (v, domain, lift) in zip(at, points, strict=True):
            shift = 3.0 * (variants.index(v) - (len(variants) - 1) / 2)
            if not crowded:
                parts += upright(frame, value, lift, looks[v], shift)
            about = tip(domain.name, looks[v], lift)
            parts.append(
                marker(frame.x(value) + shift, y(lift.value), looks[v], about, 3 if crowded else 4.2)
            )
    return make(
        study,
        "size",
        "Lift against domain size and density",
        (WIDTH, top + 310),
        parts,
        f"Each point is a domain: how far an arm's AUC there lies above that of `{BASELINE}` "
        f"({over(study)}), by "
        "how many rows it was trained on (left) and how densely its users and items meet (right)"
        + ("." if crowded else ", with 95% intervals."),
    )


def _unlike(domains: Sequence[Domain]) -> bool:
    """Whether domains differ in size or density: there is nothing to see where they are all alike."""
    rows, density = [d.train_rows for d in domains], [d.density for d in domains]
    return max(rows) > _UNLIKE * min(rows) or max(density) > _UNLIKE * min(density)


def _points(study: Study, variants: list[Variant]) -> list[tuple[Variant, Domain, Estimate]]:
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
