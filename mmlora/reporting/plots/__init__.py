"""The plots of a study. Each appears only where the cells have what it shows."""

from __future__ import annotations

from mmlora.reporting.grid import Study
from mmlora.reporting.plots.cost import cost
from mmlora.reporting.plots.dials import dials
from mmlora.reporting.plots.drawing import Plot
from mmlora.reporting.plots.experts import wauc_by_experts
from mmlora.reporting.plots.gate import gate_weights
from mmlora.reporting.plots.lift import lift_by_domain
from mmlora.reporting.plots.size import lift_by_size

__all__ = ["Plot", "plots"]

_ALL = (lift_by_domain, wauc_by_experts, dials, lift_by_size, gate_weights, cost)


def plots(study: Study) -> list[Plot]:
    """Return the plots that a study has the cells for."""
    return [plot for draw in _ALL if (plot := draw(study)) is not None]
