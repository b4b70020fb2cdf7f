"""Gate weights: a heat map of domains by experts."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mmlora.experiments.report.plots.drawing import Plot, make
from mmlora.experiments.report.reading import CellResult
from mmlora.experiments.report.studies import Study
from mmlora.experiments.report.svg import text

_LEFT = 180.0


def gate_weights(study: Study) -> Plot | None:
    """The mean weight that each domain's test rows give to each expert of `moe_mlora`."""
    variant = {v.arm: v for v in study.main_variants()}.get("moe_mlora")
    if variant is None:
        return None
    held = [cell for row in study.cells.values() for cell in row.get(variant, {}).values()]
    cells = [cell for cell in held if cell.raw.get("gate_weights")]
    if not cells:
        return None
    columns = _columns(cells[0])
    cells = [cell for cell in cells if _columns(cell) == columns]
    tables = [cell.raw["gate_weights"]["rows"] for cell in cells]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    grid = [
        [sum(table[name][k] for table in tables) / len(tables) for k in range(len(columns))] for name in names
    ]
    if not grid:
        return None
    own = _own_share(names, columns, grid)
    even = sum(domain == columns[0][0] for domain, _ in columns) / len(columns)
    parts, size = _heat_map(names, columns, grid)
    return make(
        study,
        "gate",
        "Gate weights",
        size,
        parts,
        "Stronger colour is more weight, from the rows of the domain at the left to the expert above; a "
        "domain's "
        f"own experts are outlined and get {own:.2f} together on average, where equal weights would give "
        f"{even:.2f} "
        f"(`{study.label(variant)}`, mean of {len(cells)} cells: seeds and backbones).",
    )


def _columns(cell: CellResult) -> list[tuple[str, int]]:
    return [(expert["domain"], expert["slot"]) for expert in cell.raw["gate_weights"]["experts"]]


def _own_share(
    names: Sequence[str], columns: Sequence[tuple[str, int]], grid: Sequence[Sequence[float]]
) -> float:
    shares = [
        sum(weight for weight, (domain, _) in zip(row, columns, strict=True) if domain == name)
        for name, row in zip(names, grid, strict=True)
    ]
    return sum(shares) / len(shares)


def _heat_map(
    names: Sequence[str], columns: Sequence[tuple[str, int]], grid: Sequence[Sequence[float]]
) -> tuple[list[str], tuple[float, float]]:
    wide = min(84.0, max(16.0, 660 / len(columns)))
    tall = min(38.0, max(20.0, wide * 0.55))
    peak = max(max(row) for row in grid) or 1.0
    parts, top = _heads(columns, wide)
    for i, (name, row) in enumerate(zip(names, grid, strict=True)):
        y = top + tall * i
        parts.append(text(_LEFT - 8, y + tall / 2 + 4, name, "end"))
        for k, ((domain, slot), weight) in enumerate(zip(columns, row, strict=True)):
            shade = 0.05 + 0.95 * weight / peak
            about = f"rows of {name}: expert {slot + 1} of {domain} weighs {weight:.3f}"
            box = _box(_LEFT + wide * k, y, wide - 2, tall - 2)
            parts.append(
                f'{box} class="cell" fill-opacity="{shade:.2f}"><title>{html.escape(about)}</title></rect>'
            )
            if domain == name:
                parts.append(f'{box} class="own"/>')
            if wide >= 34:
                ink = "middle small onheat" if shade > 0.6 else "middle small"
                parts.append(text(_LEFT + wide * (k + 0.5) - 1, y + tall / 2 + 3, f"{weight:.2f}", ink))
    bottom = top + tall * len(names)
    parts.append(text(14, (top + bottom) / 2, "domain of the rows", "middle soft", -90))
    parts += _key(bottom + 18, peak)
    return parts, (max(_LEFT + wide * len(columns) + 110, 640), bottom + 44)


def _heads(columns: Sequence[tuple[str, int]], wide: float) -> tuple[list[str], float]:
    """The experts' names, turned where they are long, and where the rows begin below them.

    Narrow columns name each domain once, over its first expert.
    """
    slots = 1 + max(slot for _, slot in columns)
    narrow = wide < 34
    labels = [_head(domain, slot, slots, narrow) for domain, slot in columns]
    longest = max(map(len, labels))
    turned = longest * 6.5 > wide - 4
    top = 70 + (longest * 5.4 if turned else 0)
    what = "expert: the domain it was trained on" + (f", and which of its {slots}" if slots > 1 else "")
    if slots > 1 and narrow:
        what = f"expert: the domain it was trained on, {slots} side by side"
    parts = [text(_LEFT, 42, what, "start soft")]
    place, classes, turn = (4, "start small", -55) if turned else (-1, "middle small", 0)
    at = [_LEFT + wide * (k + 0.5) + place for k in range(len(labels))]
    parts += [text(x, top - 8, label, classes, turn) for x, label in zip(at, labels, strict=True) if label]
    return parts, top


def _head(domain: str, slot: int, slots: int, narrow: bool) -> str:
    if slots == 1:
        return domain
    if narrow:
        return "" if slot else domain
    return f"{domain}, {slot + 1}"


def _key(y: float, peak: float) -> list[str]:
    shades = [
        f'{_box(_LEFT + 126 + 7 * i, y, 7, 13)} class="cell" fill-opacity="{0.05 + 0.05 * i:.2f}"/>'
        for i in range(20)
    ]
    named = text(_LEFT, y + 11, "weight (share of 1): 0", "start small soft")
    return [named, *shades, text(_LEFT + 272, y + 11, f"{peak:.2f}", "start small soft")]


def _box(x: float, y: float, width: float, height: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
