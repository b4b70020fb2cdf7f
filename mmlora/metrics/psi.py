"""Population stability index of two samples that were counted in the same bins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def psi(before: Counts, after: Counts) -> float | None:
    """Return the index beyond chance: 0 if the two may be samples of one population.

    PSI = sum over bins of (q - p) ln(q / p), with shares p and q smoothed by half a row per bin. For two
    samples of one population of n and m rows in B bins it is about (1/n + 1/m) times a chi-squared variable
    of B - 1 degrees; its mean and three standard deviations are subtracted.

    Args:
        before: rows in each bin, ``[B]``.
        after: likewise of the other sample, ``[B]``.

    Returns:
        The index; None if one of the samples is empty.
    """
    n, m, bins = int(before.sum()), int(after.sum()), len(before)
    if not n or not m:
        return None
    p = (before + 0.5) / (n + 0.5 * bins)
    q = (after + 0.5) / (m + 0.5 * bins)
    chance = (bins - 1 + 3 * np.sqrt(2 * (bins - 1))) * (1 / n + 1 / m)
    return max(0.0, float(((q - p) * np.log(q / p)).sum() - chance))


def cuts(values: npt.NDArray[np.floating], bins: int = 10) -> npt.NDArray[np.float64]:
    """Return the distinct quantiles that divide values into up to ``bins`` bins, ``[<= bins - 1]``."""
    return np.unique(np.quantile(values.astype(np.float64), np.arange(1, bins) / bins))


def count(values: npt.NDArray[np.floating], edges: npt.NDArray[np.float64]) -> Counts:
    """Count values in the bins between edges; the first and last are open: ``[len(edges) + 1]``."""
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).astype(
        np.int64
    )
