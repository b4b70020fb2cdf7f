"""Metrics of click probabilities: pooled and by domain. Pure numpy, float64.

Sums first, ratios last. AUC is exact, ties counted as half. ``wauc`` is the mean of the domains' AUCs
weighted by rows; a domain with one class of label has no AUC and is left out of it, and listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_TINY = 1e-12


@dataclass(frozen=True)
class Metrics:
    """Metrics of one set of rows; None where it isn't defined.

    Attributes:
        rows: rows.
        positives: rows of label 1.
        auc: chance that a positive scores above a negative, ties half; None with one class.
        logloss: mean negative log likelihood, in nats; None without rows.
        ne: normalised entropy: logloss over that of always predicting the set's own CTR; None with one class.
        calibration: predicted clicks over clicks; None without clicks.
    """

    rows: int
    positives: int
    auc: float | None
    logloss: float | None
    ne: float | None
    calibration: float | None


@dataclass(frozen=True)
class DomainMetrics:
    """Metrics pooled and by domain.

    Attributes:
        pooled: over all rows.
        by_domain: by domain index (-1: absent at training), of the domains that have rows.
        wauc: mean of the domains' AUCs weighted by rows; None when no domain has one.
        without_auc: domains with one class, left out of ``wauc``.
    """

    pooled: Metrics
    by_domain: Mapping[int, Metrics]
    wauc: float | None
    without_auc: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "pooled": asdict(self.pooled),
            "by_domain": {str(domain): asdict(metrics) for domain, metrics in self.by_domain.items()},
            "wauc": self.wauc,
            "without_auc": list(self.without_auc),
        }


def auc(label: Array, score: Array) -> float | None:
    """Return the area under the ROC curve, ties counted as half; None with one class.

    Args:
        label: 0/1, ``[N]``.
        score: any values that order the rows, ``[N]``.
    """
    return _auc_by_group(np.zeros(len(label), np.int64), label, score, 1)[0]


def wauc(label: Array, score: Array, domain: Array) -> float | None:
    """Return the mean of the domains' AUCs, weighted by rows; None when no domain has both classes."""
    _, group = np.unique(domain, return_inverse=True)
    size = np.bincount(group)
    return _weighted(_auc_by_group(group, label, score, len(size)), size)


def logloss(label: Array, probability: Array) -> float | None:
    """Return the mean negative log likelihood in nats; None without rows."""
    if not len(label):
        return None
    return float(np.mean(_losses(label, probability)))


def domain_metrics(label: Array, probability: Array, domain: Array) -> DomainMetrics:
    """Return all metrics, pooled and by domain.

    Args:
        label: 0/1, ``[N]``.
        probability: predicted click probabilities, ``[N]``.
        domain: domain indices, ``[N]``.
    """
    names, group = np.unique(domain, return_inverse=True)
    rows = np.bincount(group, minlength=len(names))
    sums = np.stack(
        [
            np.bincount(group, weights=values, minlength=len(names))
            for values in (label, probability, _losses(label, probability))
        ]
    )  # [3, domains]: clicks, predicted clicks, loss
    aucs = _auc_by_group(group, label, probability, len(names))
    by_domain = {int(name): _ratios(int(rows[i]), sums[:, i], aucs[i]) for i, name in enumerate(names)}
    pooled = _ratios(len(label), sums.sum(1), auc(label, probability))
    without = tuple(name for name, metrics in by_domain.items() if metrics.auc is None)
    return DomainMetrics(pooled, by_domain, _weighted(aucs, rows), without)


def _ratios(rows: int, sums: Array, area: float | None) -> Metrics:
    clicks, predicted, loss = sums
    mean_loss = loss / rows if rows else None
    entropy = 0.0
    if 0 < clicks < rows:
        ctr = clicks / rows
        entropy = -(ctr * np.log(ctr) + (1 - ctr) * np.log1p(-ctr))
    return Metrics(
        rows=rows,
        positives=round(clicks),
        auc=area,
        logloss=None if mean_loss is None else float(mean_loss),
        ne=float(mean_loss / entropy) if mean_loss is not None and entropy else None,
        calibration=float(predicted / clicks) if clicks else None,
    )


def _losses(label: Array, probability: Array) -> Array:
    p = np.clip(np.asarray(probability, np.float64), _TINY, 1 - _TINY)
    return -np.where(np.asarray(label) > 0, np.log(p), np.log1p(-p))


def _weighted(aucs: list[float | None], rows: Array) -> float | None:
    kept = [(area, n) for area, n in zip(aucs, rows, strict=True) if area is not None]
    return float(np.average([a for a, _ in kept], weights=[n for _, n in kept])) if kept else None


def _auc_by_group(group: Array, label: Array, score: Array, groups: int) -> list[float | None]:
    """AUC of each group by ranks (Mann-Whitney), all groups in one sort."""
    order = np.lexsort((score, group))
    g, y, s = group[order], np.asarray(label)[order] > 0, np.asarray(score)[order]
    if not len(g):
        return [None] * groups
    # Rows of one group and one score share the mean of their ranks.
    new = np.flatnonzero(np.concatenate([[True], (g[1:] != g[:-1]) | (s[1:] != s[:-1])]))
    ends = np.append(new[1:], len(g))
    rank = np.repeat((new + 1 + ends) / 2.0, ends - new)
    size = np.bincount(g, minlength=groups)
    start = np.cumsum(size) - size
    clicks = np.bincount(g, weights=y, minlength=groups)
    rank_sum = np.bincount(g, weights=np.where(y, rank - start[g], 0.0), minlength=groups)
    pairs = clicks * (size - clicks)
    above = rank_sum - clicks * (clicks + 1) / 2
    return [float(a / p) if p else None for a, p in zip(above, pairs, strict=True)]
