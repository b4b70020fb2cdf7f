"""Records of the result of ``mmlora train``; ``--json`` prints their JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmlora.judgement import Judgement
from mmlora.names import Alias
from mmlora.records import Record
from mmlora.runs.evaluation import PhaseMetrics
from mmlora.runs.exchange import ExchangeReport
from mmlora.runs.tuning_record import TuningRecord

if TYPE_CHECKING:
    from mmlora.training.observer import PhaseReport


@dataclass(frozen=True)
class PhaseRow(Record):
    """The result of a phase.

    Attributes:
        phase: ``crosses``, ``backbone``, ``expert`` or ``gate``.
        domain: an expert's domain; ``all`` for the other phases.
        metric: the deciding metric, on validation rows.
        start: its value before the first epoch.
        best: its value for the weights that are kept.
        epochs: number of epochs.
        helped: whether the result is better than the start.
        seconds: wall-clock time.
    """

    phase: str
    domain: str
    metric: str
    start: float | None
    best: float | None
    epochs: int
    helped: bool
    seconds: int

    @classmethod
    def of(cls, report: PhaseReport, domain: str) -> PhaseRow:
        """Return the row of a phase's report."""
        return cls(
            phase=report.phase,
            domain=domain,
            metric=report.metric,
            start=report.start_metric,
            best=report.best_metric,
            epochs=report.epochs,
            helped=report.helped,
            seconds=round(report.seconds),
        )


@dataclass(frozen=True)
class TestRow(Record):
    """A domain's test rows, and the AUC of each phase on them.

    Attributes:
        domain: the domain, or ``all (wauc)``.
        rows: number of test rows; None for a domain that the last phase did not measure.
        auc: by phase; wauc for all domains.
    """

    domain: str
    rows: int | None
    auc: Mapping[str, float | None]

    def to_json(self) -> dict[str, object]:
        """Return a flat JSON-serialisable mapping."""
        return {"domain": self.domain, "rows": self.rows, **self.auc}


@dataclass(frozen=True)
class TrainingSummary(Record):
    """The outcome of a training run.

    Attributes:
        run_id: the run.
        phases: the results of the phases.
        metrics: test metrics by phase; empty before the run is evaluated.
        judgement: the comparison with baselines; None before the model is judged.
        tuning: the record of the trials; None without tuning.
        model_version: the registered bundle; None before it is registered.
        alias: champion or challenger; None for neither.
        exchange: the effects of experts trained on a base; None without a base.
        start: the version that the run began with; None for a cold start.
    """

    run_id: str
    phases: tuple[PhaseRow, ...] = ()
    metrics: Mapping[str, PhaseMetrics] = field(default_factory=dict)
    judgement: Judgement | None = None
    tuning: TuningRecord | None = None
    model_version: str | None = None
    alias: Alias | None = None
    exchange: ExchangeReport | None = None
    start: str | None = None

    @property
    def test(self) -> tuple[TestRow, ...]:
        """One row per domain, sorted, and a last row for all domains."""
        if not self.metrics:
            return ()
        last = list(self.metrics.values())[-1]
        domains = sorted({domain for phase in self.metrics.values() for domain in phase.by_domain})
        rows = [TestRow(domain, _rows(last, domain), self._aucs(domain)) for domain in domains]
        wauc = {phase: metrics.wauc for phase, metrics in self.metrics.items()}
        return (*rows, TestRow("all (wauc)", last.pooled.rows, wauc))

    def _aucs(self, domain: str) -> dict[str, float | None]:
        measured = {phase: metrics.by_domain.get(domain) for phase, metrics in self.metrics.items()}
        return {phase: figures.auc if figures else None for phase, figures in measured.items()}

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable mapping, without a missing version or exchange."""
        raw = super().to_json()
        registered = {name: raw[name] for name in ("model_version", "alias") if self.model_version}
        return {
            "run_id": self.run_id,
            "start": self.start,
            "phases": raw["phases"],
            "test": [row.to_json() for row in self.test],
            **{name: raw[name] for name in ("metrics", "judgement", "tuning")},
            **registered,
            **({"exchange": raw["exchange"]} if self.exchange else {}),
        }


def _rows(metrics: PhaseMetrics, domain: str) -> int | None:
    figures = metrics.by_domain.get(domain)
    return figures.rows if figures else None
