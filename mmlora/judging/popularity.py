"""The simplest baseline of all: an item's click rate in the domain, smoothed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlora.judging.rows import MOST_TRAINING_ROWS, Floats, Rows
from mmlora.training.epoch import RowNumbers
from mmlora.training.rows import blocks

PRIOR_ROWS = 20.0
"""Rows that the domain's own click rate counts for against an item's."""
MOST_CELLS = 1 << 25
_COUNTED_ROWS = 1 << 20


@dataclass(frozen=True)
class ItemRates:
    """``(clicks + 20 x domain's rate) / (rows + 20)`` of each item in each domain, on training rows.

    Attributes:
        keys: domain index x items + item code, sorted, of those that have training rows, ``[K]``.
        rates: their smoothed rates, ``[K]``.
        base: each domain's rate, ``[D]``: of an item that it never showed.
        items: items in all.
    """

    keys: npt.NDArray[np.int64]
    rates: Floats
    base: Floats
    items: int

    @classmethod
    def of(cls, rows: Rows) -> ItemRates:
        """Count training rows: all of them, or a sample where domains x items are too many to hold."""
        domains, items = rows.data.num_domains, int(rows.item.max(initial=-1)) + 1
        cells = domains * items
        if cells <= MOST_CELLS:
            shown, clicks = np.zeros((2, cells))
            for _, block in blocks(rows.data.rows("train"), _COUNTED_ROWS):
                key = _key(rows, block, items)
                shown += np.bincount(key, minlength=cells)
                clicks += np.bincount(key, rows.label(block), cells)
            keys = np.flatnonzero(shown)
            shown, clicks = shown[keys], clicks[keys]
        else:
            numbers = rows.part("train", MOST_TRAINING_ROWS)
            keys, place = np.unique(_key(rows, numbers, items), return_inverse=True)
            shown = np.bincount(place).astype(np.float64)
            clicks = np.bincount(place, rows.label(numbers)).astype(np.float64)
        domain = keys // items
        everywhere = clicks.sum() / max(shown.sum(), 1.0)
        shown_there, clicks_there = np.bincount(domain, shown, domains), np.bincount(domain, clicks, domains)
        base = (clicks_there + PRIOR_ROWS * everywhere) / (shown_there + PRIOR_ROWS)
        return cls(keys, (clicks + PRIOR_ROWS * base[domain]) / (shown + PRIOR_ROWS), base, items)

    def __call__(self, domain: npt.NDArray[np.integer], item: npt.NDArray[np.integer]) -> Floats:
        """Return the rates of items in domains, ``[N]``."""
        rate = self.base[domain]
        if len(self.keys):
            key = domain.astype(np.int64) * self.items + item
            place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
            rate = np.where(self.keys[place] == key, self.rates[place], rate)
        return np.asarray(rate)


def _key(rows: Rows, numbers: RowNumbers, items: int) -> npt.NDArray[np.int64]:
    return rows.domain(numbers).astype(np.int64) * items + rows.item[numbers]
