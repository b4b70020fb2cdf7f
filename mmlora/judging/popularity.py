"""The simplest baseline: an item's smoothed click rate in the domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlora.judging.rows import MOST_TRAINING_ROWS, Floats, Rows
from mmlora.training.epoch import RowNumbers
from mmlora.training.rows import blocks

PRIOR_ROWS = 20.0
"""Weight of the domain's click rate in an item's, in rows."""
MOST_CELLS = 1 << 25
_COUNTED_ROWS = 1 << 20


@dataclass(frozen=True)
class ItemRates:
    """Click rates of items in domains on training rows: ``(clicks + 20 x domain's rate) / (rows + 20)``.

    Attributes:
        keys: domain index x items + item code of the pairs with training rows, sorted, ``[K]``.
        rates: their smoothed rates, ``[K]``.
        base: each domain's rate, which is also that of items without training rows, ``[D]``.
        items: number of items.
    """

    keys: npt.NDArray[np.int64]
    rates: Floats
    base: Floats
    items: int

    @classmethod
    def of(cls, rows: Rows) -> ItemRates:
        """Count all training rows, or a sample if there are too many domains times items for a table."""
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
            keys, index = np.unique(_key(rows, numbers, items), return_inverse=True)
            shown = np.bincount(index).astype(np.float64)
            clicks = np.bincount(index, rows.label(numbers)).astype(np.float64)
        domain = keys // items
        overall = clicks.sum() / max(shown.sum(), 1.0)
        domain_shown = np.bincount(domain, shown, domains)
        domain_clicks = np.bincount(domain, clicks, domains)
        base = (domain_clicks + PRIOR_ROWS * overall) / (domain_shown + PRIOR_ROWS)
        return cls(keys, (clicks + PRIOR_ROWS * base[domain]) / (shown + PRIOR_ROWS), base, items)

    def __call__(self, domain: npt.NDArray[np.integer], item: npt.NDArray[np.integer]) -> Floats:
        """Return the rates of items in domains, ``[N]``."""
        rate = self.base[domain]
        if len(self.keys):
            key = domain.astype(np.int64) * self.items + item
            index = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
            rate = np.where(self.keys[index] == key, self.rates[index], rate)
        return np.asarray(rate)


def _key(rows: Rows, numbers: RowNumbers, items: int) -> npt.NDArray[np.int64]:
    return rows.domain(numbers).astype(np.int64) * items + rows.item[numbers]
