"""The rows to judge: a training set with the items and days of its rows."""

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
"""Maximum training rows of a baseline; larger sets are sampled with a seed."""
MOST_JUDGED_ROWS = 100_000
"""Maximum test rows for the comparison, and validation rows for the choice of settings."""

Floats = npt.NDArray[np.float64]
Predict = Callable[[RowNumbers], Floats]
"""A function from row numbers to click probabilities, ``[N]``."""


@dataclass(frozen=True)
class Rows:
    """A training set with the item and the day of each row.

    Attributes:
        data: the training set.
        item: code of the row's item, 0, 1, ... without gaps, ``[N]`` int32.
        day: the row's day, as days since 1970-01-01 UTC, ``[N]`` int32.
        seed: seed of the samples.
    """

    data: TrainingSet
    item: npt.NDArray[np.int32]
    day: npt.NDArray[np.int32]
    seed: int = 0

    def part(self, split: SplitPart, most: int) -> RowNumbers:
        """Return the rows of a part of the split, or a seeded sample of ``most`` rows, in their order."""
        return sample(self.data.rows(split), most, self.seed)

    @cached_property
    def test(self) -> RowNumbers:
        """The test rows for the comparison of contenders."""
        return self.part("test", MOST_JUDGED_ROWS)

    @cached_property
    def validation(self) -> RowNumbers:
        """The validation rows for the choice of the baselines' settings."""
        return self.part("validation", MOST_JUDGED_ROWS)

    def label(self, rows: RowNumbers) -> npt.NDArray[np.int8]:
        """Return the rows' labels, ``[N]`` 0/1."""
        return np.asarray(self.data.label[rows])

    def domain(self, rows: RowNumbers) -> npt.NDArray[np.int32]:
        """Return the rows' domain indices, ``[N]``."""
        return np.asarray(self.data.domain[rows])


@dataclass(frozen=True)
class Fields:
    """The contract's fields that baselines read, by kind, in the order of a batch's columns.

    Fields of other kinds are ignored, and so are bags with weights: a list of everything an entity ever saw
    says little without the weights.
    """

    categorical: tuple[FeatureField, ...]
    dense: tuple[FeatureField, ...]
    bag: tuple[FeatureField, ...]
    vector: tuple[FeatureField, ...]

    @classmethod
    def of(cls, data: TrainingSet) -> Fields:
        """Group a training set's fields by kind."""
        weighted = {shape.partner for shape in data.encoder.field_shapes() if shape.kind == "weights"}
        fields = [field for field in data.manifest.contract.fields if field.name not in weighted]
        kinds = ("categorical", "dense", "bag", "vector")
        return cls(*(tuple(field for field in fields if field.kind == kind) for kind in kinds))


def is_id(field: FeatureField) -> bool:
    """Return whether a field is the id of the user or the item."""
    return not field.view and field.name in (USER_ID, ITEM_ID)


def is_domain(field: FeatureField) -> bool:
    """Return whether a field depends on the domain alone."""
    return field.keys == (DOMAIN_ID,)


def numpy_batch(data: TrainingSet, rows: RowNumbers) -> Batch:
    """Return encoded rows as tensors on the CPU, which share memory with NumPy arrays."""
    return data.batch(rows)


def by_block(predict: Callable[[RowNumbers], npt.NDArray[Any]]) -> Predict:
    """Return a prediction function for any number of rows from one for a block of rows."""

    def predicted(rows: RowNumbers) -> Floats:
        out = np.empty(len(rows))
        for target, block in blocks(rows):
            out[target] = predict(block)
        return out

    return predicted
