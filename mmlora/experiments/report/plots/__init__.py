"""The plots of a study, drawn with matplotlib. A plot is left out if the cells lack its figures."""

from __future__ import annotations

from matplotlib import rc_context

from mmlora.experiments.report.plots.cost import cost
from mmlora.experiments.report.plots.dials import dials
from mmlora.experiments.report.plots.experts import wauc_by_experts
from mmlora.experiments.report.plots.gate import gate_weights
from mmlora.experiments.report.plots.lift import lift_by_domain
from mmlora.experiments.report.plots.size import lift_by_size
from mmlora.experiments.report.studies import Study
from mmlora.pages.drawing import Plot
from mmlora.pages.style import SETTINGS

__all__ = ["Plot", "plots"]

_ALL = (lift_by_domain, wauc_by_experts, dials, lift_by_size, gate_weights, cost)


def plots(study: Study) -> list[Plot]:
    """Return the plots of a study, except those whose figures its cells lack."""
    with rc_context(SETTINGS):
        return [plot for draw in _ALL if (plot := draw(study)) is not None]
