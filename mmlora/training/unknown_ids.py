"""Ids are treated as unknown in training as often as they are unknown in scoring.

Later rows have ids that training never saw: new users, new items. If every training row's user is known, the
model learns from that user's own weights what it could have learned from the user's profile and activity,
and fails for users without such weights. So in each pass over the training rows a field's value counts as
unknown in a share of the rows, namely the share of validation rows where it is unknown. If validation rows
know all ids, none are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mmlora.batch import Batch
from mmlora.schema import DOMAIN_ID
from mmlora.training.epoch import RowNumbers, SplitPart, TrainingData
from mmlora.training.rows import blocks

if TYPE_CHECKING:
    from mmlora.training.dataset import TrainingSet

OUT_OF_VOCABULARY = 1
LEAST, MOST = 0.001, 0.9
"""Shares below ``LEAST`` are ignored, and those above ``MOST`` capped, so ids still learn their weights."""


def unknown_shares(data: TrainingSet) -> dict[str, float]:
    """Return the share of validation rows whose value is out of vocabulary, by categorical field.

    Fields whose values are (nearly) all known are left out, and so is the domain, which has weights of its
    own.
    """
    names, rows = data.encoder.names("categorical"), data.rows("validation")
    unknown = np.zeros(len(names), np.int64)
    for _, block in blocks(rows):
        unknown += (data.batch(block).categorical == OUT_OF_VOCABULARY).sum(0).numpy()
    shares = dict(zip(names, (unknown / max(len(rows), 1)).tolist(), strict=True))
    return {name: min(share, MOST) for name, share in shares.items() if share >= LEAST and name != DOMAIN_ID}


class ForgetfulData:
    """Rows whose ids are dropped at random in training, but not in measuring.

    Which ids are dropped depends on the row, the field and the number of the pass, so a killed run resumes
    with the same ones.

    Args:
        data: the rows.
        shares: share of rows in which a field is dropped, by name (:func:`unknown_shares`).
        number: number of the pass; None drops nothing.
    """

    def __init__(self, data: TrainingSet, shares: Mapping[str, float], number: int | None = None) -> None:
        self._data, self._shares, self._number = data, shares, number
        self._columns = [data.encoder.names("categorical").index(name) for name in shares]

    @property
    def domain(self) -> npt.NDArray[Any]:
        """Domain index of every row, ``[N]``."""
        return self._data.domain

    @property
    def num_domains(self) -> int:
        """Number of domains."""
        return self._data.num_domains

    def rows(self, split: SplitPart) -> RowNumbers:
        """Return the row numbers of a split."""
        return self._data.rows(split)

    def in_pass(self, number: int) -> ForgetfulData:
        """Return the rows as this pass of training sees them."""
        return ForgetfulData(self._data, self._shares, number)

    def batch(self, rows: RowNumbers) -> Batch:
        """Return rows, labels included."""
        batch = self._data.batch(rows)
        if self._number is None or not self._columns:
            return batch
        categorical = batch.categorical.clone()
        for column, share in zip(self._columns, self._shares.values(), strict=True):
            forgotten = _draw(np.asarray(rows), self._number, column) < share
            categorical[torch.from_numpy(forgotten), column] = OUT_OF_VOCABULARY
        return replace(batch, categorical=categorical)


def in_pass(data: TrainingData, number: int) -> TrainingData:
    """Return the rows as this pass of training sees them: unchanged, except for :class:`ForgetfulData`."""
    return data.in_pass(number) if isinstance(data, ForgetfulData) else data


def _draw(rows: RowNumbers, number: int, column: int) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each row, ``[B]``, always the same for the same input (SplitMix64)."""
    start = np.uint64(((number + 1) * 1_000_003 + column) * 0xD1B54A32D192ED03 % 2**64)
    bits = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
