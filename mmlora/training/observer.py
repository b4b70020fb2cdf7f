"""What a training phase tells while it runs: the pipeline shows bars and logs curves with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

PhaseName = Literal["crosses", "backbone", "expert", "gate", "joint"]
MetricName = Literal["wauc", "auc", "logloss"]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: from 1.
        train_loss: mean logloss over the epoch's training rows, dropout and the gate's penalty included.
        metric: the phase's metric on validation afterwards; None where nothing was chosen by it.
        rows_per_second: training rows a second, validation not counted.
    """

    epoch: int
    train_loss: float
    metric: float | None
    rows_per_second: float


@dataclass(frozen=True)
class PhaseReport:
    """The outcome of one phase.

    Attributes:
        phase: ``crosses``, ``backbone``, ``expert`` or ``gate``; ``joint`` trains the last three at once.
        domain: the domain index of an expert; None for the phases over all domains.
        slot: which of the domain's experts it is.
        metric: what decided, on validation rows; higher is better, but for ``logloss``.
        start_metric: its value before the first epoch; None when it couldn't be measured.
        best_metric: its value for the weights that are kept.
        best_epoch: the epoch that gave them; 0 is the start.
        epochs: epochs run.
        helped: whether the phase is better than what it started from; if not, the start was kept.
        history: one record an epoch.
        seconds: wall-clock time.
        rows: training rows an epoch.
        note: what a reader must know, e.g. why another metric decided; empty as a rule.
        gain: of an expert, its auc over the backbone's on rows that did not choose its epochs, and the bounds
            of its interval; of cross terms, what the item history adds to their wauc; of the backbone, what
            it adds to the cross terms' wauc. None where that was not asked for or could not be measured.
        step: of an expert, the share of its trained step that was taken; 0 where it is not kept.
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

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        raw = asdict(self)
        return {**raw, "history": list(raw["history"])}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> PhaseReport:
        """Read back what :meth:`to_dict` gave."""
        history = tuple(EpochRecord(**record) for record in raw["history"])
        gain = tuple(raw["gain"]) if raw.get("gain") else None
        return cls(**{**raw, "history": history, "gain": gain})


class Observer(Protocol):
    """Who wants to know how training goes."""

    def phase_start(self, phase: PhaseName, domain: int | None, *, rows: int, max_epochs: int) -> None:
        """A phase begins: ``rows`` training rows an epoch, ``max_epochs`` at most."""

    def epoch(self, phase: PhaseName, domain: int | None, record: EpochRecord) -> None:
        """An epoch is done and measured."""

    def phase_end(self, report: PhaseReport) -> None:
        """The phase is over."""


class SilentObserver:
    """An observer that does nothing."""

    def phase_start(self, phase: PhaseName, domain: int | None, *, rows: int, max_epochs: int) -> None:
        """Do nothing."""

    def epoch(self, phase: PhaseName, domain: int | None, record: EpochRecord) -> None:
        """Do nothing."""

    def phase_end(self, report: PhaseReport) -> None:
        """Do nothing."""
