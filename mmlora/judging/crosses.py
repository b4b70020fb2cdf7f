"""The design matrix of a logistic regression: one-hot values, their crosses, and numbers.

Each value of a categorical field or bag is a column, and so is each pair of values of two crossed fields:
domain x any other, and user side x item side. Columns are numbered by hashing ("the hashing trick",
Weinberger et al. 2009, https://arxiv.org/abs/0902.2206); those that few training rows have are dropped, and
the rest renumbered without gaps.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mmlora.batch import Batch
from mmlora.judging.rows import Fields, is_domain, is_id
from mmlora.schema import ITEM_ID, USER_ID, FeatureField
from mmlora.training.dataset import TrainingSet
from mmlora.training.epoch import RowNumbers
from mmlora.training.rows import blocks

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_BITS = 22
_LEAST_ROWS = 4
"""Minimum training rows per column; effects of rarer columns can't be told from chance."""
_NUMBER_SPREAD = 0.5
"""Standard deviation of numbers after scaling: many are correlated (counts of 1, 7 and 30 days), and smaller
ones converge sooner."""
_BAG_VALUES, _CROSSED_BAG_VALUES = 32, 8
_MIX = np.uint64(0x9E3779B97F4A7C15)
_STIR = np.uint64(0xBF58476D1CE4E5B9)
Hashes: TypeAlias = npt.NDArray[np.uint64]
Tokens: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Source:
    """The location of a field's values in a batch."""

    field: FeatureField
    column: int  # of ``categorical``; -1 for a bag

    def values(self, batch: Batch) -> tuple[Hashes, npt.NDArray[np.bool_]]:
        """Return ``[B, L]`` hashes of the field's values, and the mask of values that are present."""
        if self.column >= 0:
            index = batch.categorical[:, self.column : self.column + 1].numpy()
            there = np.ones(index.shape, bool)
        else:
            index = batch.bags[self.field.name][:, :_BAG_VALUES].numpy()
            there = index > 0
        salt = int.from_bytes(hashlib.sha256(self.field.name.encode()).digest()[:8])
        return _stir(index.astype(np.uint64) * _MIX + np.uint64(salt)), there


class Crosses:
    """The columns of the design matrix, and the matrix of any rows.

    Args:
        data: the training set.
        rows: training rows that determine the columns to keep and the scale of numbers.
    """

    def __init__(self, data: TrainingSet, rows: RowNumbers) -> None:
        self._data = data
        fields = Fields.of(data)
        self._sources = [
            *(_Source(field, column) for column, field in enumerate(fields.categorical)),
            *(_Source(field, -1) for field in fields.bag),
        ]
        self._pairs = list(crossed_pairs([source.field for source in self._sources]))
        self._vectors = [field.name for field in fields.vector]
        self._column = self._kept(rows)
        self._mean, self._scale = self._moments(rows)

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self._column.max(initial=-1)) + 1 + len(self._mean)

    def entries(self, rows: RowNumbers) -> float:
        """Return the mean number of entries per row of the matrix, over a block of the rows."""
        matrix = self.matrix(rows[: 1 << 14])
        return float(matrix.nnz / max(matrix.shape[0], 1))

    def matrix(self, rows: RowNumbers) -> csr_matrix:
        """Return the rows' matrix, ``[N, width]`` float32."""
        from scipy import sparse

        parts = [self._block(block) for _, block in blocks(rows)]
        return sparse.vstack(parts, format="csr") if parts else sparse.csr_matrix((0, self.width))

    def _block(self, rows: RowNumbers) -> Any:
        from scipy import sparse

        batch = self._data.batch(rows)
        column = self._columns(batch)
        numbers = self._numbers(batch)
        first = self.width - numbers.shape[1]
        wide = np.broadcast_to(np.arange(first, self.width, dtype=np.int32), numbers.shape)
        indices = np.concatenate([column, wide], 1)
        values = np.concatenate([np.ones(column.shape, np.float32), numbers.astype(np.float32)], 1)
        there = (indices >= 0) & (values != 0)
        starts = np.concatenate([[0], np.cumsum(there.sum(1))])
        shape = (len(rows), self.width)
        return sparse.csr_matrix((values[there], indices[there], starts.astype(np.int32)), shape)

    def _columns(self, batch: Batch) -> Tokens:
        tokens = self._tokens(batch)
        return np.where(tokens < 0, -1, self._column[tokens])

    def _tokens(self, batch: Batch) -> Tokens:
        """Return the hashed columns of each row before columns are dropped, ``[B, T]``; -1 for none."""
        values = [source.values(batch) for source in self._sources]
        tokens = [_token(hashes, there) for hashes, there in values]
        for left, right in self._pairs:
            (a, has_a), (b, has_b) = (
                (h[:, :_CROSSED_BAG_VALUES, None], t[:, :_CROSSED_BAG_VALUES, None])
                for h, t in (values[left], values[right])
            )
            hashes = _stir(a * _STIR + b.transpose(0, 2, 1))
            there = has_a & has_b.transpose(0, 2, 1)
            tokens.append(_token(hashes.reshape(len(batch), -1), there.reshape(len(batch), -1)))
        return np.concatenate(tokens, 1)

    def _kept(self, rows: RowNumbers) -> Tokens:
        """Return the index of each hashed column among the kept columns; -1 for dropped ones."""
        count = np.zeros(1 << _BITS, np.int32)
        for _, block in blocks(rows):
            tokens = self._tokens(self._data.batch(block))
            count += np.bincount(tokens[tokens >= 0], minlength=len(count)).astype(np.int32)
        kept = count >= _LEAST_ROWS
        return np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)

    def _numbers(self, batch: Batch) -> npt.NDArray[np.float64]:
        numbers = self._raw_numbers(batch)
        numbers -= self._mean
        numbers /= self._scale
        return numbers

    def _raw_numbers(self, batch: Batch) -> npt.NDArray[np.float64]:
        vectors = [batch.vectors[name].numpy() for name in self._vectors]
        return np.concatenate([batch.dense.numpy(), *vectors], 1).astype(np.float64)

    def _moments(self, rows: RowNumbers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return mean and scale of the numbers, estimated from some training rows."""
        numbers = self._raw_numbers(self._data.batch(rows[:: max(len(rows) >> 16, 1)]))
        scale = numbers.std(0)
        return numbers.mean(0), np.where(scale > 1e-6, scale, 1.0) / _NUMBER_SPREAD


def crossed_pairs(fields: list[FeatureField]) -> Any:
    """Yield the indices of the fields to cross: domain x others, and user side x item side."""
    for (a, left), (b, right) in product(enumerate(fields), repeat=2):
        if is_id(left) and is_id(right):
            continue  # a repeated pair says nothing about other pairs
        by_domain = is_domain(left) and not left.view and not is_domain(right)
        if by_domain or (_of_user(left) and _of_item(right)):
            yield a, b


def _of_user(field: FeatureField) -> bool:
    return USER_ID in field.keys and ITEM_ID not in field.keys


def _of_item(field: FeatureField) -> bool:
    return ITEM_ID in field.keys and USER_ID not in field.keys


def _stir(hashes: Hashes) -> Hashes:
    """Mix the bits of hashes (the finaliser of splitmix64)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * _STIR
    return hashes ^ (hashes >> np.uint64(27))


def _token(hashes: Hashes, there: npt.NDArray[np.bool_]) -> Tokens:
    columns = (hashes * _MIX >> np.uint64(64 - _BITS)).astype(np.int32)
    return np.where(there, columns, np.int32(-1))
