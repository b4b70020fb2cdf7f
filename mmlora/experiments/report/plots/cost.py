"""The cost of each arm: wauc against seconds of training, and against parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from mmlora.experiments.report.plots.common import look_of, make, seeds
from mmlora.experiments.report.reading import CellResult
from mmlora.experiments.report.studies import Study
from mmlora.pages.drawing import Plot, limits, panel, point, use_log_axis
from mmlora.pages.style import Look


@dataclass(frozen=True)
class _Costed:
    """An arm on a backbone: its look, wauc and cost."""

    look: Look
    backbone: str
    wauc: float
    seconds: float
    parameters: float


def cost(study: Study) -> Plot | None:
    """Plot each arm's wauc on each backbone against its training time, and against its parameters."""
    points = _points(study)
    if len(points) < 2:
        return None
    time, size = "training time, all phases (seconds, log scale)", "parameters, all parts (count, log scale)"
    figures = [
        _panel(points, time, [p.seconds for p in points], "s"),
        _panel(points, size, [p.parameters for p in points], "parameters"),
    ]
    return make(
        study,
        "cost",
        "Cost",
        figures,
        f"Each point is an arm on a backbone (mean over {seeds(study)}): higher is better, further left is "
        "cheaper, so a point with another above and to its left is not worth its cost. Hover for names.",
    )


def _points(study: Study) -> list[_Costed]:
    points = []
    for backbone in study.backbones:
        rows = [row for row in study.rows if row.backbone == backbone]
        for v in study.main_variants():
            cells = [cell for row in rows for cell in study.cells[row].get(v, {}).values()]
            mean, seconds, parameters = study.mean(rows, v), _seconds(cells), _parameters(cells)
            if mean is not None and seconds and parameters:
                points.append(_Costed(look_of(study, v), backbone, mean.value, seconds, parameters))
    return points


def _panel(points: Sequence[_Costed], title: str, costs: Sequence[float], unit: str) -> Figure:
    figure, axes = panel(dict.fromkeys(p.look for p in points))
    axes.set_ylim(*limits([p.wauc for p in points]))
    use_log_axis(axes, costs)
    axes.set_xlabel(title)
    axes.set_ylabel("test wauc")
    for p, amount in zip(points, costs, strict=True):
        tip = f"{p.look.label} on {p.backbone}: wauc {p.wauc:.4f}, {amount:,.0f} {unit}"
        point(axes, amount, p.wauc, p.look, tip)
    return figure


def _seconds(cells: Sequence[CellResult]) -> float | None:
    return _mean([s for cell in cells if (s := (cell.raw.get("seconds") or {}).get("total")) is not None])


def _parameters(cells: Sequence[CellResult]) -> float | None:
    by_cell = [parts for cell in cells if (parts := cell.raw.get("parameters"))]
    return _mean([sum(count or 0 for count in parts.values()) for parts in by_cell])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
