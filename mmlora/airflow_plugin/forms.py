"""The Params of the DAGs: what the trigger form of Airflow's UI asks for.

Null always means "as the settings have it", so a scheduled run, which nobody fills in, asks for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow.sdk import Param

from mmlora.names import (
    Adaptation,
    BackboneName,
    Device,
    FeatureGroup,
    GateInput,
    Overridable,
    Precision,
    SplitName,
    valid_names,
)


def _date(what: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        format="date",
        title="Date",
        description=f"{what} Left empty: the day (UTC) on which the run's data interval ends.",
    )


def _choice(title: str, values: Sequence[str], description: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *values],
        values_display={"null": "as in the settings"},
        title=title,
        description=description,
    )


def _number(title: str, description: str, *, kind: str = "integer", **limits: int) -> Param:
    description += " Left empty: as in the settings."
    return Param(None, type=["null", kind], title=title, description=description, **limits)


def _text(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], title=title, description=description)


TRAINING = {
    "date": _date("Train on what was known on this day at 00:00 UTC."),
    "backbone": _choice(
        "Backbone",
        valid_names(BackboneName),
        "The network that all domains share.",
    ),
    "adaptation": _choice("Adaptation", valid_names(Adaptation), "How a domain adapts the backbone."),
    "features": _choice("Features", valid_names(FeatureGroup), "The model's input."),
    "split": _choice(
        "Split",
        [name for name in valid_names(SplitName) if name != "file"],
        "How validation and test rows are held out.",
    ),
    "experts_per_domain": _number(
        "Experts a domain", "Low-rank experts that each rich domain trains.", minimum=1
    ),
    "rank": _number(
        "Rank",
        "Of an expert: a whole number, or a share of a layer's width.",
        kind="number",
        exclusiveMinimum=0,
    ),
    "alpha": _number("Alpha", "Weight of an expert: alpha / rank.", kind="number", exclusiveMinimum=0),
    "gate": _choice("Gate", valid_names(GateInput), "What the gate sees."),
    "gate_per_layer": Param(
        None,
        type=["null", "boolean"],
        title="Gate per layer",
        description="A gate for each layer, or one. Left alone: as in the settings.",
    ),
    "gate_top_k": _number("Gate top k", "Experts that a row keeps.", minimum=1),
    "balance": _number("Balance", "Penalty on unequally used experts.", kind="number", minimum=0),
    "seed": _number("Seed", "Seed of the initial weights, the split and the batches.", minimum=0),
    "device": _choice("Device", valid_names(Device), "Where to train; auto takes a GPU if any."),
    "precision": _choice("Precision", valid_names(Precision), "Of the forward pass in training."),
    "domain": _text("Domain", "Train this domain's experts only. Left empty: those of all rich domains."),
    "base": _text(
        "Base",
        "With a domain: the model version, or champion, that its experts are trained on and that stays as it "
        "is but for them. Left empty: a whole model.",
    ),
    "accept_below_baseline": Param(
        None,
        type=["null", "boolean"],
        title="Accept below baseline",
        description="Make the model the challenger even where it is below its best baseline. Left alone: no.",
    ),
    "tune_minutes": Param(
        None,
        type=["null", "number"],
        exclusiveMinimum=0,
        title="Tune",
        description="Minutes to try other settings on validation rows, from these on. Left empty: none.",
    ),
}
"""The form of ``training``."""

CHOICES = tuple(TRAINING.keys() - {"date", "accept_below_baseline", "tune_minutes"})
"""The names of ``TRAINING`` that are options of ``prepare``."""

NIGHTLY_SCORING = {
    "date": _date("Score for this day, from what was known at its 00:00 UTC."),
    "domains": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Domains",
        description="Score these only, one a line. Left empty: all.",
    ),
    "top_k": _number("Top k", "Rows kept a user; 0 keeps all.", minimum=0),
    "allow_stale": Param(
        None,
        type=["null", "boolean"],
        title="Allow stale",
        description="Score also a day that the data doesn't reach. Left alone: no.",
    ),
    "override": _choice("Override", valid_names(Overridable), "A check of loads that is not to stop one."),
    "reason": _text("Reason", "Why the check is overridden; it goes into the ledger."),
}
"""The form of ``nightly_scoring``."""

SCORE_OPTIONS = tuple(NIGHTLY_SCORING.keys() - {"date", "domains"})
"""The names of ``NIGHTLY_SCORING`` that are options of ``score``."""
