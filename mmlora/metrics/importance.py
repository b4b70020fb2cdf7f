"""Permutation importance: how much AUC is lost when a feature's values are exchanged between rows.

Breiman, "Random Forests" (2001), sec. 10. An interval covers both kinds of chance: which rows were held out
(a paired bootstrap, see :mod:`mmlora.metrics.bootstrap`), and which permutations were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.metrics.bootstrap import Interval

Array = npt.NDArray[Any]
_Z = 1.959964  # of a 95% interval


def permutation_within(group: Array, random: np.random.Generator) -> Array:
    """Return row numbers in which each group's rows are permuted among themselves, ``[N]``."""
    shuffled = np.lexsort((random.random(len(group)), group))
    order = np.argsort(group, kind="stable")
    out = np.empty(len(group), np.int64)
    out[order] = shuffled
    return out


def combined(losses: Sequence[Interval]) -> Interval:
    """Return the mean loss over permutations, with a 95% interval.

    Args:
        losses: for each permutation the loss with its bootstrap interval; those without a value are ignored.

    The variance is that of the rows (the mean of the bootstrap variances) plus that of the permutations over
    their number.
    """
    known = [
        (x.value, x.low, x.high)
        for x in losses
        if x.value is not None and x.low is not None and x.high is not None
    ]
    if not known:
        return Interval(None, None, None, 0)
    values = np.array([value for value, _, _ in known])
    of_rows = float(np.mean([((high - low) / (2 * _Z)) ** 2 for _, low, high in known]))
    of_permutations = float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
    mean, half = float(values.mean()), _Z * math.sqrt(of_rows + of_permutations)
    return Interval(mean, mean - half, mean + half, sum(x.draws for x in losses))
