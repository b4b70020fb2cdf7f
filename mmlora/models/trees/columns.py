"""The columns of encoded rows that trees see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmlora.batch import Batch
from mmlora.models.spec import FieldShape
from mmlora.schema import ITEM_ID, USER_ID

MOST_BAG_COLUMNS = 128
"""Bags with a larger vocabulary are skipped."""


class TreeColumn(NamedTuple):
    """One column.

    Attributes:
        field: the field it belongs to.
        place: its index among the field's columns, from 0.
    """

    field: str
    place: int


class TreeColumns:
    """Categories first, then numbers, vectors, and a column for each value of a small bag.

    The user's and the item's own ids are skipped, because trees memorise them, and so are affinity bags,
    which say little without their weights.

    Args:
        fields: all fields of the batches, in their order.
    """

    def __init__(self, fields: Sequence[FieldShape]) -> None:
        histories = {field.partner for field in fields if field.kind == "weights"}
        categorical = [field for field in fields if field.kind == "categorical"]
        dense = [field for field in fields if field.kind == "dense"]
        self._categories = [n for n, f in enumerate(categorical) if f.name not in (USER_ID, ITEM_ID)]
        self._vectors = [field for field in fields if field.kind == "vector"]
        self._bags = [
            field
            for field in fields
            if field.kind == "bag" and field.size <= MOST_BAG_COLUMNS and field.name not in histories
        ]
        names = [(categorical[n].name, 1) for n in self._categories]
        names += [(field.name, 1) for field in dense]
        names += [(field.name, field.size) for field in (*self._vectors, *self._bags)]
        self.columns = [TreeColumn(name, place) for name, size in names for place in range(size)]

    @property
    def categories(self) -> int:
        """Number of columns that are categories; they come first."""
        return len(self._categories)

    def __len__(self) -> int:
        return len(self.columns)

    def __call__(self, batch: Batch) -> Tensor:
        """B rows -> ``[B, C]`` float32."""
        parts = [batch.categorical[:, self._categories].to(torch.float32), batch.dense]
        parts += [batch.vectors[field.name] for field in self._vectors]
        parts += [_multi_hot(batch.bags[field.name], field.size) for field in self._bags]
        return torch.cat(parts, 1)


def _multi_hot(index: Tensor, size: int) -> Tensor:
    out = torch.zeros(len(index), size, device=index.device).scatter_(1, index, 1.0)
    out[:, 0] = 0  # the padding
    return out
