"""The training settings, each declared once; whatever names, limits or describes them derives from here.

``mmlora.toml``, the options of ``mmlora train``, the training DAG's form, the model's specification, the
options of the training loop, the keys of a run's steps, the spaces of tuning and the table in the
documentation are derived from these declarations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from mmlora.hyperparameters.search import Choices, Plus, Range, Times
from mmlora.hyperparameters.setting import Bounds, Declared, Setting, TrainedPart, declared
from mmlora.names import Adaptation, BackboneName, Device, FeatureGroup, GateInput, Precision, SplitName

_DATA: tuple[TrainedPart, ...] = ("data",)
_EVERY_FIT: tuple[TrainedPart, ...] = ("backbone",)
"""Read by the training of backbone, experts and gate alike."""
_FROM_1, _FROM_0, _ABOVE_0 = Bounds(ge=1), Bounds(ge=0), Bounds(gt=0)


@dataclass(frozen=True, kw_only=True)
class ModelAndRows:
    """Which model is trained, and on which rows."""

    backbone: Annotated[
        BackboneName, Setting("the network that all domains share", ("backbone",), offered=True)
    ] = "wdl"
    adaptation: Annotated[
        Adaptation, Setting("how a domain adapts the backbone", ("gate",), offered=True)
    ] = "moe_mlora"
    features: Annotated[FeatureGroup, Setting("the model's input", ("data", "crosses"), offered=True)] = "all"
    split: Annotated[SplitName, Setting("how validation and test rows are held out", _DATA, offered=True)] = (
        "time"
    )
    split_file: Annotated[
        Path | None,
        Setting(
            "for the split `file`: user_id, item_id, event_timestamp, split",
            _DATA,
            offered=True,
            example="FILE",
        ),
    ] = None
    split_fractions: Annotated[
        tuple[float, float, float] | None,
        Setting(
            "fractions of train, validation and test; by default 60/20/20 for `random`, otherwise 80/10/10",
            _DATA,
            example=(0.8, 0.1, 0.1),
        ),
    ] = None
    min_count: Annotated[
        int,
        _FROM_1,
        Setting(
            "a value with fewer training rows than this is out of vocabulary", _DATA, tuned=Times(3, turn=4)
        ),
    ] = 1
    label_maturity_hours: Annotated[
        float, _FROM_0, Setting("minimum age of a label, in hours, for it to be trained on", _DATA)
    ] = 0.0
    window_days: Annotated[
        int | None,
        _FROM_1,
        Setting("train on this many last days only; on all by default", _DATA, example=30),
    ] = None
    negatives_per_row: Annotated[
        float,
        _FROM_1,
        Setting(
            "non-clicks that each one in the data stands for, if only a sample of them was kept",
            ("refit",),
            late=True,
        ),
    ] = 1.0
    id_dropout: Annotated[
        bool,
        Setting("treat ids as unknown in training as often as they are in validation rows", ("crosses",)),
    ] = True
    item_history: Annotated[
        bool,
        Setting("score items by the user's earlier items, if that gains on validation rows", _DATA),
    ] = True
    start: Annotated[
        str,
        Setting(
            "begin at random (`cold`), or with the weights of the champion (`warm`) or of a model version",
            ("crosses",),
            offered=True,
            valid="cold, warm or a model version",
            pattern=r"cold|warm|\d{8}-[0-9a-f]{8}",
            late=True,
        ),
    ] = "cold"
    refit: Annotated[
        bool,
        Setting("finally train on all rows, for as many epochs as the judged model", ("refit",)),
    ] = True


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What determines a model's parameters besides its backbone, adaptation, inputs and domains."""

    crosses: Annotated[
        bool, Setting("products of all fields with learned priors, beside the backbone", ("crosses",))
    ] = True
    embedding_dim: Annotated[
        int,
        _FROM_1,
        Setting("width of every field's embedding", ("backbone",), tuned=Times(2, turn=5, least=4)),
    ] = 16
    hidden_units: Annotated[
        tuple[Annotated[int, _FROM_1], ...],
        Setting(
            "widths of the tower's layers",
            ("backbone",),
            valid="one or more widths of 1 or more",
            tuned=Times(2, turn=6, least=8),
        ),
    ] = (256, 128, 64)
    dropout: Annotated[
        float,
        Bounds(ge=0, lt=1),
        Setting(
            "share of hidden units dropped in training",
            ("backbone",),
            tuned=Plus(0.2, turn=2, least=0.0, most=0.8),
            # Settings of the backbone have few values, so that most trials find their backbone trained
            # already.
            space=Choices((0.0, 0.2, 0.5)),
        ),
    ] = 0.2
    rank: Annotated[
        Annotated[int, _FROM_1] | Annotated[float, Bounds(gt=0, lt=1)],
        Setting(
            "rank of an expert: a whole number, or a share of each layer's width in (0, 1)",
            ("expert",),
            offered=True,
            valid="a whole number from 1, or a share of a layer's width in (0, 1)",
            tuned=Times(2, turn=8, most=0.5),
            space=Choices((2, 4, 8, 16)),
        ),
    ] = 8
    alpha: Annotated[
        float,
        _ABOVE_0,
        Setting(
            "scale of an expert: alpha / rank", ("expert",), offered=True, space=Range(1.0, 32.0, log=True)
        ),
    ] = 8.0
    experts_per_domain: Annotated[
        int,
        _FROM_1,
        Setting("experts that each rich domain trains", ("gate",), offered=True, space=Choices((1, 2, 3))),
    ] = 1
    gate: Annotated[GateInput, Setting("the gate's input", ("gate",), offered=True)] = "domain"
    gate_per_layer: Annotated[
        bool,
        Setting(
            "one gate per layer, or one for all",
            ("gate",),
            offered=True,
            switch="--gate-per-layer/--one-gate",
        ),
    ] = False
    gate_top_k: Annotated[
        int | None,
        _FROM_1,
        Setting("experts kept per row; all by default", ("gate",), offered=True, example=1),
    ] = None
    balance: Annotated[
        float, _FROM_0, Setting("weight of the penalty on unequal use of experts", ("gate",), offered=True)
    ] = 0.0


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How the parameters are trained, and where."""

    batch_size: Annotated[int, _FROM_1, Setting("rows per batch, at most", _EVERY_FIT)] = 2048
    learning_rate: Annotated[
        float,
        _ABOVE_0,
        Setting(
            "Adam's learning rate for the backbone",
            ("backbone",),
            tuned=Times(2.5, turn=1),
            space=Choices((3e-4, 1e-3, 3e-3)),
        ),
    ] = 1e-3
    weight_decay: Annotated[
        float,
        _FROM_0,
        Setting(
            "L2 penalty on everything that a phase trains",
            _EVERY_FIT,
            tuned=Times(10, turn=3, from_zero=1e-6),
            space=Choices((0.0, 1e-5, 1e-4)),
        ),
    ] = 0.0
    label_smoothing: Annotated[
        float,
        Bounds(ge=0, lt=0.5),
        Setting("share s: the loss uses y (1 - s) + s / 2 for a label y", _EVERY_FIT, late=True),
    ] = 0.0
    expert_learning_rate: Annotated[
        float,
        _ABOVE_0,
        Setting(
            "Adam's learning rate for an expert",
            ("expert",),
            tuned=Times(2.5, turn=7),
            space=Range(3e-4, 3e-2, log=True),
        ),
    ] = 3e-3
    expert_confidence: Annotated[
        float,
        Bounds(ge=0, lt=1),
        Setting(
            "confidence in an expert's gain required to keep it; 0 keeps all that look better on validation",
            ("expert",),
        ),
    ] = 0.95
    gate_learning_rate: Annotated[
        float,
        _ABOVE_0,
        Setting("Adam's learning rate for the gate", ("gate",), space=Range(1e-3, 1e-1, log=True)),
    ] = 1e-2
    max_epochs: Annotated[int, _FROM_1, Setting("maximum number of epochs per phase", _EVERY_FIT)] = 20
    patience: Annotated[
        int, _FROM_1, Setting("epochs without a better metric before stopping", _EVERY_FIT)
    ] = 3
    seed: Annotated[
        int,
        _FROM_0,
        Setting("seed of the split, the initial weights and the batches", ("data", "crosses"), offered=True),
    ] = 0
    device: Annotated[
        Device,
        Setting("where to train; `auto` is cuda if there is a GPU", ("machine",), offered=True),
    ] = "auto"
    threads: Annotated[
        int | None, _FROM_1, Setting("torch threads; all cores by default", ("machine",), example=1)
    ] = None
    precision: Annotated[
        Precision, Setting("precision of the forward pass in training", _EVERY_FIT, offered=True)
    ] = "float32"


@dataclass(frozen=True, kw_only=True)
class Hyperparameters(Optimisation, ModelShape, ModelAndRows):
    """All training settings."""


SETTINGS: Mapping[str, Declared] = declared(Hyperparameters)
"""Every training setting by name: its type and default, and what it means."""

OFFERED: tuple[str, ...] = tuple(name for name, one in SETTINGS.items() if one.setting.offered)
"""The settings that the command line and the DAG's form offer."""


def read_by(*parts: TrainedPart) -> tuple[str, ...]:
    """Return the names of the settings that any of these steps read."""
    return tuple(name for name, one in SETTINGS.items() if not set(parts).isdisjoint(one.setting.read_by))


_Value = TypeVar("_Value")


def as_kept(values: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return the values as keys and records store them: without late settings that have their default."""
    return {
        name: value
        for name, value in values.items()
        if not (name in SETTINGS and SETTINGS[name].setting.late and value == SETTINGS[name].default)
    }
