"""``Sums``: the counts from which every metric is computed; they add up across batches without loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import DataError, UsageError
from mmlora.metrics.probabilities import ECE_BINS, grouped_ece, losses
from mmlora.metrics.ranking import Ranking, UserAuc, weighted_mean
from mmlora.metrics.report import DomainMetrics, Metrics

Array = npt.NDArray[Any]


def domain_metrics(
    label: Array, probability: Array, domain: Array, user: Array | None = None
) -> DomainMetrics:
    """Return all metrics, pooled and by domain; the same as ``Sums.of(...).metrics()``.

    Args:
        label: 0/1, ``[N]``.
        probability: predicted click probabilities, ``[N]``.
        domain: domain indices, ``[N]``.
        user: user ids, ``[N]``; if given, ``gauc`` is computed.

    Raises:
        DataError: see ``Sums.of``.
    """
    return Sums.of(label, probability, domain, user).metrics()


@dataclass(frozen=True, eq=False)
class Sums:
    """Rows and positives by distinct domain, user and probability, sorted, so equal rows give equal sums.

    It takes at most 40 bytes per row. For many batches, keep the sums of each and merge them all at the end.

    Attributes:
        domain: ``[K]``, domain indices.
        user: ``[K]``, user ids; None if users weren't given.
        probability: ``[K]``, float64.
        rows: ``[K]``, number of rows with that domain, user and probability.
        positives: ``[K]``, number of these with label 1.
    """

    domain: Array
    user: Array | None
    probability: Array
    rows: Array
    positives: Array

    @classmethod
    def of(cls, label: Array, probability: Array, domain: Array, user: Array | None = None) -> Sums:
        """Return the sums of a batch.

        Args:
            label: 0/1, ``[N]``.
            probability: predicted click probabilities, ``[N]``.
            domain: domain indices, ``[N]``.
            user: user ids, ``[N]``, or None.

        Raises:
            DataError: lengths differ, a label is neither 0 nor 1, or a probability is NaN or outside [0, 1].
        """
        label, p = np.asarray(label), np.asarray(probability, np.float64)
        check_predictions(label, p, domain, user)
        ones, positives = np.ones(len(p), np.int64), (label > 0).astype(np.int64)
        return _counted(np.asarray(domain), None if user is None else np.asarray(user), p, ones, positives)

    @classmethod
    def merge(cls, parts: Iterable[Sums]) -> Sums:
        """Return the sums of all parts together, in one sort.

        Raises:
            UsageError: some parts have users and some don't.
        """
        full = [part for part in parts if len(part.rows)]
        if not full:
            return cls.of(np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
        users = [part.user for part in full if part.user is not None]
        if len(users) not in (0, len(full)):
            raise UsageError(
                f"{len(users)} of {len(full)} sums have users: give users to all of them or to none"
            )
        return _counted(
            np.concatenate([part.domain for part in full]),
            np.concatenate(users) if users else None,
            np.concatenate([part.probability for part in full]),
            np.concatenate([part.rows for part in full]),
            np.concatenate([part.positives for part in full]),
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums.merge((self, other))

    def metrics(self) -> DomainMetrics:
        """Return all metrics, pooled and by domain."""
        names, domain = np.unique(self.domain, return_inverse=True)
        each = self._by_group(domain)
        by_domain = {int(name): metrics for name, metrics in zip(names, each, strict=True)}
        pooled = self._by_group(np.zeros_like(domain))
        return DomainMetrics.of(pooled[0] if pooled else None, by_domain)

    def _by_group(self, group: Array) -> list[Metrics]:
        """Return the metrics of groups 0, 1, ..., given the group of each entry."""
        entry = _counted(group, None, self.probability, self.rows, self.positives)
        g, negatives = entry.domain, entry.rows - entry.positives
        aucs = Ranking(g, entry.probability).auc(entry.positives, negatives)
        eces = grouped_ece(g, entry.probability, entry.rows, entry.positives, ECE_BINS)
        loss = losses(entry.positives, negatives, entry.probability)
        rows, clicks, predicted, lost = (
            np.bincount(g, weights=values)
            for values in (entry.rows, entry.positives, entry.rows * entry.probability, loss)
        )
        users = self._user_aucs(group, len(rows))
        return [
            ratios(int(rows[i]), int(clicks[i]), predicted[i], lost[i], aucs[i], eces[i], users[i])
            for i in range(len(rows))
        ]

    def _user_aucs(self, group: Array, groups: int) -> list[UserAuc | None]:
        if self.user is None:
            return [None] * groups
        names, user = np.unique(self.user, return_inverse=True)
        pairs, pair = np.unique(group * len(names) + user, return_inverse=True)
        aucs = Ranking(pair, self.probability).auc(self.positives, self.rows - self.positives)
        rows, edges = np.bincount(pair, weights=self.rows), np.arange(1, groups) * len(names)
        cuts = np.searchsorted(pairs, edges)  # pairs are sorted by group
        return [
            UserAuc(weighted_mean(own, size), len(own), int(np.isnan(own).sum()))
            for own, size in zip(np.split(aucs, cuts), np.split(rows, cuts), strict=True)
        ]


def _counted(domain: Array, user: Array | None, probability: Array, rows: Array, positives: Array) -> Sums:
    """Add up the entries with the same domain, user and probability, and sort."""
    keys = [domain, probability]
    if user is not None:  # as codes, because ids of any type can't be sorted with numbers
        names, code = np.unique(user, return_inverse=True)
        keys.insert(1, code)
    order = np.lexsort(keys[::-1])
    new = np.arange(len(order)) == 0
    for key in keys:
        ordered = key[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    first = np.flatnonzero(new)
    kept = order[first]
    counts = [np.add.reduceat(c[order], first) if len(first) else c[order] for c in (rows, positives)]
    return Sums(domain[kept], None if user is None else names[code[kept]], probability[kept], *counts)


def ratios(
    rows: int, positives: int, predicted: float, loss: float, area: float, ece: float, users: UserAuc | None
) -> Metrics:
    """Compute the ratios from the sums of a nonempty set of rows."""
    ctr = positives / rows
    entropy = -(ctr * np.log(ctr) + (1 - ctr) * np.log1p(-ctr)) if 0 < positives < rows else None
    return Metrics(
        rows=rows,
        positives=positives,
        auc=None if np.isnan(area) else float(area),
        logloss=float(loss / rows),
        ne=None if entropy is None else float(loss / rows / entropy),
        calibration=float(predicted / positives) if positives else None,
        ece=float(ece),
        gauc=users.gauc if users else None,
        users=users.users if users else None,
        users_without_auc=users.left_out if users else None,
    )


def check_predictions(label: Array, probability: Array, domain: Array, user: Array | None = None) -> None:
    """Raise a ``DataError`` unless lengths agree, labels are 0 or 1 and probabilities in [0, 1]."""
    lengths = {
        "labels": len(label),
        "probabilities": len(probability),
        "domains": len(domain),
        "users": len(label) if user is None else len(user),
    }
    if len(set(lengths.values())) > 1:
        raise DataError("predictions", f"the arrays must have the same length, but have {lengths}")
    if wrong := int(((label != 0) & (label != 1)).sum()):
        raise DataError("predictions", f"{wrong:,} of {len(label):,} labels are neither 0 nor 1")
    if wrong := int((~((probability >= 0) & (probability <= 1))).sum()):
        raise DataError("predictions", f"{wrong:,} of {len(label):,} probabilities are NaN or outside [0, 1]")
