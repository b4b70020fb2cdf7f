"""A cell of an experiment: one arm on one data set, and what it has in common with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mmlora.experiments.arms import ARMS, ArmName
from mmlora.hyperparameters import read_by
from mmlora.names import BackboneName, FeatureGroup, GateInput, SplitName
from mmlora.records import Record
from mmlora.schema import fingerprint

EXPERT_SETTINGS = frozenset(read_by("expert"))
GATE_SETTINGS = frozenset(read_by("gate"))


@dataclass(frozen=True)
class Cell(Record):
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
    arm: ArmName
    experts_per_domain: int
    gate: GateInput | None
    split: SplitName
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    def canonical(self) -> Cell:
        """Return the cell without what its arm ignores, so that cells that are the same are equal."""
        arm = ARMS[self.arm]
        ignored: set[str] = set()
        if not arm.experts:
            ignored |= EXPERT_SETTINGS
        if not arm.gate:
            ignored |= GATE_SETTINGS
        if self.arm == "joint":  # all has the backbone's
            ignored |= {"expert_learning_rate", "gate_learning_rate"}
        experts = self.experts_per_domain if arm.several else 1 if arm.experts else 0
        return replace(
            self,
            experts_per_domain=experts,
            gate=self.gate if arm.gate else None,
            settings={name: value for name, value in sorted(self.settings.items()) if name not in ignored},
        )

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Cell:
        """Return the cell that :meth:`to_json` gave.

        Raises:
            KeyError: there is no such arm, or the mapping lacks a field.
        """
        ARMS[raw["arm"]]  # a cell of another release may name an arm that this one doesn't know
        return cls(**{name: raw[name] for name in cls.__dataclass_fields__})

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
