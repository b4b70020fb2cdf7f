"""The arms of an experiment: what each is, and what its result depends on beside data and backbone.

Light to import; :mod:`mmlora.experiments.train_arms` trains them.
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
        name: as in the grid.
        what: what it is, in a clause; Markdown.
        experts: whether it has experts.
        several: whether a domain may have several of them.
        gate: whether it trains a gate.
        placebo: whether it adapts each row as another's domain.
    """

    name: ArmName
    what: str
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
        Arm("pooled", "one model for all domains, which it isn't told"),
        Arm("pooled_domain", "one model for all domains, the domain among its features"),
        Arm("separate", "one model a domain, trained on that domain's rows alone"),
        Arm("mlora", "shared backbone and one low-rank adapter a domain", experts=True),
        Arm(
            "mlora_matched",
            "`mlora` given as many restarts and steps as `moe_mlora` gets: what is left is not the budget's",
            gate=True,
            **_MIXED,
        ),
        Arm(
            "moe_mlora",
            "shared backbone, low-rank experts of every domain, mixed by a gate",
            gate=True,
            **_MIXED,
        ),
        Arm(
            "placebo_mlora",
            "`mlora` with the adapting domains shuffled over rows: what adapters give that know no domain",
            experts=True,
            placebo=True,
        ),
        Arm(
            "placebo_moe_mlora",
            "`moe_mlora` with the adapting domains shuffled over rows: what more parameters give by "
            "themselves",
            gate=True,
            placebo=True,
            **_MIXED,
        ),
        Arm("uniform_gate", "`moe_mlora` with every expert weighted alike", **_MIXED),
        Arm("random_gate", "`moe_mlora` with random gate weights, never trained", **_MIXED),
        Arm(
            "joint",
            "`moe_mlora` with all parameters trained together from scratch: no phases, and one budget of "
            "epochs where the phases have three",
            gate=True,
            **_MIXED,
        ),
    )
}
"""Every arm by its name, in the order of tables and legends."""

PLACEBO_FAULT = (
    "cross terms read the domain that a row is adapted as, so a placebo's backbone would change with its "
    "shuffled domains; set crosses = false, for the arms that it is compared with as well"
)
