"""Exact rank AUC of many groups in one sort, and its means over domains and users.

    AUC = (pairs of a positive above a negative + half the pairs that tie) / (positives x negatives)

Twice the numerator is an integer and is counted as one, so that the AUC depends only on the rows, not on
their order or batches. Mann and Whitney (1947); gauc: Zhu et al., "Optimized Cost per Click in
Taobao Display Advertising" (2017), eq. 8, weighted by rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import DataError

Array = npt.NDArray[Any]


class Ranking:
    """Rows sorted by group and score, ready for counting pairs with any weights.

    Args:
        group: ``[N]``, group of each row: 0, 1, ... without gaps.
        score: ``[N]``, any values that order the rows.

    Raises:
        DataError: a score is NaN, so there is no order.
    """

    def __init__(self, group: Array, score: Array) -> None:
        score = np.asarray(score)
        if unordered := int(np.isnan(score).sum()):
            raise DataError("scores", f"{unordered:,} of {len(score):,} are NaN and can't be ranked")
        self._order = np.lexsort((score, group))
        g, s = np.asarray(group)[self._order], score[self._order]
        new_group = _changes(g)
        self._runs = np.flatnonzero(new_group | _changes(s))  # first row of each group and score
        self._groups = np.searchsorted(self._runs, np.flatnonzero(new_group))  # first run of each group

    def auc(self, positives: Array, negatives: Array) -> npt.NDArray[np.float64]:
        """Return the AUC of each group, NaN if a class is missing.

        Args:
            positives: ``[N]`` integers: number of positives that each row represents.
            negatives: ``[N]`` integers: number of negatives that each row represents.
        """
        if not len(self._runs):
            return np.zeros(0)
        above, below = self._by_run(positives), self._by_run(negatives)
        clicks, others = self._by_group(above), self._by_group(below)
        # For each run, twice the negatives before it plus those in it; in place, because arrays are large.
        beaten = np.cumsum(below)
        before_group = beaten[self._groups] - below[self._groups]
        beaten *= 2
        beaten -= below
        beaten *= above
        halves = self._by_group(beaten) - 2 * before_group * clicks
        pairs = clicks * others
        share = np.full(len(pairs), np.nan)
        np.divide(halves, 2 * pairs, out=share, where=pairs > 0)
        return share

    def _by_run(self, count: Array) -> Array:
        ordered = np.asarray(count, np.int64)[self._order]
        if len(self._runs) == len(ordered):
            return ordered
        return np.asarray(np.add.reduceat(ordered, self._runs))

    def _by_group(self, count: Array) -> Array:
        return np.asarray(np.add.reduceat(count, self._groups))


@dataclass(frozen=True)
class UserAuc:
    """Mean of users' AUCs.

    Attributes:
        gauc: weighted by the users' rows; None when no user has both classes.
        users: number of users with rows.
        left_out: number of users with one class of label, left out of ``gauc``.
    """

    gauc: float | None
    users: int
    left_out: int


def auc(label: Array, score: Array) -> float | None:
    """Return the area under the ROC curve, ties counted as half; None with one class.

    Args:
        label: 0/1, ``[N]``.
        score: any values that order the rows, ``[N]``.
    """
    return weighted_mean(_label_aucs(np.zeros(len(label), np.int64), label, score))


def wauc(label: Array, score: Array, domain: Array) -> float | None:
    """Return the mean of the domains' AUCs, weighted by rows; None when no domain has both classes."""
    _, group = np.unique(domain, return_inverse=True)
    return weighted_mean(_label_aucs(group, label, score), np.bincount(group))


def macro_auc(label: Array, score: Array, domain: Array) -> float | None:
    """Return the plain mean of the domains' AUCs; None when no domain has both classes."""
    _, group = np.unique(domain, return_inverse=True)
    return weighted_mean(_label_aucs(group, label, score))


def gauc(label: Array, score: Array, user: Array) -> UserAuc:
    """Return the mean of the users' AUCs, weighted by rows, and how many users were left out.

    Args:
        label: 0/1, ``[N]``.
        score: any values that order the rows of a user, ``[N]``.
        user: user ids, ``[N]``.
    """
    _, group = np.unique(user, return_inverse=True)
    aucs = _label_aucs(group, label, score)
    return UserAuc(weighted_mean(aucs, np.bincount(group)), len(aucs), int(np.isnan(aucs).sum()))


def weighted_mean(aucs: Array, weights: Array | None = None) -> float | None:
    """Return the mean of the AUCs that are defined (not NaN); None if none is."""
    kept = ~np.isnan(aucs)
    if not kept.any():
        return None
    return float(np.average(aucs[kept], weights=None if weights is None else weights[kept]))


def _label_aucs(group: Array, label: Array, score: Array) -> Array:
    positive = np.asarray(label) > 0
    return Ranking(group, score).auc(positive, ~positive)


def _changes(values: Array) -> npt.NDArray[np.bool_]:
    return np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]])
