"""wauc against experts per domain: lines, one a backbone."""

from __future__ import annotations

from mmlora.experiments.report import svg
from mmlora.experiments.report.plots.drawing import PANELS, WIDTH, Plot, ends, make, seeds, series
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import Study, Variant
from mmlora.experiments.report.svg import Frame, Scale

_Points = list[tuple[int, Estimate, Estimate | None]]


def wauc_by_experts(study: Study) -> Plot | None:
    """Test wauc of `moe_mlora`, and its paired difference to `mlora`, against experts per domain."""
    lines = _lines(study)
    if not lines:
        return None
    looks = svg.looks(list(lines))
    parts, height = svg.legend(0, 38, WIDTH, looks)
    top = 46 + height
    experts = sorted({at for points in lines.values() for at, _, _ in points})
    means = [mean.value for points in lines.values() for _, mean, _ in points]
    differences = [d for points in lines.values() for _, _, d in points if d is not None]
    panels = [("test wauc", means)]
    if differences:
        panels.append(("test wauc less that of mlora", ends(differences)))
    for (left, right), (title, values) in zip(PANELS, panels, strict=False):
        paired = values is not means
        x = Scale(experts[0] - 0.4, experts[-1] + 0.4, left, right)
        frame = Frame(x, svg.fit(values, top + 240, top, zero=paired))
        parts += frame.axes("experts per domain (count)", title, signed=paired, x_at=experts)
        for i, (look, points) in enumerate(zip(looks, lines.values(), strict=True)):
            shift = (i - (len(lines) - 1) / 2) * min(9, 60 / len(lines)) if paired else 0.0
            line = [(float(at), e) for at, m, d in points if (e := d if paired else m) is not None]
            parts += series(frame, line, look, shift, bars=paired)
    return make(
        study,
        "experts",
        "wauc against experts per domain",
        (WIDTH, top + 290),
        parts,
        "Left, the mean test wauc of `moe_mlora` by experts per domain; right, its paired difference to "
        "`mlora` with 95% intervals, in which what both share cancels: experts pay where one lies above 0 "
        f"({seeds(study)}).",
    )


def _lines(study: Study) -> dict[str, _Points]:
    """The lines of several points by name: the backbone, and gate and settings where these vary."""
    several = [v for v in study.variants if v.arm == "moe_mlora"]
    kinds = {(v.gate, v.settings) for v in several}
    lines: dict[str, _Points] = {}
    for backbone in study.backbones:
        rows = [row for row in study.rows if row.backbone == backbone]
        for v in several:
            mean = study.mean(rows, v)
            if mean is not None:
                name = backbone + (_kind(v) if len(kinds) > 1 else "")
                point = (v.experts, mean, study.difference(rows, v, "mlora"))
                lines.setdefault(name, []).append(point)
    return {name: points for name, points in lines.items() if len(points) > 1}


def _kind(variant: Variant) -> str:
    gate = f", gate {variant.gate}" if variant.gate else ""
    return gate + "".join(f", {name} {value}" for name, value in variant.settings)
