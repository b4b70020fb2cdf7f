"""The three phases: backbone on all domains, each expert on its own, the gate on all.

What a phase doesn't train is frozen bit for bit. Each stops early on its own metric, starts its counters
afresh, and keeps what it started from when it doesn't help: an expert then stays at zero, which changes no
score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import nn

from mmlora.errors import DataError, UsageError
from mmlora.models.builder import assemble_model, build_model
from mmlora.models.ctr import CTRModel, State
from mmlora.models.gate import SoftmaxGate
from mmlora.models.spec import ModelSpec
from mmlora.training.boosting import train_trees
from mmlora.training.checkpoint import Checkpoint, NoCheckpoint
from mmlora.training.crosses import fit_crosses, passes_over
from mmlora.training.deciding import Validation
from mmlora.training.epoch import RowNumbers, TrainingData
from mmlora.training.evidence import Gain, halves, scaled, weigh_expert
from mmlora.training.loop import Fit, TrainingOptions, fit, reproducible
from mmlora.training.observer import Observer, PhaseName, PhaseReport
from mmlora.training.rows import domains_of, of_domain

_BACKBONE, _EXPERT, _GATE, _JOINT, _CROSSES = 1, 2, 3, 4, 5  # first part of a phase's seed
_FURTHER = 1  # last part of the seed of an expert that is trained further: other rows come first than before


@dataclass(frozen=True)
class PhaseResult:
    """What a phase gives: a part's tensors, and how it went."""

    state: State
    report: PhaseReport


@dataclass(frozen=True)
class Expert:
    """One trained expert.

    Attributes:
        domain: its domain's index.
        slot: which of the domain's experts it is, from 0.
        state: its tensors.
    """

    domain: int
    slot: int
    state: State


def train_crosses(
    spec: ModelSpec,
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    checkpoint: Checkpoint | None = None,
    *,
    refit: bool = False,
) -> PhaseResult:
    """Phase 0: fit the cross terms on all domains, alone; nothing is chosen by validation rows.

    Args:
        spec: the model's, with cross terms.
        data: all domains' rows.
        options: seed, threads and device.
        observer: told of every pass.
        checkpoint: keeps every pass, to go on from after a stop; the caller clears it in the end.
        refit: whether all rows are for training, so that nothing can be measured.

    Raises:
        DataError: there are no training rows, or no validation rows.
    """
    rows, validation = _all_domains(data, refit=refit)
    run = _Run("crosses", None, 0, rows, validation, options, observer, checkpoint)
    with reproducible(options, _CROSSES) as generator:
        model = build_model(spec).to(options.torch_device)
        assert model.crosses is not None
        observer.phase_start("crosses", None, rows=len(rows), max_epochs=passes_over(len(rows)))
        progress = fit_crosses(
            model.crosses,
            data,
            rows,
            measure=None if refit else lambda: validation.measure(model),
            higher_is_better=validation.metric != "logloss",
            generator=generator,
            on_epoch=lambda record: observer.epoch("crosses", None, record),
            checkpoint=checkpoint or NoCheckpoint(),
        )
    last, history = progress.history[-1], tuple(progress.history)
    fit = Fit(progress.start_metric, last.metric, last.epoch, history, progress.seconds)
    report = run.report(fit)
    observer.phase_end(report)
    return PhaseResult(model.cross_state(), report)


