"""Bootstrap intervals of the difference of two models' AUCs and log loss on the same rows.

Rows are drawn with replacement within each domain, so each keeps its size. Both models are measured on the
same draws (paired), so whatever is hard for both in a draw cancels out. Intervals are percentiles of the
draws. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13. Rows are treated as
independent: if a user's rows are correlated, the true uncertainty is larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import UsageError
from mmlora.metrics.probabilities import losses
from mmlora.metrics.ranking import Ranking
from mmlora.metrics.sums import check_predictions
from mmlora.records import Record

Array = npt.NDArray[Any]
_POOLED = ("wauc", "macro_auc", "auc", "logloss")


@dataclass(frozen=True)
class Interval:
    """A value and its interval.

    Attributes:
        value: value on the original rows; None if it isn't defined, and then so are the bounds.
        low: lower bound.
        high: upper bound.
        draws: draws in which it is defined; fewer than requested if some draws have no clicks.
    """

    value: float | None
    low: float | None
    high: float | None
    draws: int


@dataclass(frozen=True)
class Intervals(Record):
    """Intervals of the difference candidate - baseline, pooled and by domain.

    Attributes:
        wauc: mean of the domains' AUCs weighted by rows, over the domains that have one in the draw.
        macro_auc: unweighted mean of these AUCs.
        auc: AUC over all rows.
        logloss: log loss over all rows.
        by_domain: AUC by domain index, for domains with rows.
        level: share of draws between the bounds.
    """

    wauc: Interval
    macro_auc: Interval
    auc: Interval
    logloss: Interval
    by_domain: Mapping[int, Interval]
    level: float


def compare(
    label: Array,
    candidate: Array,
    baseline: Array,
    domain: Array,
    *,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Intervals:
    """Return the intervals of the differences candidate - baseline, both on the same draws.

    Args:
        label: 0/1, ``[N]``.
        candidate: click probabilities of one model, ``[N]``.
        baseline: click probabilities of the other model on the same rows, ``[N]``.
        domain: domain indices, ``[N]``.
        draws: bootstrap draws.
        level: share of draws between the bounds, in (0, 1).
        seed: seed of the draws.

    Raises:
        DataError: labels or probabilities are invalid.
        UsageError: ``draws`` or ``level`` is out of range.
    """
    return compare_all(label, candidate, {"": baseline}, domain, draws=draws, level=level, seed=seed)[""]


def compare_all(
    label: Array,
    candidate: Array,
    baselines: Mapping[str, Array],
    domain: Array,
    *,
    draws: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Intervals]:
    """Return the results of :func:`compare` for several baselines by name, all on the same draws."""
    models = [candidate, *baselines.values()]
    if draws < 2 or not 0 < level < 1:
        raise UsageError(f"draws={draws}, level={level}: draws must be 2 or more, level between 0 and 1")
    if not baselines:
        return {}
    for probability in models:
        check_predictions(np.asarray(label), np.asarray(probability), domain)
    order = np.argsort(domain, kind="stable")
    domains, group, size = np.unique(np.asarray(domain)[order], return_inverse=True, return_counts=True)
    positive = np.asarray(label)[order] > 0
    sides = [_Model(group, size, positive, np.asarray(p, np.float64)[order]) for p in models]

    def measure(weight: Array) -> Array:
        first, *others = (side.measure(weight) for side in sides)
        return np.stack([first - other for other in others])

    observed = measure(np.ones(len(group), np.int64))
    random = np.random.default_rng(seed)
    drawn = np.stack([measure(_draw(random, group, size)) for _ in range(draws)])
    return {name: _gathered(observed[n], drawn[:, n], domains, level) for n, name in enumerate(baselines)}


def _gathered(observed: Array, drawn: Array, domains: Array, level: float) -> Intervals:
    """Return the intervals from the observed and drawn figures, ``[4 + D]`` and ``[draws, 4 + D]``."""
    found = [_interval(value, drawn[:, i], level) for i, value in enumerate(observed)]
    by_domain = {int(domain): each for domain, each in zip(domains, found[len(_POOLED) :], strict=True)}
    wauc, macro_auc, auc, logloss = found[: len(_POOLED)]
    return Intervals(wauc, macro_auc, auc, logloss, by_domain, level)


class _Model:
    """One model's scores, sorted once, so that they can be measured with the weights of any draw."""

    def __init__(self, group: Array, size: Array, positive: Array, probability: Array) -> None:
        self._size, self._positive = size, positive
        self._own = Ranking(group, probability)
        self._pooled = Ranking(np.zeros_like(group), probability)
        self._loss = losses(positive, ~positive, probability)

    def measure(self, weight: Array) -> Array:
        """Return ``_POOLED``, then the AUC of each domain, NaN if not defined: ``[4 + D]``."""
        positives = weight * self._positive
        negatives = weight - positives
        aucs, pooled = self._own.auc(positives, negatives), self._pooled.auc(positives, negatives)
        kept = ~np.isnan(aucs)
        head = np.full(len(_POOLED), np.nan)
        if kept.any():
            head[:2] = np.average(aucs[kept], weights=self._size[kept]), aucs[kept].mean()
        if len(weight):
            head[2:] = pooled[0], weight @ self._loss / len(weight)
        return np.concatenate([head, aucs])


def _draw(random: np.random.Generator, group: Array, size: Array) -> Array:
    """Return how often each row is drawn; rows are sorted by group."""
    first = np.cumsum(size) - size
    row = first[group] + (random.random(len(group)) * size[group]).astype(np.int64)
    return np.bincount(row, minlength=len(group))


def _interval(value: float, drawn: Array, level: float) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return Interval(None, None, None, 0)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), len(drawn))
