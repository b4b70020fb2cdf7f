"""Exact metrics in the memory of a block of rows: the rows are in a file, sorted in place.

A row is one number that sorts by group, then score, then label; counts carry over from block to block.
:mod:`mmlora.metrics.ranking` and ``Sums`` can weight and merge rows, but take many times that memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import DataError
from mmlora.metrics.probabilities import ECE_BINS, losses, middle_bin
from mmlora.metrics.ranking import UserAuc, weighted_mean
from mmlora.metrics.report import Metrics
from mmlora.metrics.sums import check_predictions, ratios

Array = npt.NDArray[Any]
Packed = npt.NDArray[np.uint64]
PackedPairs = npt.NDArray[np.complex128]
Columns = tuple[Array, ...]

_BLOCK = 1 << 16
_GROUP_BITS = np.uint64(33)  # the lower bits are a 32-bit score and a label
_USER_BITS = 32
_ONE = np.uint64(1)


def pack(label: Array, score: Array, group: Array) -> Packed:
    """Return rows as numbers that sort by group, then score, then label: ``[N]``.

    Args:
        label: 0/1, ``[N]``.
        score: float32, ``[N]``.
        group: 0 to 2**31 - 1, ``[N]``.

    Raises:
        DataError: a score is NaN, so there is no order.
    """
    score = np.asarray(score, np.float32) + np.float32(0)  # gives -0 the bits of 0, which it equals
    if unordered := int(np.isnan(score).sum()):
        raise DataError("scores", f"{unordered:,} of {len(score):,} are NaN and can't be ranked")
    bits = score.view(np.uint32)
    # The bits of floats sort like integers if those of negative ones are inverted.
    negative = bits >> np.uint32(31)
    ordered = bits ^ (negative * np.uint32(0x7FFFFFFF) | np.uint32(0x80000000))
    number = ordered.astype(np.uint64) << _ONE | (np.asarray(label) > 0).astype(np.uint64)
    return number | np.asarray(group).astype(np.uint64) << _GROUP_BITS


def pack_probabilities(label: Array, probability: Array, domain: Array, user: Array) -> PackedPairs:
    """Return rows as pairs that sort by domain, then user, then probability in float64, then label: ``[N]``.

    Args:
        label: 0/1, ``[N]``.
        probability: predicted click probabilities, ``[N]``.
        domain: domain indices, -1 to 2**20, ``[N]``.
        user: codes of users, 0 to 2**32 - 1, ``[N]``; zeros if users don't matter.

    Raises:
        DataError: labels, probabilities or users are invalid.
    """
    p = np.asarray(probability, np.float64)
    check_predictions(np.asarray(label), p, domain, user)
    if wrong := int(((user < 0) | (user >= 1 << _USER_BITS)).sum()):
        raise DataError("predictions", f"{wrong:,} of {len(p):,} users are not codes from 0 to 2**32 - 1")
    packed = np.empty(len(p), np.complex128)  # these sort by their real part, then by the imaginary one
    packed.real = (np.asarray(domain, np.int64) << _USER_BITS) + np.asarray(user, np.int64)
    # From 0 to 1 the bits of floats sort as the floats do, and the top two are unused, so they can be
    # shifted.
    packed.imag = (p.view(np.uint64) << _ONE | (np.asarray(label) > 0).astype(np.uint64)).view(np.float64)
    return packed


def packed_wauc(packed: Packed, *, block: int = _BLOCK) -> float | None:
    """Return the mean of the groups' AUCs weighted by rows, as ``wauc`` does; None if none has both classes.

    Args:
        packed: rows of :func:`pack`, in any order; sorted in place.
        block: rows read at a time.
    """
    packed.sort()
    _, aucs, size = _gathered(_aucs(packed, block))
    return weighted_mean(aucs, size)


def packed_metrics(
    packed: PackedPairs, by_user: PackedPairs | None = None, *, block: int = _BLOCK
) -> dict[int, Metrics]:
    """Return the metrics of each domain with rows, as ``domain_metrics`` does.

    Memory grows with domains, not with rows or users.

    Args:
        packed: rows of :func:`pack_probabilities` with user 0, in any order; sorted in place.
        by_user: the same rows with their users; if given, ``gauc`` is computed.
        block: rows read at a time.
    """
    packed.sort()
    names, aucs, size = _gathered(_aucs(packed, block))
    gaucs = {} if by_user is None else _gaucs(by_user, block)
    first, done = np.cumsum(size) - size, 0
    gaps, clicks = np.zeros(len(names) * ECE_BINS), np.zeros(len(names), np.int64)
    predicted, lost = np.zeros((2, len(names)))
    for name, score, negatives, positives in _entries(packed, block):
        group, p, rows = np.searchsorted(names, name), score.view(np.float64), negatives + positives
        before = done + np.cumsum(rows) - rows - first[group]
        done += int(rows.sum())
        bin_of = group * ECE_BINS + middle_bin(before, rows, size[group], ECE_BINS)
        np.add.at(gaps, bin_of, positives - rows * p)
        np.add.at(clicks, group, positives)
        np.add.at(predicted, group, rows * p)
        np.add.at(lost, group, losses(positives, negatives, p))
    eces = np.abs(gaps).reshape(-1, ECE_BINS).sum(1) / size
    return {
        name: ratios(int(size[i]), int(clicks[i]), predicted[i], lost[i], aucs[i], eces[i], gaucs.get(name))
        for i, name in enumerate((names >> _USER_BITS).tolist())
    }


def _gaucs(packed: PackedPairs, block: int) -> dict[int, UserAuc]:
    """Return the mean AUC of the users of each domain; memory doesn't grow with users."""
    packed.sort()

    def users() -> Iterator[Columns]:
        for group, aucs, size in _aucs(packed, block):
            kept = ~np.isnan(aucs)
            area = np.where(kept, aucs, 0) * size
            yield group >> _USER_BITS, area, size * kept, np.ones_like(size), (~kept).astype(np.int64)

    return {
        domain: UserAuc(area / size if size else None, count, left_out)
        for columns in _added(users(), 1)
        for domain, area, size, count, left_out in zip(*(c.tolist() for c in columns), strict=True)
    }