def train_backbone(
    spec: ModelSpec,
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    checkpoint: Checkpoint | None = None,
    crosses: State | None = None,
    *,
    epochs: int | None = None,
) -> PhaseResult:
    """Phase 1: train all but cross terms, experts and gate on all domains; ``wauc`` decides.

    Args:
        spec: the model's.
        data: all domains' rows.
        options: how to train.
        observer: told of every epoch.
        checkpoint: keeps every epoch, to go on from after a stop; the caller clears it in the end.
        crosses: the state of phase 0, which stays as it is; None where the model has no cross terms.
        epochs: train for exactly so many, on data whose rows are all for training; stop early when None.

    Raises:
        DataError: there are no training rows, or no validation rows.
    """
    rows, validation = _all_domains(data, refit=epochs is not None)
    if spec.backbone == "gbdt":
        return train_trees(spec, data, options, observer, epochs=epochs)
    with reproducible(options, _BACKBONE) as generator:
        model = build_model(spec)
        if crosses is not None:
            model.load_crosses(crosses)
        model.to(options.torch_device)
        run = _Run("backbone", None, 0, rows, validation, options, observer, checkpoint, epochs)
        report = run.train(
            model, list(model.backbone_parameters()), options.learning_rate, generator, dropout=True
        )
    return PhaseResult(model.backbone_state(), report)


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
        spec: the model's.
        backbone: the state of phase 1, frozen here.
        data: all domains' rows; only this domain's are read.
        domain: the domain's index.
        slot: which of the domain's experts; each starts from other values.
        options: how to train.
        observer: told of every epoch.
        start: an expert to train further; a fresh one when None.
        checkpoint: as of the backbone.
        epochs: as of the backbone; 0 leaves the expert at zero.
        step: share of the trained step to take, as it was decided before; goes with ``epochs``.

    Raises:
        UsageError: the adaptation has no experts, or the domain isn't there.
    """
    rows = of_domain(data, data.rows("train"), domain)
    weighs = options.expert_confidence > 0 and epochs is None and start is None
    choosing, deciding = halves(of_domain(data, data.rows("validation"), domain))
    validation = Validation.choose(data, "auc", domain=domain, rows=choosing if weighs else None)
    # Alone, an expert counts in full for its domain, as in mlora; the gate's phase comes later.
    alone = replace(spec, adaptation="mlora") if spec.adaptation == "moe_mlora" else spec
    options = replace(options, batch_size=batch_size_for(options.batch_size, len(rows)))
    with reproducible(options, _EXPERT, domain, slot, *([_FURTHER] if start else [])) as generator:
        model = build_model(alone, expert_domains=[domain])
        model.load_backbone(backbone)
        if start is not None:
            model.load_expert(0, start)
        model.to(options.torch_device)
        run = _Run("expert", domain, slot, rows, validation, options, observer, checkpoint, epochs)
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
    """Say in an expert's report what rows that did not choose its epochs say of it."""
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
    """Return a batch that leaves a small domain's epoch enough steps: a hundred, or batches of 64 rows.

    For a phase that trains on one domain's rows. With the batch of all domains, patience would run out before
    what has a few thousand rows has moved.

    Args:
        batch_size: at most.
        rows: training rows of the domain.
    """
    return min(batch_size, max(64, rows // 100))


def train_gate(
    spec: ModelSpec,
    backbone: State,
    experts: Sequence[Expert],
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    checkpoint: Checkpoint | None = None,
    *,
    epochs: int | None = None,
) -> PhaseResult:
    """Phase 3: train the gate on all domains, backbone and experts frozen; ``wauc`` decides.

    What it starts from, and keeps when mixing doesn't help, is phase 2's model: each domain's own experts
    alone, and the backbone for a domain without. A gate that doesn't see the domain, or keeps fewer experts
    than a domain has, can't be that, which the report's note says. Nothing is dropped out: the gate learns to
    mix the experts as they will score. Domains without training rows are marked, and get the backbone alone.

    Raises:
        UsageError: the adaptation has no gate, or there are no experts to mix.
        DataError: there are no training rows, or no validation rows.
    """
    if spec.adaptation != "moe_mlora" or not experts:
        raise UsageError(
            f"adaptation {spec.adaptation} with {len(experts)} experts has no gate to train: "
            "use moe_mlora and train an expert first"
        )
    rows, validation = _all_domains(data, refit=epochs is not None)
    with reproducible(options, _GATE) as generator:
        model = assemble_model(
            spec, backbone=backbone, experts=[(expert.domain, expert.state) for expert in experts]
        )
        seen = torch.from_numpy(domains_of(data, rows))
        gates = [cast(SoftmaxGate, gate) for gate in model.gates]
        for gate in gates:
            gate.use_own_only(seen)

        def leave_start() -> None:
            for gate in gates:
                gate.start(seen)

        model.to(options.torch_device)
        validation = replace(validation, note="; ".join(filter(None, (validation.note, _other_start(spec)))))
        run = _Run("gate", None, 0, rows, validation, options, observer, checkpoint, epochs)
        report = run.train(
            model,
            list(model.gate_parameters()),
            options.gate_learning_rate,
            generator,
            dropout=False,
            balance=spec.balance,
            leave_start=leave_start,
            also_moved=[gate.present for gate in gates],
        )
    return PhaseResult(model.gate_state(), report)


def _other_start(spec: ModelSpec) -> str:
    """Say what a gate starts from that can't leave each domain to all of its own experts."""
    if spec.gate == "sample":
        return "it doesn't see the domain, so it started from all experts mixed equally"
    if spec.gate_top_k is not None and spec.gate_top_k < spec.experts_per_domain:
        return f"it started from {spec.gate_top_k} of each domain's {spec.experts_per_domain} experts"
    return ""


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
        spec: the model's.
        expert_domains: the domain index of each expert.
        data: the rows.
        options: how to train; every part has the backbone's learning rate.
        observer: told of every epoch.
        checkpoint: as of the backbone.
        crosses: as of the backbone.

    Returns:
        All of the model's tensors.

    Raises:
        UsageError: the adaptation has no experts.
        DataError: there are no training rows, or no validation rows.
    """
    rows, validation = _all_domains(data)
    with reproducible(options, _JOINT) as generator:
        model = build_model(spec, expert_domains=expert_domains)
        if crosses is not None:
            model.load_crosses(crosses)
        model.to(options.torch_device)
        run = _Run("joint", None, 0, rows, validation, options, observer, checkpoint)
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


@dataclass(frozen=True)
class _Run:
    """One phase from start to report."""

    phase: PhaseName
    domain: int | None
    slot: int
    rows: RowNumbers
    validation: Validation
    options: TrainingOptions
    observer: Observer
    checkpoint: Checkpoint | None = None
    epochs: int | None = None

    def train(
        self,
        model: CTRModel,
        parameters: list[nn.Parameter],
        learning_rate: float,
        generator: np.random.Generator,
        *,
        dropout: bool,
        balance: float = 0.0,
        leave_start: Callable[[], None] | None = None,
        also_moved: Sequence[torch.Tensor] = (),
    ) -> PhaseReport:
        """Train and report; without rows to train or decide on, leave the model as it is."""
        options, refit = self.options, self.epochs is not None
        if self.epochs is not None:
            options = replace(options, max_epochs=self.epochs or 1, patience=self.epochs + 1)
        self.observer.phase_start(self.phase, self.domain, rows=len(self.rows), max_epochs=options.max_epochs)
        result: Fit | None = None
        if len(self.rows) and (len(self.validation.rows) or refit) and self.epochs != 0:
            result = fit(
                model,
                parameters,
                self.data,
                self.rows,
                measure=None if refit else self.validation.measure,
                higher_is_better=self.validation.metric != "logloss",
                learning_rate=learning_rate,
                dropout=dropout,
                balance=balance,
                leave_start=leave_start,
                also_moved=also_moved,
                options=options,
                generator=generator,
                on_epoch=lambda record: self.observer.epoch(self.phase, self.domain, record),
                checkpoint=self.checkpoint,
            )
        report = self.report(result)
        self.observer.phase_end(report)
        return report

    @property
    def data(self) -> TrainingData:
        return self.validation.data

    def report(self, result: Fit | None) -> PhaseReport:
        """Sum up what came of it; None where there was nothing to train or decide on."""
        note = self.validation.note
        if result is None and self.epochs == 0:
            note = "it did not help, so it was not trained on all rows either"
        elif result is None:
            lacking = "training" if not len(self.rows) else "validation"
            note = f"no {lacking} rows: it was not trained"
        return PhaseReport(
            phase=self.phase,
            domain=self.domain,
            slot=self.slot,
            metric=self.validation.metric,
            start_metric=result.start_metric if result else None,
            best_metric=result.best_metric if result else None,
            best_epoch=result.best_epoch if result else 0,
            epochs=len(result.history) if result else 0,
            helped=bool(result and result.best_epoch),
            history=result.history if result else (),
            seconds=result.seconds if result else 0.0,
            rows=len(self.rows),
            note=note,
        )


def _all_domains(data: TrainingData, *, refit: bool = False) -> tuple[RowNumbers, Validation]:
    """Return the rows that a phase over all domains is trained on, and those that decide it by ``wauc``."""
    rows, validation = data.rows("train"), Validation.choose(data, "wauc", domain=None)
    for name, found in (("training", rows), ("validation", validation.rows)):
        if not len(found) and not (refit and found is validation.rows):
            raise DataError("training set", f"no {name} rows: choose other days, or another split")
    return rows, validation
