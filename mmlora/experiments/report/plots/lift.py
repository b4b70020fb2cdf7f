"""Lift over the pooled backbone by domain: dots with intervals."""

from __future__ import annotations

from mmlora.experiments.report import svg
from mmlora.experiments.report.plots.drawing import BASELINE, Plot, ends, look_of, make, over, tip
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study
from mmlora.experiments.report.svg import Look, Scale, line, marker, text

# Arms whose point is another comparison; they would only crowd this plot.
_LEFT_OUT = ("pooled", BASELINE, "placebo_mlora", "random_gate", "uniform_gate")
_WIDTH, _LEFT, _RIGHT = 860, 240, 840


def lift_by_domain(study: Study) -> Plot | None:
    """Each arm's AUC less the pooled backbone's, by domain."""
    variants = [v for v in study.main_variants() if v.arm not in _LEFT_OUT and study.paired_rows(v, BASELINE)]
    domains = sorted(study.domains(), key=lambda domain: -domain.train_rows)
    lifts = {
        (domain.name, v): found
        for domain in domains
        for v in variants
        if (found := study.difference(study.rows, v, BASELINE, domain.name)) is not None
    }
    if not lifts:
        return None
    shown = [domain for domain in domains if any((domain.name, v) in lifts for v in variants)]
    looks = {v: look_of(study, v) for v in variants}
    parts, height = svg.legend(0, 38, _WIDTH, list(looks.values()))
    step, top = max(10 * len(variants) + 14, 36), 34 + height
    bottom = top + step * len(shown)
    x = svg.fit(ends(lifts.values()), _LEFT, _RIGHT, zero=True)
    parts += _ruler(x, top, bottom)
    for i, domain in enumerate(shown):
        y = top + step * i
        parts.append(line(0, y, _RIGHT, y, "rule"))
        parts.append(text(_LEFT - 14, y + step / 2 - 2, domain.name, "end"))
        rows = f"{domain.train_rows:,} training rows"
        parts.append(text(_LEFT - 14, y + step / 2 + 12, rows, "end small soft"))
        first = y + step / 2 - 5 * (len(variants) - 1)
        for j, v in enumerate(variants):
            if (domain.name, v) in lifts:
                parts += _dot(x, first + 10 * j, lifts[domain.name, v], looks[v], domain.name)
    return make(
        study,
        "lift-by-domain",
        "Lift over the pooled backbone by domain",
        (_WIDTH, bottom + 50),
        parts,
        f"Each dot is an arm's AUC on a domain's test rows less that of `{BASELINE}` on the same rows, "
        f"{over(study)}, with its 95% interval: right of the line the arm is better there; the domain with "
        "most training rows comes first. A very wide interval is cut at the frame.",
    )


def _ruler(x: Scale, top: float, bottom: float) -> list[str]:
    parts = []
    for value in x.ticks():
        parts.append(line(x(value), top, x(value), bottom, "rule"))
        parts.append(text(x(value), bottom + 17, svg.number(value, True), "middle small soft"))
    title = f"test AUC less that of {BASELINE} (difference of AUC)"
    middle = text((_LEFT + _RIGHT) / 2, bottom + 38, title, "middle soft")
    return [*parts, line(x(0), top, x(0), bottom, "zero"), middle]


def _dot(x: Scale, y: float, lift: Estimate, look: Look, domain: str) -> list[str]:
    bar = []
    if lift.low is not None and lift.high is not None:
        bar.append(line(x(lift.low), y, x(lift.high), y, f"bar {look.colour}"))
    return [*bar, marker(x(lift.value), y, look, tip(domain, look, lift))]
