"""Bootstrap intervals of the difference of two models' AUCs and log loss on the same rows.

Rows are drawn with replacement within each domain, so each keeps its size. Both models are measured on the
same draws (paired), so whatever is hard for both in a draw cancels out. Intervals are percentiles of the
draws. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13. Rows are treated as
independent: if a user's rows are correlated, the true uncertainty is larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    if draws < 2 or not 0 < level < 1:
        raise UsageError(f"draws={draws}, level={level}: draws must be 2 or more, level between 0 and 1")
    if not baselines:
        return {}
    paired = _Paired(label, [candidate, *baselines.values()], domain)
    observed = paired.measure(np.ones(len(paired.group), np.int64))
    random = np.random.default_rng(seed)
    drawn = np.stack([paired.measure(_draw(random, paired.group, paired.size)) for _ in range(draws)])
    return {
        name: _gathered(observed[n], drawn[:, n], paired.domains, level) for n, name in enumerate(baselines)
    }


@dataclass(frozen=True)
class Difference:
    """A difference of two models' AUCs on the same rows.

    Attributes:
        value: the difference; None if it isn't defined.
        error: its standard error; None if it isn't defined.
    """

    value: float | None
    error: float | None


def differences(
    label: Array,
    candidate: Array,
    baseline: Array,
    domain: Array,
    user: Array,
    *,
    draws: int = 400,
    seed: int = 0,
) -> tuple[Difference, dict[int, Difference]]:
    """Return the difference of wauc, and that of each domain's AUC, with standard errors.

    Users are drawn with replacement, each with all of their rows, so that rows of a user may be correlated.
    A standard error serves an interval of any level, whose percentiles would take many more draws.

    Args:
        label: 0/1, ``[N]``.
        candidate: click probabilities of one model, ``[N]``.
        baseline: click probabilities of the other model on the same rows, ``[N]``.
        domain: domain indices, ``[N]``.
        user: user codes, ``[N]``.
        draws: bootstrap draws.
        seed: seed of the draws.

    Raises:
        DataError: labels or probabilities are invalid.
    """
    paired = _Paired(label, [candidate, baseline], domain)
    users, code = np.unique(np.asarray(user)[paired.order], return_inverse=True)
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        times = np.bincount(random.integers(0, len(users), len(users)), minlength=len(users))
        drawn.append(paired.measure(times[code])[0])
    observed = paired.measure(np.ones(len(code), np.int64))[0]
    found = [_with_error(value, values) for value, values in zip(observed, np.stack(drawn).T, strict=True)]
    by_domain = zip(paired.domains.tolist(), found[len(_POOLED) :], strict=True)
    return found[_POOLED.index("wauc")], dict(by_domain)


def _with_error(value: float, drawn: Array) -> Difference:
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(drawn) < 2:
        return Difference(None, None)
    return Difference(float(value), float(drawn.std(ddof=1)))


class _Paired:
    """Several models' scores of the same rows, ordered by domain, to be measured with any weights."""

    def __init__(self, label: Array, models: Sequence[Array], domain: Array) -> None:
        for probability in models:
            check_predictions(np.asarray(label), np.asarray(probability), domain)
        self.order = np.argsort(domain, kind="stable")
        self.domains, self.group, self.size = np.unique(
            np.asarray(domain)[self.order], return_inverse=True, return_counts=True
        )
        positive = np.asarray(label)[self.order] > 0
        self._models = [
            _Model(self.group, self.size, positive, np.asarray(p, np.float64)[self.order]) for p in models
        ]

    def measure(self, weight: Array) -> Array:
        """Return the first model's figures minus those of each other, ``[M - 1, 4 + D]``."""
        first, *others = (model.measure(weight) for model in self._models)
        return np.stack([first - other for other in others])


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
