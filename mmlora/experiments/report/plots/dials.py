"""Lift along the dials of made-up data: lines, and the best that can be reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmlora.experiments.report import svg
from mmlora.experiments.report.plots.drawing import (
    BASELINE,
    PANELS,
    WIDTH,
    Plot,
    ends,
    look_of,
    make,
    seeds,
    series,
)
from mmlora.experiments.report.statistics import Estimate
from mmlora.experiments.report.studies import RowKey, Study, Variant
from mmlora.experiments.report.svg import Frame, Look, Scale, text

_BEST = Look("best reachable", "ink", dashed=True)
_STEP = 320
_Lines = Mapping[Look, list[tuple[float, Estimate]]]


def dials(study: Study) -> Plot | None:
    """Each arm's paired lift over the pooled backbone against each dial."""
    variants = [v for v in study.main_variants() if v.arm not in ("pooled", BASELINE)]
    variants = [v for v in variants if study.paired_rows(v, BASELINE)]
    panels = {
        name: _lines(study, name, variants)
        for name in study.dials
        if all(isinstance(dict(row.dials)[name], int | float) for row in study.rows)
    }
    if not panels or not variants:
        return None
    used = list(dict.fromkeys(look for lines in panels.values() for look in lines))
    parts, height = svg.legend(0, 38, WIDTH, used)
    top = 46 + height
    arms = [e for lines in panels.values() for look, line in lines.items() if look != _BEST for _, e in line]
    low_high = svg.fit(ends(arms), 1, 0, zero=True)
    for i, (name, lines) in enumerate(panels.items()):
        floor = top + 260 + _STEP * (i // 2)
        at = sorted({value for line in lines.values() for value, _ in line})
        y = Scale(low_high.low, low_high.high, floor, floor - 260)
        frame = Frame(svg.fit(at, *PANELS[i % 2]), y)
        parts += frame.axes(
            f"{name} (setting of the data)", f"wauc less that of {BASELINE}", signed=True, x_at=at
        )
        parts += _panel(frame, lines)
    return make(
        study,
        "dials",
        "Lift along the dials of the data",
        (WIDTH, top + 310 + _STEP * ((len(panels) - 1) // 2)),
        parts,
        f"Each line is an arm's paired lift over `{BASELINE}`, averaged over all else in the grid at that "
        f"setting ({seeds(study)}), with 95% intervals; best reachable is the lift of the true probability "
        "on the "
        "same rows.",
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


def _panel(frame: Frame, lines: _Lines) -> list[str]:
    parts: list[str] = []
    for i, (look, points) in enumerate(lines.items()):
        if look != _BEST:
            parts += series(frame, points, look, 4.0 * (i - (len(lines) - 1) / 2), bars=True)
        elif all(found.value <= frame.y.high for _, found in points):
            parts += series(frame, points, look, 0, bars=False)
        else:  # in the frame it would press all else together
            values = [found.value for _, found in points]
            low, high = f"{min(values):+.3f}", f"{max(values):+.3f}"
            said = f"best reachable, above the frame: {low}{f' to {high}' if high != low else ''}"
            parts.append(text(frame.x.end, frame.y.end - 4, said, "end small soft"))
    return parts


def _headroom(study: Study, rows: Sequence[RowKey]) -> Estimate | None:
    """The best reachable wauc less the baseline's: a level, as the truth's scores aren't kept."""
    found = [
        best - own
        for row in rows
        for variant, by_seed in study.cells[row].items()
        if variant.arm == BASELINE
        for cell in by_seed.values()
        if (best := cell.best_reachable) is not None
        if (own := study.evidence.wauc(cell)) is not None
    ]
    if not found:
        return None
    value = sum(found) / len(found)
    return Estimate(value, None, None, (value,), None, None)
