"""Reliability curves: how often rows with similar probabilities were clicked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.metrics.probabilities import middle_bin
from mmlora.records import Record

Array = npt.NDArray[Any]
BINS = 10
LEAST_ROWS = 50
"""Rows per bin at least, where there are that many: the rates of fewer say nothing."""
_Z = 1.959964  # of a 95% interval


@dataclass(frozen=True)
class ReliabilityBin(Record):
    """Rows with similar probabilities.

    Attributes:
        rows: number of rows.
        score: their mean probability.
        rate: the share that was clicked.
        low: lower bound of the rate's 95% interval (Wilson, 1927).
        high: upper bound.
    """

    rows: int
    score: float
    rate: float
    low: float
    high: float


def reliability(label: Array, probability: Array, bins: int | None = None) -> tuple[ReliabilityBin, ...]:
    """Return bins of about equal size by ascending probability; equal probabilities share a bin.

    There are as many as leave each :data:`LEAST_ROWS` rows, and one at least.

    Args:
        label: 0/1, ``[N]``.
        probability: predicted click probabilities, ``[N]``.
        bins: number of bins; None for up to :data:`BINS`.
    """
    if not len(label):
        return ()
    bins = bins or max(1, min(BINS, len(label) // LEAST_ROWS))
    scores, entry = np.unique(np.asarray(probability, np.float64), return_inverse=True)
    rows, clicks = np.bincount(entry), np.bincount(entry, weights=np.asarray(label) > 0)
    place = middle_bin(np.cumsum(rows) - rows, rows, np.full(len(rows), len(label)), bins)
    totals = (np.bincount(place, weights=each) for each in (rows, rows * scores, clicks))
    return tuple(_bin(int(n), total / n, k / n) for n, total, k in zip(*totals, strict=True) if n)


def _bin(rows: int, score: float, rate: float) -> ReliabilityBin:
    spread = _Z * math.sqrt(rate * (1 - rate) / rows + (_Z / (2 * rows)) ** 2)
    centre, scale = rate + _Z**2 / (2 * rows), 1 + _Z**2 / rows
    return ReliabilityBin(
        rows, score, rate, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
    )
