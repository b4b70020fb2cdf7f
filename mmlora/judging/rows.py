"""The rows that are judged: a training set's, and what its encoded columns don't tell of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.batch import Batch
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID, FeatureField
from mmlora.training.dataset import TrainingSet
from mmlora.training.epoch import RowNumbers, SplitPart
from mmlora.training.rows import blocks, sample

MOST_TRAINING_ROWS = 2_000_000
"""Rows that a baseline is trained on; of more, a seeded sample."""
MOST_JUDGED_ROWS = 100_000
"""Test rows that contenders are compared on, and validation rows that settings are chosen on."""

Floats = npt.NDArray[np.float64]
Predict = Callable[[RowNumbers], Floats]
"""From row numbers to click probabilities, ``[N]``."""


@dataclass(frozen=True)
class Rows:
    """A training set and, of each of its rows, the item and the day.

    Attributes:
        data: the training set.
        item: code of the row's item, 0, 1, ... without gaps, ``[N]`` int32.
        day: the row's day, as days since 1970-01-01 UTC, ``[N]`` int32.
        seed: of every sample.
    """

    data: TrainingSet
    item: npt.NDArray[np.int32]
    day: npt.NDArray[np.int32]
    seed: int = 0

    def part(self, split: SplitPart, most: int) -> RowNumbers:
        """Return the rows of a part of the split; of more than ``most`` a seeded sample, in their order."""
        return sample(self.data.rows(split), most, self.seed)

    @cached_property
    def test(self) -> RowNumbers:
        """The test rows that contenders are compared on."""
        return self.part("test", MOST_JUDGED_ROWS)

    @cached_property
    def validation(self) -> RowNumbers:
        """The validation rows that baselines choose their settings on."""
        return self.part("validation", MOST_JUDGED_ROWS)

    def label(self, rows: RowNumbers) -> npt.NDArray[np.int8]:
        """Return the rows' labels, ``[N]`` 0/1."""
        return np.asarray(self.data.label[rows])

    def domain(self, rows: RowNumbers) -> npt.NDArray[np.int32]:
        """Return the rows' domain indices, ``[N]``."""
        return np.asarray(self.data.domain[rows])


@dataclass(frozen=True)
class Fields:
    """The contract's fields that baselines know how to read, by kind, in the order of a batch's columns.

    A field of any other kind is passed over, and so is a bag whose elements have weights: what an entity met
    in all its past says little without how often.
    """

    categorical: tuple[FeatureField, ...]
    dense: tuple[FeatureField, ...]
    bag: tuple[FeatureField, ...]
    vector: tuple[FeatureField, ...]

    @classmethod
    def of(cls, data: TrainingSet) -> Fields:
        """Sort a training set's fields."""
        weighted = {shape.partner for shape in data.encoder.field_shapes() if shape.kind == "weights"}
        fields = [field for field in data.manifest.contract.fields if field.name not in weighted]
        kinds = ("categorical", "dense", "bag", "vector")
        return cls(*(tuple(field for field in fields if field.kind == kind) for kind in kinds))


def is_id(field: FeatureField) -> bool:
    """Say whether a field is the user's or the item's own id."""
    return not field.view and field.name in (USER_ID, ITEM_ID)


def is_domain(field: FeatureField) -> bool:
    """Say whether a field is decided by the domain alone."""
    return field.keys == (DOMAIN_ID,)


def numpy_batch(data: TrainingSet, rows: RowNumbers) -> Batch:
    """Gather encoded rows; their tensors' ``numpy()`` costs nothing."""
    return data.batch(rows)


def by_block(predict: Callable[[RowNumbers], npt.NDArray[Any]]) -> Predict:
    """Return a prediction of any number of rows from one of a block."""

    def predicted(rows: RowNumbers) -> Floats:
        out = np.empty(len(rows))
        for place, block in blocks(rows):
            out[place] = predict(block)
        return out

    return predicted
