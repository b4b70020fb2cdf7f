"""Lift over the pooled backbone by domain, with intervals."""

from __future__ import annotations

from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mmlora.experiments.report.plots.common import BASELINE, difference_tip, look_of, make, mean_text
from mmlora.experiments.report.reading import Domain
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study, Variant
from mmlora.pages.drawing import Plot, bar, ends, label_differences, limits, panel, point
from mmlora.pages.style import Look

# Arms that are made for other comparisons; they would only crowd this plot.
_LEFT_OUT = ("pooled", BASELINE, "placebo_mlora", "random_gate", "uniform_gate")
_STEP = 11.0  # distance of arms in points
_GAP = 16.0  # gap between domains in points
_Lifts = dict[tuple[str, Variant], Estimate]


def lift_by_domain(study: Study) -> Plot | None:
    """Plot each arm's AUC minus the pooled backbone's, by domain."""
    variants = [v for v in study.main_variants() if v.arm not in _LEFT_OUT and study.paired_rows(v, BASELINE)]
    domains = sorted(study.domains(), key=lambda domain: -domain.train_rows)
    lifts = {
        (domain.name, v): lift
        for domain in domains
        for v in variants
        if (lift := study.difference(study.rows, v, BASELINE, domain.name)) is not None
    }
    if not lifts:
        return None
    shown = [domain for domain in domains if any((domain.name, v) in lifts for v in variants)]
    looks = {v: look_of(study, v) for v in variants}
    step = max(_STEP * len(variants) + _GAP, 40)
    figure, axes = panel(looks.values(), height=step * len(shown) + 50)
    axes.set_xlim(*limits(ends(lifts.values()), zero=True))
    _label(axes, shown)
    for i, domain in enumerate(shown):
        _draw_domain(axes, i, domain, {v: _STEP / step * j for j, v in enumerate(variants)}, looks, lifts)
    return make(
        study,
        "lift-by-domain",
        "Lift over the pooled backbone by domain",
        [figure],
        f"Each dot is an arm's AUC on a domain's test rows minus that of `{BASELINE}` on the same rows, "
        f"{mean_text(study)}, with its 95% interval: to the right of the line the arm is better. Domains are "
        "sorted by training rows. Very wide intervals are cut off at the frame.",
    )


def _label(axes: Axes, shown: list[Domain]) -> None:
    names = [f"{fill(domain.name, 20)}\n{domain.train_rows:,} training rows" for domain in shown]
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), names)
    axes.set_yticks([i - 0.5 for i in range(len(shown))], minor=True)
    axes.tick_params(which="minor", length=0)
    axes.grid(visible=False, which="major", axis="y")
    axes.grid(visible=True, which="minor", axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(f"test AUC minus that of {BASELINE}")
    label_differences(axes.xaxis, axes.axvline)


def _draw_domain(
    axes: Axes,
    row: int,
    domain: Domain,
    offsets: dict[Variant, float],
    looks: dict[Variant, Look],
    lifts: _Lifts,
) -> None:
    middle = max(offsets.values()) / 2
    for v, offset in offsets.items():
        if (lift := lifts.get((domain.name, v))) is None:
            continue
        y = row + offset - middle
        if lift.low is not None and lift.high is not None:
            bar(axes, (lift.low, lift.high), (y, y), looks[v])
        point(axes, lift.value, y, looks[v], difference_tip(domain.name, looks[v], lift))
