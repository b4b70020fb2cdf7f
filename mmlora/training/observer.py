"""What a training phase reports while it runs, for progress bars and metric curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from mmlora.records import Record

PhaseName = Literal["crosses", "backbone", "expert", "gate", "joint"]
MetricName = Literal["wauc", "auc", "logloss"]


@dataclass(frozen=True)
class EpochRecord(Record):
    """One epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        train_loss: mean logloss over the epoch's training rows, including dropout and the gate's penalty.
        metric: the phase's metric on validation rows afterwards; None if there are none to choose by.
        rows_per_second: training rows per second, not counting validation.
    """

    epoch: int
    train_loss: float
    metric: float | None
    rows_per_second: float


@dataclass(frozen=True)
class PhaseReport(Record):
    """The outcome of one phase.

    Attributes:
        phase: ``crosses``, ``backbone``, ``expert`` or ``gate``; ``joint`` trains the last three at once.
        domain: the domain index of an expert; None for the phases over all domains.
        slot: which of the domain's experts it is.
        metric: the metric on validation rows that decided; higher is better, except for ``logloss``.
        start_metric: its value before the first epoch; None if it couldn't be measured.
        best_metric: its value for the weights that are kept.
        best_epoch: the epoch that gave these weights; 0 is the start.
        epochs: number of epochs run.
        helped: whether the phase improved on its start; if not, the start was kept.
        history: one record per epoch.
        seconds: wall-clock time.
        rows: training rows an epoch.
        note: what a reader must know, e.g. why another metric decided; empty as a rule.
        gain: of an expert, its auc over the backbone's on rows that did not choose its epochs, and the bounds
            of its interval; of cross terms, what the item history adds to their wauc; of the backbone, what
            it adds to the cross terms' wauc. None where that was not asked for or could not be measured.
        step: of an expert, the share of its trained step that was taken; 0 where it is not kept, as of a
            backbone that began warm.
    """

    phase: PhaseName
    domain: int | None
    slot: int
    metric: MetricName
    start_metric: float | None
    best_metric: float | None
    best_epoch: int
    epochs: int
    helped: bool
    history: tuple[EpochRecord, ...]
    seconds: float
    rows: int
    note: str = ""
    gain: tuple[float, float, float] | None = None
    step: float = 1.0


class Observer(Protocol):
    """Receives the progress of training."""

    def phase_start(self, phase: PhaseName, domain: int | None, *, rows: int, max_epochs: int) -> None:
        """Called when a phase begins, with its training rows per epoch and its maximum number of epochs."""

    def epoch(self, phase: PhaseName, domain: int | None, record: EpochRecord) -> None:
        """Called after an epoch is done and measured."""

    def phase_end(self, report: PhaseReport) -> None:
        """Called when a phase is over."""


class SilentObserver:
    """An observer that does nothing."""

    def phase_start(self, phase: PhaseName, domain: int | None, *, rows: int, max_epochs: int) -> None:
        """Do nothing."""

    def epoch(self, phase: PhaseName, domain: int | None, record: EpochRecord) -> None:
        """Do nothing."""

    def phase_end(self, report: PhaseReport) -> None:
        """Do nothing."""
