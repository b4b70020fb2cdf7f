"""Exact AUCs in the memory of one number a row, which may lie in a file: sorted in place, then read once.

Ranking with :mod:`mmlora.metrics.ranking` weighs rows as it likes but takes many times that. Here a row is
one whole number of 64 bits (group, score, label) that sorts as these do, and counts carry over from block to
block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import DataError
from mmlora.metrics.ranking import weighted_mean

Array = npt.NDArray[Any]
Packed = npt.NDArray[np.uint64]

_BLOCK = 1 << 18
_GROUP_BITS = np.uint64(33)  # a score of 32 bits and a label stand below the group
_ONE = np.uint64(1)


def pack(label: Array, score: Array, group: Array) -> Packed:
    """Return rows as numbers that sort by group, then score, then label: ``[N]``.

    Args:
        label: 0/1, ``[N]``.
        score: float32, ``[N]``.
        group: 0 to 2**31 - 1, ``[N]``.

    Raises:
        DataError: a score is NaN, so that there is no order.
    """
    score = np.asarray(score, np.float32) + np.float32(0)  # 0 and -0 are equal, and become so in bits
    if unordered := int(np.isnan(score).sum()):
        raise DataError("scores", f"{unordered:,} of {len(score):,} are NaN and can't be ranked")
    bits = score.view(np.uint32)
    # The bits of floats sort as whole numbers do once negative ones are turned round and put below.
    negative = bits >> np.uint32(31)
    ordered = bits ^ (negative * np.uint32(0x7FFFFFFF) | np.uint32(0x80000000))
    number = ordered.astype(np.uint64) << _ONE | (np.asarray(label) > 0).astype(np.uint64)
    return number | np.asarray(group).astype(np.uint64) << _GROUP_BITS


def packed_wauc(packed: Packed, *, block: int = _BLOCK) -> float | None:
    """Return the mean of the groups' AUCs weighted by rows, as ``wauc`` does; None where no group has both.

    Args:
        packed: rows of :func:`pack`, in any order; sorted in place.
        block: rows read at a time.
    """
    packed.sort()
    counts: dict[int, list[int]] = {}  # group -> twice the pairs won, positives, negatives
    below = beaten = base = 0  # negatives so far: of all rows, before this score, before this group
    last = None
    for start in range(0, len(packed), block):
        rows = packed[start : start + block]
        positive = (rows & _ONE).astype(np.int64)
        group, run = rows >> _GROUP_BITS, rows >> _ONE
        upto = below + np.cumsum(1 - positive)
        before = upto - (1 - positive)
        new_run, new_group = _starts(run, last), _starts(group, None if last is None else last >> 32)
        # What holds at the first row of a score or group holds on: counts only grow, so the maximum does.
        lower = np.maximum.accumulate(np.where(new_run, before, beaten))
        first = np.maximum.accumulate(np.where(new_group, before, base))
        # Of one score, negatives come first: a positive beats those below it, and ties with the rest.
        won = positive * (upto + lower - 2 * first)
        edges = np.flatnonzero(new_group | (np.arange(len(rows)) == 0))
        sums = (np.add.reduceat(values, edges).tolist() for values in (won, positive, 1 - positive))
        for name, *found in zip(group[edges].tolist(), *sums, strict=True):
            counts[name] = [a + b for a, b in zip(counts.get(name, [0, 0, 0]), found, strict=True)]
        below, beaten, base, last = int(upto[-1]), int(lower[-1]), int(first[-1]), int(run[-1])
    aucs = [won / (2 * p * n) if p and n else np.nan for won, p, n in counts.values()]
    return weighted_mean(np.array(aucs), np.array([p + n for _, p, n in counts.values()]))


def _starts(values: Packed, last: int | None) -> npt.NDArray[np.bool_]:
    """Mark rows that differ from the row before; ``last`` is the one before the first."""
    new = np.empty(len(values), bool)
    new[0] = last is None or int(values[0]) != last
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new
