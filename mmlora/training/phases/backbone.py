"""Phase 1: the backbone on all domains; and the control that trains backbone, experts and gate at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmlora.models.builder import build_model
from mmlora.models.ctr import State
from mmlora.models.spec import ModelSpec
from mmlora.training.boosting import train_trees
from mmlora.training.checkpoint import Checkpoint
from mmlora.training.epoch import TrainingData
from mmlora.training.evidence import BackboneGain, weigh_backbone
from mmlora.training.loop import TrainingOptions, reproducible
from mmlora.training.observer import Observer, PhaseReport
from mmlora.training.phases.phase import BACKBONE_SEED, JOINT_SEED, Phase, PhaseResult, all_domains
from mmlora.training.warm import WarmStart


def train_backbone(
    spec: ModelSpec,
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    checkpoint: Checkpoint | None = None,
    crosses: State | None = None,
    *,
    epochs: int | None = None,
    warm: WarmStart | None = None,
) -> PhaseResult:
    """Phase 1: train everything except cross terms, experts and gate on all domains; ``wauc`` decides.

    Beside cross terms, which explain most of the labels already, more than one epoch overfits on rows of
    later days (seen on MovieLens and the made-up worlds). Training then stops after the first epoch without
    a gain, and its result is kept only if it gains more than noise: see :mod:`mmlora.training.evidence`.

    Args:
        spec: the model's specification.
        data: all domains' rows.
        options: how to train.
        observer: called after every epoch.
        checkpoint: saved after every epoch, to resume from; the caller clears it at the end.
        crosses: the state of phase 0, which is frozen; None if the model has no cross terms.
        epochs: train for exactly this many, on data whose rows are all for training; None stops early.
        warm: the weights to begin with, if its backbone was kept beside its cross terms; None for a cold
            start.

    Raises:
        DataError: there are no training rows, or no validation rows.
    """
    if spec.backbone == "gbdt":
        return train_trees(spec, data, options, observer, epochs=epochs)
    rows, validation = all_domains(data, refit=epochs is not None)
    with reproducible(options, BACKBONE_SEED) as generator:
        model = build_model(spec)
        if crosses is not None:
            model.load_crosses(crosses)
            options = replace(options, patience=1)
        silent = model.backbone_state() if crosses is not None and epochs is None else None
        carried = warm is not None and warm.tower_is_trained
        if warm is not None and carried:
            warm.carry_tower(model)
        model.to(options.torch_device)
        run = Phase("backbone", None, 0, rows, validation, options, observer, checkpoint, epochs)
        report = run.train(
            model, list(model.backbone_parameters()), options.learning_rate, generator, dropout=True
        )
        if silent is not None and (report.helped or carried):
            gain = weigh_backbone(model, silent, data, validation.rows, seed=options.seed)
            report = _weighed(report, gain)
            if carried and not gain.kept:
                report = replace(report, best_metric=validation.measure(model), step=0.0)
    return PhaseResult(model.backbone_state(), report)


def _weighed(report: PhaseReport, gain: BackboneGain) -> PhaseReport:
    report = replace(report, note="; ".join(filter(None, (report.note, str(gain)))), gain=gain.wauc)
    if gain.kept:
        return report
    return replace(report, helped=False, best_epoch=0, best_metric=report.start_metric)


def train_joint(
    spec: ModelSpec,
    expert_domains: Sequence[int],
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    checkpoint: Checkpoint | None = None,
    crosses: State | None = None,
) -> PhaseResult:
    """Train backbone, experts and gate together from scratch, on all domains: the control of the phases.

    ``wauc`` decides, as in the other phases over all domains.

    Args:
        spec: the model's specification.
        expert_domains: the domain index of each expert.
        data: the rows.
        options: how to train; all parts use the backbone's learning rate.
        observer: called after every epoch.
        checkpoint: as in :func:`train_backbone`.
        crosses: as in :func:`train_backbone`.

    Returns:
        All of the model's tensors.

    Raises:
        UsageError: the adaptation has no experts.
        DataError: there are no training rows, or no validation rows.
    """
    rows, validation = all_domains(data)
    with reproducible(options, JOINT_SEED) as generator:
        model = build_model(spec, expert_domains=expert_domains)
        if crosses is not None:
            model.load_crosses(crosses)
        model.to(options.torch_device)
        run = Phase("joint", None, 0, rows, validation, options, observer, checkpoint)
        parts = model.backbone_parameters(), model.expert_parameters(), model.gate_parameters()
        report = run.train(
            model,
            [parameter for part in parts for parameter in part],
            options.learning_rate,
            generator,
            dropout=True,
            balance=spec.balance,
        )
    return PhaseResult({name: value.cpu().clone() for name, value in model.state_dict().items()}, report)
