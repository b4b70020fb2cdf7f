"""Lift against the dials of synthetic data, and the best reachable lift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmlora.experiments.report.plots.common import BASELINE, look_of, make, seeds
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import RowKey, Study, Variant
from mmlora.pages.drawing import Plot, ends, label_differences, limits, panel, series
from mmlora.pages.style import COLOURS, Look

_BEST = Look("best reachable", "ink", marker="")
_Lines = Mapping[Look, list[tuple[float, Estimate]]]


def dials(study: Study) -> Plot | None:
    """Plot each arm's paired lift over the pooled backbone against each dial."""
    variants = [v for v in study.main_variants() if v.arm not in ("pooled", BASELINE)]
    variants = [v for v in variants if study.paired_rows(v, BASELINE)]
    panels = {
        name: _lines(study, name, variants)
        for name in study.dials
        if all(isinstance(dict(row.dials)[name], int | float) for row in study.rows)
    }
    if not panels or not variants:
        return None
    arms = [e for lines in panels.values() for look, line in lines.items() if look != _BEST for _, e in line]
    y = limits(ends(arms), zero=True)
    return make(
        study,
        "dials",
        "Lift against the dials of the data",
        [_panel(name, lines, y) for name, lines in panels.items()],
        f"Each line is an arm's paired lift over `{BASELINE}`, averaged over the rest of the grid at that "
        f"value ({seeds(study)}), with 95% intervals; best reachable is the lift of the true probability "
        "on the same rows.",
    )


def _lines(study: Study, name: str, variants: Sequence[Variant]) -> _Lines:
    lines: dict[Look, list[tuple[float, Estimate]]] = {}
    for value in sorted({dict(row.dials)[name] for row in study.rows}):
        rows = [row for row in study.rows if dict(row.dials)[name] == value]
        for v in variants:
            if (lift := study.difference(rows, v, BASELINE)) is not None:
                lines.setdefault(look_of(study, v), []).append((float(value), lift))
        if (best := _headroom(study, rows)) is not None:
            lines.setdefault(_BEST, []).append((float(value), best))
    return lines


def _panel(name: str, lines: _Lines, y: tuple[float, float]) -> Figure:
    values = sorted({value for line in lines.values() for value, _ in line})
    figure, axes = panel(lines)
    axes.set_xlim(*limits(values))
    axes.set_xticks(values)
    axes.set_ylim(*y)
    axes.set_xlabel(f"{name} (setting of the data)")
    axes.set_ylabel(f"wauc minus that of {BASELINE}")
    label_differences(axes.yaxis, axes.axhline)
    for i, (look, points) in enumerate(lines.items()):
        if look != _BEST:
            series(axes, points, look, 4.0 * (i - (len(lines) - 1) / 2), bars=True)
        elif all(estimate.value <= y[1] for _, estimate in points):
            series(axes, points, look, 0, bars=False)
        else:  # inside the frame it would squeeze the other lines together
            _note_best(axes, [estimate.value for _, estimate in points])
    return figure


def _note_best(axes: Axes, values: Sequence[float]) -> None:
    low, high = f"{min(values):+.3f}", f"{max(values):+.3f}"
    text = f"best reachable, above the frame: {low}{f' to {high}' if high != low else ''}"
    axes.set_title(text, loc="right", fontsize=11, color=COLOURS["soft"])


def _headroom(study: Study, rows: Sequence[RowKey]) -> Estimate | None:
    """Return the best reachable wauc minus the baseline's, without interval: true scores are not stored."""
    lifts = [
        best - own
        for row in rows
        for variant, by_seed in study.cells[row].items()
        if variant.arm == BASELINE
        for cell in by_seed.values()
        if (best := cell.best_reachable) is not None
        if (own := study.evidence.wauc(cell)) is not None
    ]
    if not lifts:
        return None
    value = sum(lifts) / len(lifts)
    return Estimate(value, None, None, (value,), None, None)
