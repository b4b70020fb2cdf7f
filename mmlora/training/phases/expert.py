"""Phase 2: each expert on its own domain, all else frozen."""

from __future__ import annotations

from dataclasses import replace

from mmlora.models.builder import build_model
from mmlora.models.ctr import State
from mmlora.models.gate import FixedGate
from mmlora.models.spec import ModelSpec
from mmlora.training.checkpoint import Checkpoint
from mmlora.training.deciding import Validation
from mmlora.training.epoch import TrainingData
from mmlora.training.evidence import Gain, halves, scaled, weigh_expert
from mmlora.training.loop import TrainingOptions, reproducible
from mmlora.training.observer import Observer, PhaseReport
from mmlora.training.phases.phase import EXPERT_SEED, Phase, PhaseResult
from mmlora.training.rows import of_domain

_FURTHER = 1  # last part of the seed of an expert that is trained further, for a different order of rows


def train_expert(
    spec: ModelSpec,
    backbone: State,
    data: TrainingData,
    *,
    domain: int,
    slot: int = 0,
    options: TrainingOptions,
    observer: Observer,
    start: State | None = None,
    checkpoint: Checkpoint | None = None,
    epochs: int | None = None,
    step: float = 1.0,
) -> PhaseResult:
    """Phase 2, for one expert: train it alone on its domain's rows; that domain's ``auc`` decides.

    With ``expert_confidence`` above 0, half of the domain's validation rows choose the epoch, and the other
    half decides whether the gain is more than noise: see :mod:`mmlora.training.evidence`.

    Args:
        spec: the model's specification.
        backbone: the state of phase 1, frozen here.
        data: all domains' rows; only this domain's are read.
        domain: the domain's index; -1 for one that the backbone wasn't trained on, if it has all of the rows.
        slot: which of the domain's experts to train; each starts from different values.
        options: how to train.
        observer: called after every epoch.
        start: an expert to train further; None starts a new one.
        checkpoint: saved after every epoch, to resume from; the caller clears it at the end.
        epochs: train for exactly this many, on data whose rows are all for training; None stops early, and 0
            leaves the expert at zero.
        step: with ``epochs``, the share of the trained step to take, as decided before.

    Raises:
        UsageError: the adaptation has no experts, or the domain does not exist.
    """
    rows = of_domain(data, data.rows("train"), domain)
    weighs = options.expert_confidence > 0 and epochs is None and start is None
    choosing, deciding = halves(of_domain(data, data.rows("validation"), domain))
    validation = Validation.choose(data, "auc", domain=domain, rows=choosing if weighs else None)
    # On its own, an expert has full weight for its domain, as in mlora; the gate's phase comes later.
    alone = replace(spec, adaptation="mlora") if spec.adaptation == "moe_mlora" else spec
    options = replace(options, batch_size=batch_size_for(options.batch_size, len(rows)))
    absent = domain < 0
    index = data.num_domains if absent else domain
    with reproducible(options, EXPERT_SEED, index, slot, *([_FURTHER] if start else [])) as generator:
        model = build_model(alone, expert_domains=[0 if absent else domain])
        if absent:
            model.gate = FixedGate([1.0])
        model.load_backbone(backbone)
        if start is not None:
            model.load_expert(0, start)
        model.rest()
        model.to(options.torch_device)
        run = Phase("expert", domain, slot, rows, validation, options, observer, checkpoint, epochs)
        report = run.train(
            model,
            list(model.expert_parameters()),
            options.expert_learning_rate,
            generator,
            dropout=True,
        )
        if step != 1:
            model.load_expert(0, scaled(model.expert_state(0), step))
        if weighs and report.helped:
            gain = weigh_expert(
                model, data, deciding, confidence=options.expert_confidence, seed=options.seed
            )
            report = _weighed(report, gain)
    return PhaseResult(model.expert_state(0), report)


def _weighed(report: PhaseReport, gain: Gain) -> PhaseReport:
    """Return an expert's report with its gain on rows that did not choose its epochs."""
    bounds = gain.auc, gain.low, gain.high
    note = "; ".join(filter(None, (report.note, str(gain))))
    kept = gain.step > 0
    return replace(
        report,
        helped=kept,
        best_epoch=report.best_epoch if kept else 0,
        best_metric=report.best_metric if kept else report.start_metric,
        note=note,
        gain=None if None in bounds else bounds,  # type: ignore[arg-type]
        step=gain.step,
    )


def batch_size_for(batch_size: int, rows: int) -> int:
    """Return a batch size that gives a small domain enough steps per epoch: a hundred, or batches of 64 rows.

    For a phase that trains on one domain's rows. With the batch size for all domains, patience would run out
    before a domain of a few thousand rows had learned anything.

    Args:
        batch_size: the maximum.
        rows: number of training rows of the domain.
    """
    return min(batch_size, max(64, rows // 100))
