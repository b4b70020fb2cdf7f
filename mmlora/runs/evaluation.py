"""Records of the step ``evaluate``: the metrics of a run's models on the test rows, by domain name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmlora.metrics import DomainMetrics, Metrics
from mmlora.records import Record


@dataclass(frozen=True)
class PhaseMetrics(Record):
    """Test metrics of one phase's model.

    Attributes:
        wauc: mean of the domains' AUCs weighted by rows; None when no domain has one.
        macro_auc: plain mean of them.
        pooled: over all rows.
        by_domain: of the domains that have rows.
        without_auc: the domains with one class of label, left out of ``wauc`` and ``macro_auc``.
    """

    wauc: float | None
    macro_auc: float | None
    pooled: Metrics
    by_domain: Mapping[str, Metrics]
    without_auc: tuple[str, ...]

    @classmethod
    def of(cls, metrics: DomainMetrics, names: Sequence[str]) -> PhaseMetrics:
        """Return metrics with domain names instead of indices."""
        by_domain = {names[index]: figures for index, figures in metrics.by_domain.items()}
        without_auc = tuple(names[index] for index in metrics.without_auc)
        return cls(metrics.wauc, metrics.macro_auc, metrics.pooled, by_domain, without_auc)


@dataclass(frozen=True)
class RunEvaluation(Record):
    """A run's evaluation.

    Attributes:
        metrics: by phase, in the order of training; on a base ``before`` and ``after``.
        calibration: part of the calibration in the registry.
    """

    metrics: Mapping[str, PhaseMetrics]
    calibration: str
