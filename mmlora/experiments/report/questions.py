"""Which comparison of arms answers what."""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.experiments.arms import ArmName


@dataclass(frozen=True)
class Question:
    """A comparison that means something.

    Attributes:
        candidate: arm.
        baseline: the arm it is compared to.
        asks: what the difference answers.
    """

    candidate: ArmName
    baseline: ArmName
    asks: str


QUESTIONS = (
    Question("pooled_domain", "pooled", "does the domain help as a plain feature?"),
    Question("separate", "pooled_domain", "would one model a domain do better?"),
    Question("mlora", "pooled_domain", "does one adapter a domain help?"),
    Question("moe_mlora", "pooled_domain", "do mixed experts help?"),
    Question("moe_mlora", "mlora", "do mixed experts beat a single adapter?"),
    Question("moe_mlora", "mlora_matched", "do they still, when the adapter has the same budget?"),
    Question("mlora", "placebo_mlora", "is it knowing the domain that helps the adapter?"),
    Question("moe_mlora", "placebo_moe_mlora", "is it knowing the domain that helps the experts?"),
    Question("moe_mlora", "uniform_gate", "is a trained gate better than equal weights?"),
    Question("moe_mlora", "random_gate", "is a trained gate better than random weights?"),
    Question("moe_mlora", "joint", "are phases better than training all at once?"),
)

BASELINES: tuple[ArmName, ...] = ("pooled_domain", "pooled")