def _aucs(packed: Array, block: int) -> Iterator[Columns]:
    """Yield group, AUC (NaN with one class) and rows of each group, in order."""

    def won() -> Iterator[Columns]:
        below = 0  # negatives so far, of all groups: those of earlier groups are subtracted at the end
        for group, _, negatives, positives in _entries(packed, block):
            upto = below + np.cumsum(negatives)
            below += int(negatives.sum())
            # A positive beats negatives below it and half of those that tie; doubled, to stay an integer.
            yield group, positives * (2 * upto - negatives), negatives, positives

    before = 0
    for group, halves, negatives, positives in _added(won(), 1):
        first = before + np.cumsum(negatives) - negatives
        before += int(negatives.sum())
        pairs, aucs = positives * negatives, np.full(len(group), np.nan)
        np.divide(halves - 2 * first * positives, 2 * pairs, out=aucs, where=pairs > 0)
        yield group, aucs, negatives + positives


def _entries(packed: Array, block: int) -> Iterator[Columns]:
    """Yield group, bits of the score, negatives and positives of each group and score, in order."""

    def rows() -> Iterator[Columns]:
        for start in range(0, len(packed), block):
            part = packed[start : start + block]
            number = part.imag.copy().view(np.uint64) if np.iscomplexobj(part) else part
            group = part.real if np.iscomplexobj(part) else number >> _GROUP_BITS
            label = (number & _ONE).astype(np.int64)
            yield group.astype(np.int64), number >> _ONE, 1 - label, label

    return _added(rows(), 2)


def _added(blocks: Iterable[Columns], keys: int) -> Iterator[Columns]:
    """Add up neighbours that agree in the first ``keys`` columns, even across blocks."""
    held: Columns | None = None
    for block in blocks:
        columns = block if held is None else tuple(map(np.concatenate, zip(held, block, strict=True)))
        if not len(columns[0]):
            continue
        new = np.arange(len(columns[0])) == 0
        for key in columns[:keys]:
            new[1:] |= key[1:] != key[:-1]
        first = np.flatnonzero(new)
        sums = (np.add.reduceat(column, first) for column in columns[keys:])
        found = *(key[first] for key in columns[:keys]), *sums
        held = tuple(column[-1:] for column in found)
        yield tuple(column[:-1] for column in found)
    if held is not None:
        yield held


def _gathered(blocks: Iterable[Columns]) -> Columns:
    """Join blocks of groups; without blocks there are no groups."""
    none = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
    return tuple(map(np.concatenate, zip(none, *blocks, strict=True)))
