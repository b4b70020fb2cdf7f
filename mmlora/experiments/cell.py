"""A cell of an experiment: one arm on one data set, split and seed."""

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
        data: name of the data set in the file.
        features: the feature group that the model reads.
        backbone: the shared network.
        arm: the arm that is trained.
        experts_per_domain: number of experts per domain; 0 for an arm without experts.
        gate: input of a trained gate; None for an arm without one.
        split: how rows are held out.
        seed: seed of the split and of the initial weights.
        settings: other settings that vary over the grid: training settings, and dials of synthetic data.
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
        """Return the cell without settings that its arm ignores, so that equal results have equal cells."""
        arm = ARMS[self.arm]
        ignored: set[str] = set()
        if not arm.experts:
            ignored |= EXPERT_SETTINGS
        if not arm.gate:
            ignored |= GATE_SETTINGS
        if self.arm == "joint":  # all parameters have the backbone's learning rate
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
        """Return the cell of a mapping from :meth:`to_json`.

        Raises:
            KeyError: the arm does not exist, or the mapping lacks a field.
        """
        ARMS[raw["arm"]]  # a cell of another release may have an arm that this release does not know
        return cls(**{name: raw[name] for name in cls.__dataclass_fields__})

    @property
    def group(self) -> str:
        """A fingerprint that is the same for cells that share a backbone."""
        common = {k: v for k, v in self.settings.items() if k not in EXPERT_SETTINGS | GATE_SETTINGS}
        parts = (self.data, self.features, self.backbone, self.split, self.seed, common)
        return fingerprint(list(parts))

    def __str__(self) -> str:
        parts = [self.data, self.features, self.backbone, self.arm]
        if self.experts_per_domain > 1:
            parts.append(f"{self.experts_per_domain} experts per domain")
        if self.gate not in (None, "domain"):
            parts.append(f"gate {self.gate}")
        parts += setting_texts(self.settings)
        return ", ".join((*parts, f"split {self.split}", f"seed {self.seed}"))


def setting_texts(settings: Mapping[str, Any]) -> list[str]:
    """Return each setting's name and value as text for people."""
    return [f"{name} {value_text(value)}" for name, value in settings.items()]


def value_text(value: Any) -> str:
    """Return a value as text for people, floats with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
