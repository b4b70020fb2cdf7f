"""A cell of an experiment: one arm on one data set, and what it has in common with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mmlora.hyperparameters import read_by
from mmlora.names import Adaptation, BackboneName, FeatureGroup, GateInput, SplitName
from mmlora.schema import fingerprint

Arm = Literal[
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
class Needs:
    """What an arm's result depends on, beside the data and the backbone.

    Attributes:
        experts: whether it has experts.
        several: whether a domain may have several of them.
        gate: whether it trains a gate.
        placebo: whether it adapts each row as another's domain.
    """

    experts: bool = False
    several: bool = False
    gate: bool = False
    placebo: bool = False

    @property
    def adaptation(self) -> Adaptation:
        """The adaptation of the arm's model."""
        return "none" if not self.experts else "moe_mlora" if self.several else "mlora"


NEEDS: dict[Arm, Needs] = {
    "pooled": Needs(),
    "pooled_domain": Needs(),
    "separate": Needs(),
    "mlora": Needs(experts=True),
    "mlora_matched": Needs(
        experts=True, several=True, gate=True
    ),  # as many restarts and steps as with a gate
    "moe_mlora": Needs(experts=True, several=True, gate=True),
    "placebo_mlora": Needs(experts=True, placebo=True),
    "placebo_moe_mlora": Needs(experts=True, several=True, gate=True, placebo=True),
    "uniform_gate": Needs(experts=True, several=True),
    "random_gate": Needs(experts=True, several=True),
    "joint": Needs(experts=True, several=True, gate=True),
}
PLACEBO_FAULT = (
    "cross terms read the domain that a row is adapted as, so a placebo's backbone would change with its "
    "shuffled domains; set crosses = false, for the arms that it is compared with as well"
)
EXPERT_SETTINGS = frozenset(read_by("expert"))
GATE_SETTINGS = frozenset(read_by("gate"))


@dataclass(frozen=True)
class Cell:
    """One arm on one data set.

    Attributes:
        data: the data set's name in the file.
        features: the model's input.
        backbone: the shared network.
        arm: what is trained.
        experts_per_domain: experts a domain; 0 for an arm without any.
        gate: what a trained gate sees; None for an arm that trains none.
        split: how rows are held out.
        seed: of the split and the initial weights.
        settings: what else varies over the grid: training settings, and dials of made-up data.
    """

    data: str
    features: FeatureGroup
    backbone: BackboneName
    arm: Arm
    experts_per_domain: int
    gate: GateInput | None
    split: SplitName
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def canonical(self) -> Cell:
        """Return the cell without what its arm ignores, so that cells that are the same are equal."""
        needs = NEEDS[self.arm]
        ignored: set[str] = set()
        if not needs.experts:
            ignored |= EXPERT_SETTINGS
        if not needs.gate:
            ignored |= GATE_SETTINGS
        if self.arm == "joint":  # all has the backbone's
            ignored |= {"expert_learning_rate", "gate_learning_rate"}
        experts = self.experts_per_domain if needs.several else 1 if needs.experts else 0
        return replace(
            self,
            experts_per_domain=experts,
            gate=self.gate if needs.gate else None,
            settings={name: value for name, value in sorted(self.settings.items()) if name not in ignored},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**vars(self), "settings": dict(self.settings)}

    @property
    def group(self) -> str:
        """What cells that share a backbone have in common."""
        common = {k: v for k, v in self.settings.items() if k not in EXPERT_SETTINGS | GATE_SETTINGS}
        parts = (self.data, self.features, self.backbone, self.split, self.seed, common)
        return fingerprint(list(parts))

    def __str__(self) -> str:
        parts = [self.data, self.features, self.backbone, self.arm]
        if self.experts_per_domain > 1:
            parts.append(f"{self.experts_per_domain} experts a domain")
        if self.gate not in (None, "domain"):
            parts.append(f"gate {self.gate}")
        parts += described(self.settings)
        return ", ".join((*parts, f"split {self.split}", f"seed {self.seed}"))


def described(settings: Mapping[str, Any]) -> list[str]:
    """Return each setting with its value, as a person reads it."""
    return [f"{name} {shown(value)}" for name, value in settings.items()]


def shown(value: Any) -> str:
    """Return a value as a person reads it: four digits of a number that isn't whole."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
