"""The comparisons of arms, and the question that each answers."""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.experiments.arms import ArmName


@dataclass(frozen=True)
class Question:
    """A comparison of two arms.

    Attributes:
        candidate: the arm.
        baseline: the arm that it is compared with.
        asks: the question that the difference answers.
    """

    candidate: ArmName
    baseline: ArmName
    asks: str


QUESTIONS = (
    Question("pooled_domain", "pooled", "does the domain help as a plain feature?"),
    Question("separate", "pooled_domain", "would one model per domain do better?"),
    Question("mlora", "pooled_domain", "does one adapter per domain help?"),
    Question("moe_mlora", "pooled_domain", "do mixed experts help?"),
    Question("moe_mlora", "mlora", "do mixed experts beat a single adapter?"),
    Question("moe_mlora", "mlora_matched", "do they still if the adapter has the same budget?"),
    Question("mlora", "placebo_mlora", "does the adapter help because it knows the domain?"),
    Question("moe_mlora", "placebo_moe_mlora", "do the experts help because they know the domain?"),
    Question("moe_mlora", "uniform_gate", "is a trained gate better than equal weights?"),
    Question("moe_mlora", "random_gate", "is a trained gate better than random weights?"),
    Question("moe_mlora", "joint", "are phases better than training all parameters at once?"),
)

BASELINES: tuple[ArmName, ...] = ("pooled_domain", "pooled")
