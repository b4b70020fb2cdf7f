"""Gate weights: a heat map of domains by experts."""

from __future__ import annotations

import numpy as np

from mmlora.experiments.report.plots.common import make
from mmlora.experiments.report.studies import Study
from mmlora.experiments.results import GateWeights
from mmlora.pages.drawing import Plot
from mmlora.pages.heat_map import ExpertSlot, heat_map


def gate_weights(study: Study) -> Plot | None:
    """Plot the mean weight of each expert of `moe_mlora` over each domain's test rows."""
    variant = {v.arm: v for v in study.main_variants()}.get("moe_mlora")
    if variant is None:
        return None
    cells = [cell for row in study.cells.values() for cell in row.get(variant, {}).values()]
    measured = [gate for cell in cells if (gate := cell.raw.get("gate_weights"))]
    if not measured:
        return None
    experts = _experts(measured[0])
    tables = [gate["rows"] for gate in measured if _experts(gate) == experts]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    if not names:
        return None
    weights = np.array([np.mean([table[name] for table in tables], axis=0) for name in names])
    own = np.mean([weights[i, [d == name for d, _ in experts]].sum() for i, name in enumerate(names)])
    even = sum(domain == experts[0][0] for domain, _ in experts) / len(experts)
    return make(
        study,
        "gate",
        "Gate weights",
        [heat_map(names, experts, weights)],
        "A darker colour is more weight, from the rows of the domain on the left to the expert above. A "
        f"domain's own experts are outlined; together they have {own:.2f} on average, where equal weights "
        f"would give {even:.2f} (`{study.label(variant)}`, mean over {len(tables)} cells).",
    )


def _experts(gate: GateWeights) -> list[ExpertSlot]:
    return [(expert["domain"], expert["slot"]) for expert in gate["experts"]]
