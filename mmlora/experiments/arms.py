"""The arms of an experiment: a description of each, and which settings its result depends on.

Cheap to import; :mod:`mmlora.experiments.train_arms` trains them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmlora.names import Adaptation

ArmName = Literal[
    "pooled",
    "pooled_domain",
    "separate",
    "mlora",
    "mlora_matched",
    "moe_mlora",
    "placebo_mlora",
    "placebo_moe_mlora",
    "uniform_gate",
    "random_gate",
    "joint",
]


@dataclass(frozen=True)
class Arm:
    """An adaptation, or a control.

    Attributes:
        name: name in the grid.
        description: a clause of Markdown for reports.
        experts: whether it has experts.
        several: whether a domain may have several experts.
        gate: whether it trains a gate.
        placebo: whether each row is adapted as if it were of another row's domain.
    """

    name: ArmName
    description: str
    experts: bool = False
    several: bool = False
    gate: bool = False
    placebo: bool = False

    @property
    def adaptation(self) -> Adaptation:
        """The adaptation of the arm's model."""
        return "none" if not self.experts else "moe_mlora" if self.several else "mlora"


_MIXED = {"experts": True, "several": True}

ARMS: dict[ArmName, Arm] = {
    arm.name: arm
    for arm in (
        Arm("pooled", "one model for all domains, without the domain as a feature"),
        Arm("pooled_domain", "one model for all domains, with the domain as a feature"),
        Arm("separate", "one model per domain, trained on that domain's rows only"),
        Arm("mlora", "a shared backbone and one low-rank adapter per domain", experts=True),
        Arm(
            "mlora_matched",
            "`mlora` with as many restarts and steps as `moe_mlora`, so the budget explains no difference",
            gate=True,
            **_MIXED,
        ),
        Arm(
            "moe_mlora",
            "a shared backbone, and low-rank experts of every domain mixed by a gate",
            gate=True,
            **_MIXED,
        ),
        Arm(
            "placebo_mlora",
            "`mlora` with the adapting domains shuffled over the rows: adapters that cannot know the domain",
            experts=True,
            placebo=True,
        ),
        Arm(
            "placebo_moe_mlora",
            "`moe_mlora` with the adapting domains shuffled over the rows: only the effect of size",
            gate=True,
            placebo=True,
            **_MIXED,
        ),
        Arm("uniform_gate", "`moe_mlora` with equal weights for all experts", **_MIXED),
        Arm("random_gate", "`moe_mlora` with random gate weights that are not trained", **_MIXED),
        Arm(
            "joint",
            "`moe_mlora` with all parameters trained together from scratch, with one budget of epochs "
            "instead of one per phase",
            gate=True,
            **_MIXED,
        ),
    )
}
"""Every arm by name, in the order of tables and legends."""

PLACEBO_FAULT = (
    "cross terms read the domain that a row is adapted as, so shuffled domains would change the placebo's "
    "backbone; set crosses = false, also for the arms that it is compared with"
)
