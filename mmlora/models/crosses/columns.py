"""The columns that one side's inputs give to the cross terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.batch import Batch
from mmlora.models.spec import FieldShape
from mmlora.schema import DOMAIN_ID

Role = Literal["user", "item"]
SMALL = 64
"""Up to so many values a field has one column for each; above, sparse weights."""
MAX_DEVIATIONS = 5.0
"""Numbers count up to so many standard deviations: beyond, a product of two would decide alone."""


def role_of(field: FieldShape) -> Role:
    """Return the side that a field's columns belong to: the domain's own fields go with the user."""
    return "item" if field.side == "item" else "user"


def take_columns(values: Tensor, columns: Sequence[int]) -> Tensor:
    """Return some columns of ``values [B, K]``; several times as fast as indexing with a list."""
    return values.index_select(1, torch.tensor(columns, dtype=torch.int64, device=values.device))


class SideColumns:
    """Turns the inputs of one side into columns ``[B, K]``, the first of which is 1.

    Args:
        fields: all fields that the batches hold, in their order; those of the other side are passed over. The
            domain's id is passed over as well: domains have weights of their own.
        role: the side.
    """

    def __init__(self, fields: Sequence[FieldShape], role: Role) -> None:
        categorical = [field for field in fields if field.kind == "categorical"]
        dense = [field for field in fields if field.kind == "dense"]
        # A list that has weights is a history, whose values count where the item has them: see pairs.
        passed_over = {DOMAIN_ID, *(field.partner for field in fields if field.kind == "weights")}
        mine = [f for f in fields if role_of(f) == role and f.name not in passed_over]
        self.place = {field.name: number for number, field in enumerate(categorical)}
        self.small = [f for f in mine if f.kind in ("categorical", "bag") and f.size <= SMALL]
        self.large = [f for f in mine if f.kind in ("categorical", "bag") and f.size > SMALL]
        self.dense = [number for number, field in enumerate(dense) if field in mine]
        self.vectors = [field for field in mine if field.kind == "vector"]
        self.dense_names = [dense[number].name for number in self.dense]
        blocks = [(f.name, f.size) for f in self.small]
        blocks += [(name, 1) for name in self.dense_names]
        blocks += [(f.name, f.size) for f in self.vectors]
        self.names = ["", *(name for name, size in blocks for _ in range(size))]
        """The field of each column; the constant's is empty."""

    @property
    def width(self) -> int:
        """K, the columns of the side."""
        return len(self.names)

    def start(self, field: FieldShape) -> int | None:
        """Return the first of a field's columns; None where it has none."""
        return self.names.index(field.name) if field.name in self.names else None

    def __call__(self, batch: Batch) -> Tensor:
        """B rows -> ``[B, K]``."""
        parts = [batch.dense.new_ones(len(batch), 1)]
        parts += [self.hot(batch, field) for field in self.small]
        if self.dense:
            parts.append(take_columns(batch.dense, self.dense).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS))
        parts += [batch.vectors[field.name] for field in self.vectors]
        return torch.cat(parts, 1)

    def hot(self, batch: Batch, field: FieldShape) -> Tensor:
        """Return a small field's columns, ``[B, size]``: how often each value occurs; 0 for a bag's
        padding.
        """
        index = self.index(batch, field)
        if field.kind == "categorical":
            return F.one_hot(index[:, 0], field.size).to(batch.dense.dtype)
        counts = batch.dense.new_zeros(len(batch), field.size)
        counts.scatter_add_(1, index, torch.ones_like(index, dtype=counts.dtype))
        counts[:, 0] = 0
        return counts

    def index(self, batch: Batch, field: FieldShape) -> Tensor:
        """Return a field's indices, ``[B, L]``; L is 1 for a categorical field."""
        if field.kind == "bag":
            return batch.bags[field.name]
        return batch.categorical[:, self.place[field.name], None]
