"""The arms of an experiment: what each is, how pages name and draw it, and which comparison answers what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """How an arm is told and drawn.

    Attributes:
        name: as in the grid.
        what: what it is, in a clause.
        colour: CSS class of its colour: one a family of arms.
        shape: marker; controls are hollow.
        hollow: whether it is drawn so.
    """

    name: str
    what: str
    colour: str
    shape: str
    hollow: bool = False


@dataclass(frozen=True)
class Question:
    """A comparison that means something.

    Attributes:
        candidate: arm.
        baseline: the arm it is compared to.
        asks: what the difference answers.
    """

    candidate: str
    baseline: str
    asks: str


ARMS = {
    arm.name: arm
    for arm in (
        Arm("pooled", "one model for all domains, which it isn't told", "grey", "circle", True),
        Arm("pooled_domain", "one model for all domains, the domain among its features", "grey", "circle"),
        Arm("separate", "one model a domain, trained on that domain's rows alone", "purple", "square"),
        Arm("mlora", "shared backbone and one low-rank adapter a domain", "blue", "circle"),
        Arm(
            "mlora_matched",
            "`mlora` given as many restarts and steps as `moe_mlora` gets: what is left is not the budget's",
            "blue",
            "square",
            True,
        ),
        Arm(
            "moe_mlora", "shared backbone, low-rank experts of every domain, mixed by a gate", "red", "circle"
        ),
        Arm(
            "placebo_mlora",
            "`mlora` with the adapting domains shuffled over rows: what adapters give that know no domain",
            "blue",
            "triangle",
            True,
        ),
        Arm(
            "placebo_moe_mlora",
            "`moe_mlora` with the adapting domains shuffled over rows: what more parameters give by "
            "themselves",
            "red",
            "triangle",
            True,
        ),
        Arm("uniform_gate", "`moe_mlora` with every expert weighted alike", "orange", "square", True),
        Arm("random_gate", "`moe_mlora` with random gate weights, never trained", "orange", "diamond", True),
        Arm(
            "joint",
            "`moe_mlora` with all parameters trained together from scratch: no phases, and one budget of "
            "epochs where the phases have three",
            "green",
            "diamond",
        ),
    )
}

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

BASELINES = ("pooled_domain", "pooled")


def arm_of(name: str) -> Arm:
    """Return the arm of a name; one that isn't known is drawn in ink, and described by its name."""
    return ARMS.get(name, Arm(name, "an arm of this experiment", "ink", "diamond"))


def rank_of(name: str) -> tuple[int, str]:
    """Return where an arm stands in tables and legends."""
    return (list(ARMS).index(name) if name in ARMS else len(ARMS), name)
