"""What all phases share: start, report, and which weights are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from mmlora.errors import DataError
from mmlora.models.ctr import CTRModel, State
from mmlora.training.checkpoint import Checkpoint
from mmlora.training.deciding import Validation
from mmlora.training.epoch import RowNumbers, TrainingData
from mmlora.training.loop import Fit, TrainingOptions, fit
from mmlora.training.observer import Observer, PhaseName, PhaseReport

# First part of a phase's seed.
BACKBONE_SEED, EXPERT_SEED, GATE_SEED, JOINT_SEED, CROSSES_SEED = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class PhaseResult:
    """The outcome of a phase: the trained part's tensors, and the report."""

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


@dataclass(frozen=True)
class Phase:
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
    useless: str = ""
    """Why training can't change any score; usually empty."""

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
        """Train and report; without rows to train or decide on, leave the model unchanged."""
        options, refit = self.options, self.epochs is not None
        if self.epochs is not None:
            options = replace(options, max_epochs=self.epochs or 1, patience=self.epochs + 1)
        self.observer.phase_start(self.phase, self.domain, rows=len(self.rows), max_epochs=options.max_epochs)
        result: Fit | None = None
        if len(self.rows) and (len(self.validation.rows) or refit) and not self._idle:
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
        """All rows."""
        return self.validation.data

    @property
    def _idle(self) -> str:
        """Return why the phase is not trained, whatever the rows; empty if it is."""
        if self.epochs == 0:
            return "it did not help, so it was not trained on all rows either"
        return self.useless

    def report(self, result: Fit | None) -> PhaseReport:
        """Summarise the outcome; ``result`` is None if there was nothing to train or decide on."""
        note = self.validation.note
        if result is None and self._idle:
            note = self._idle
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


def all_domains(data: TrainingData, *, refit: bool = False) -> tuple[RowNumbers, Validation]:
    """Return a phase's training rows, of all domains, and the validation that decides it by ``wauc``."""
    rows, validation = data.rows("train"), Validation.choose(data, "wauc", domain=None)
    for name, found in (("training", rows), ("validation", validation.rows)):
        if not len(found) and not (refit and found is validation.rows):
            raise DataError("training set", f"there are no {name} rows: choose other days, or another split")
    return rows, validation
