"""Results: metrics of one set of rows, and of the domains and all rows together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mmlora.metrics.probabilities import ECE_BINS
from mmlora.metrics.ranking import weighted_mean
from mmlora.records import Record


@dataclass(frozen=True)
class Metrics:
    """Metrics of one set of rows; None where a metric isn't defined.

    Attributes:
        rows: number of rows.
        positives: number of rows with label 1.
        auc: probability that a positive scores above a negative, ties counting half; None with one class.
        logloss: mean negative log likelihood, in nats; None without rows.
        ne: normalised entropy: logloss over that of always predicting the set's own CTR; None with one class.
        calibration: predicted clicks over clicks; None without clicks.
        ece: expected calibration error over ``DomainMetrics.ece_bins`` bins of equal mass; None without rows.
        gauc: mean of the users' AUCs weighted by their rows in this set; None when no user has both classes
            or users weren't given.
        users: number of users with rows; None if users weren't given.
        users_without_auc: number of users with one class, left out of ``gauc``; None if users weren't given.
    """

    rows: int
    positives: int
    auc: float | None
    logloss: float | None
    ne: float | None
    calibration: float | None
    ece: float | None = None
    gauc: float | None = None
    users: int | None = None
    users_without_auc: int | None = None


@dataclass(frozen=True)
class DomainMetrics(Record):
    """Metrics pooled and by domain.

    Attributes:
        pooled: over all rows.
        by_domain: by domain index (-1: absent at training), for domains with rows.
        wauc: mean of the domains' AUCs weighted by rows; None when no domain has one.
        without_auc: domains with one class, left out of ``wauc`` and ``macro_auc``.
        macro_auc: plain mean of the domains' AUCs; None when no domain has one.
        ece_bins: number of bins of every ``ece``.
    """

    pooled: Metrics
    by_domain: Mapping[int, Metrics]
    wauc: float | None
    without_auc: tuple[int, ...]
    macro_auc: float | None = None
    ece_bins: int = ECE_BINS

    @classmethod
    def of(cls, pooled: Metrics | None, by_domain: Mapping[int, Metrics]) -> DomainMetrics:
        """Return the metrics of all rows (None without rows) and of the domains, with the domains' means."""
        aucs = np.array([np.nan if m.auc is None else m.auc for m in by_domain.values()])
        return cls(
            pooled=pooled or Metrics(0, 0, None, None, None, None),
            by_domain=by_domain,
            wauc=weighted_mean(aucs, np.array([m.rows for m in by_domain.values()])),
            without_auc=tuple(name for name, metrics in by_domain.items() if metrics.auc is None),
            macro_auc=weighted_mean(aucs),
        )
