"""wauc against experts per domain, one line per backbone."""

from __future__ import annotations

from matplotlib.figure import Figure

from mmlora.experiments.report.plots.common import make, seeds
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study, Variant
from mmlora.pages.drawing import Plot, ends, label_differences, limits, panel, series
from mmlora.pages.style import looks

_Lines = dict[str, list[tuple[int, Estimate, Estimate | None]]]


def wauc_by_experts(study: Study) -> Plot | None:
    """Plot the test wauc of `moe_mlora`, and its paired difference to `mlora`, against experts per domain."""
    lines = _lines(study)
    if not lines:
        return None
    paired = any(difference is not None for points in lines.values() for *_, difference in points)
    figures = [_panel(lines, paired=False), *([_panel(lines, paired=True)] if paired else [])]
    return make(
        study,
        "experts",
        "wauc against experts per domain",
        figures,
        "First the mean test wauc of `moe_mlora` by experts per domain, then its paired difference to "
        "`mlora` with 95% intervals, in which variation that both share cancels: more experts pay off where "
        f"an interval is above 0 ({seeds(study)}).",
    )


def _panel(lines: _Lines, *, paired: bool) -> Figure:
    drawn = {
        name: [
            (float(experts), estimate)
            for experts, mean, difference in points
            if (estimate := difference if paired else mean) is not None
        ]
        for name, points in lines.items()
    }
    estimates = [estimate for points in drawn.values() for _, estimate in points]
    values = ends(estimates) if paired else [estimate.value for estimate in estimates]
    experts = sorted({number for points in lines.values() for number, *_ in points})
    styles = looks(list(lines))
    figure, axes = panel(styles)
    axes.set_xlim(experts[0] - 0.4, experts[-1] + 0.4)
    axes.set_xticks(experts)
    axes.set_ylim(*limits(values, zero=paired))
    axes.set_xlabel("experts per domain (count)")
    axes.set_ylabel("test wauc minus that of mlora" if paired else "test wauc")
    if paired:
        label_differences(axes.yaxis, axes.axhline)
    for i, (look, points) in enumerate(zip(styles, drawn.values(), strict=True)):
        shift = (i - (len(lines) - 1) / 2) * min(9, 60 / len(lines)) if paired else 0.0
        series(axes, points, look, shift, bars=paired)
    return figure


def _lines(study: Study) -> _Lines:
    """Return the lines with two points or more, by backbone, and by gate and settings if these vary."""
    variants = [v for v in study.variants if v.arm == "moe_mlora"]
    kinds = {(v.gate, v.settings) for v in variants}
    lines: _Lines = {}
    for backbone in study.backbones:
        rows = [row for row in study.rows if row.backbone == backbone]
        for v in variants:
            if (mean := study.mean(rows, v)) is not None:
                name = backbone + (_kind(v) if len(kinds) > 1 else "")
                point = (v.experts, mean, study.difference(rows, v, "mlora"))
                lines.setdefault(name, []).append(point)
    return {name: points for name, points in lines.items() if len(points) > 1}


def _kind(variant: Variant) -> str:
    gate = f", gate {variant.gate}" if variant.gate else ""
    return gate + "".join(f", {name} {value}" for name, value in variant.settings)
