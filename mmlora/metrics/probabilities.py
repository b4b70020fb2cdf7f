"""Quality of the probabilities themselves: log loss and expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ECE_BINS = 20
"""Number of bins of the expected calibration error, with about the same number of rows each."""

_TINY = 1e-12


def logloss(label: Array, probability: Array) -> float | None:
    """Return the mean negative log likelihood in nats; None without rows."""
    if not len(label):
        return None
    positive = np.asarray(label) > 0
    return float(np.mean(losses(positive, ~positive, probability)))


def ece(label: Array, probability: Array, bins: int = ECE_BINS) -> float | None:
    """Return the expected calibration error over bins of equal mass; None without rows.

        ECE = sum over bins of rows / N x |mean label - mean probability|

    Rows with the same probability are always in the same bin, the one that contains their middle, so bins may
    differ in size if there are many ties. With few rows per bin the error is mostly chance: compare sets of
    similar size.

    Args:
        label: 0/1, ``[N]``.
        probability: predicted click probabilities, ``[N]``.
        bins: number of bins.
    """
    if not len(label):
        return None
    scores, entry = np.unique(np.asarray(probability, np.float64), return_inverse=True)
    rows, clicks = np.bincount(entry), np.bincount(entry, weights=np.asarray(label) > 0)
    return float(grouped_ece(np.zeros(len(rows), np.int64), scores, rows, clicks, bins)[0])


def losses(positives: Array, negatives: Array, probability: Array) -> npt.NDArray[np.float64]:
    """Return the negative log likelihood, in nats, of entries given as counts of labels."""
    p = np.clip(np.asarray(probability, np.float64), _TINY, 1 - _TINY)
    return np.asarray(-(positives * np.log(p) + negatives * np.log1p(-p)))


def grouped_ece(group: Array, probability: Array, rows: Array, positives: Array, bins: int) -> Array:
    """Return the ECE of each group from its distinct probabilities.

    Args:
        group: ``[K]``, sorted: 0, 1, ... without gaps.
        probability: ``[K]``, sorted and distinct within each group.
        rows: ``[K]`` integers: number of rows with that group and probability.
        positives: ``[K]``: number of these that are positive.
        bins: number of bins.
    """
    if not len(group):
        return np.zeros(0)
    size = np.add.reduceat(rows, np.flatnonzero(np.diff(group, prepend=-1)))
    before = np.cumsum(rows) - rows - (np.cumsum(size) - size)[group]
    bin_of = group * bins + middle_bin(before, rows, size[group], bins)
    gap = np.bincount(bin_of, weights=positives - rows * probability, minlength=len(size) * bins)
    return np.asarray(np.abs(gap).reshape(-1, bins).sum(1) / size)


def middle_bin(before: Array, rows: Array, size: Array, bins: int) -> Array:
    """Return the bin of the middle of ``rows`` rows after ``before`` others in a group of ``size``."""
    # In integers, so that no row's bin depends on rounding: floor(bins x (before + rows / 2) / size).
    return np.asarray((2 * before + rows) * bins // (2 * size))
