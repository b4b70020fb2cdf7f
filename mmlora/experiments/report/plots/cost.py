"""What each arm costs: wauc against seconds of training, and against parameters."""

from __future__ import annotations

from collections.abc import Sequence

from mmlora.experiments.report import svg
from mmlora.experiments.report.plots.drawing import PANELS, WIDTH, Plot, look_of, make, seeds
from mmlora.experiments.report.reading import CellResult
from mmlora.experiments.report.studies import Study
from mmlora.experiments.report.svg import Frame, Look, marker


def cost(study: Study) -> Plot | None:
    """Each arm's wauc on each backbone against its training time, and against its parameters."""
    looks = {v: look_of(study, v) for v in study.main_variants()}
    points: list[tuple[Look, str, float, float, float]] = []
    for backbone in study.backbones:
        rows = [row for row in study.rows if row.backbone == backbone]
        for v, look in looks.items():
            cells = [cell for row in rows for cell in study.cells[row].get(v, {}).values()]
            mean, seconds, parameters = study.mean(rows, v), _seconds(cells), _parameters(cells)
            if mean is not None and seconds and parameters:
                points.append((look, backbone, mean.value, seconds, parameters))
    if len(points) < 2:
        return None
    used = [look for look in looks.values() if any(point[0] == look for point in points)]
    parts, height = svg.legend(0, 38, WIDTH, used)
    top = 46 + height
    y = svg.fit([wauc for _, _, wauc, _, _ in points], top + 260, top)
    time, size = "training time, all phases (seconds, log scale)", "parameters, all parts (count, log scale)"
    for (left, right), title in zip(PANELS, (time, size), strict=True):
        at = [seconds if title == time else parameters for *_, seconds, parameters in points]
        frame = Frame(svg.fit(at, left, right, log=True), y)
        parts += frame.axes(title, "test wauc")
        for value, (look, backbone, wauc, *_) in zip(at, points, strict=True):
            about = f"{look.label} on {backbone}: wauc {wauc:.4f}, {value:,.0f}"
            parts.append(marker(frame.x(value), y(wauc), look, about))
    return make(
        study,
        "cost",
        "What it costs",
        (WIDTH, top + 310),
        parts,
        f"Each point is an arm on a backbone (mean over {seeds(study)}): up is better, left is cheaper, so a "
        "point with another above and to its left isn't worth its price; point at one for its name.",
    )


def _seconds(cells: Sequence[CellResult]) -> float | None:
    return _mean([s for cell in cells if (s := (cell.raw.get("seconds") or {}).get("total")) is not None])


def _parameters(cells: Sequence[CellResult]) -> float | None:
    held = [parts for cell in cells if (parts := cell.raw.get("parameters"))]
    return _mean([sum(count or 0 for count in parts.values()) for parts in held])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
