"""Numbers of a user and an item together: matches of lists, weights of what matches, products of vectors.

A user's list of values (interests, categories met) has the vocabulary of an item's field. How many of its
elements the item's values equal is one number, and the sum of each list of weights over these elements one
more. Vectors of one width give their inner product. For a fixed user each is linear in the item's columns, or
a look-up by its value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.batch import Batch
from mmlora.models.crosses.columns import SideColumns, role_of
from mmlora.models.spec import FieldShape

FIRST_KNOWN = 2  # indices below stand for a missing or an unknown value, which match nothing


@dataclass(frozen=True)
class PairField:
    """One field of the user's side and what it is paired with.

    Attributes:
        user: a categorical field, bag or vector.
        item: the item's field.
        weights: names of the lists of weights of the user's elements; one number for each, after the count.
    """

    user: FieldShape
    item: FieldShape
    weights: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What its numbers are, for reports."""
        first = f"{self.user.name} . {self.item.name}"
        return [first, *(f"{name} . {self.item.name}" for name in self.weights)]

    def numbers(self, batch: Batch, user: SideColumns, item: SideColumns) -> Tensor:
        """B rows -> ``[B, 1 + weights]``."""
        if self.user.kind == "vector":
            product = batch.vectors[self.user.name] * batch.vectors[self.item.name]
            return product.sum(1, keepdim=True)
        counts = self._matches(batch, user, item)
        return torch.stack([counts.sum(1), *(self._sum(counts, batch, name) for name in self.weights)], 1)

    def _matches(self, batch: Batch, user: SideColumns, item: SideColumns) -> Tensor:
        """Return how often the item has each of the user's values, ``[B, L]``."""
        mine = user.index(batch, self.user)
        if self.item in item.small:
            counts = item.hot(batch, self.item).gather(1, mine)
        else:
            counts = (mine[:, :, None] == item.index(batch, self.item)[:, None, :]).sum(2)
        return torch.where(mine >= FIRST_KNOWN, counts, 0).to(batch.dense.dtype)

    def by_value(self, batch: Batch, user: SideColumns, weights: Tensor) -> Tensor:
        """Users -> what each of the item's values, or elements of its vector, is worth to them, ``[n,
        size]``.

        Args:
            batch: n rows of the user's side.
            user: its columns.
            weights: of the field's numbers, ``[1 + weights]``.
        """
        if self.user.kind == "vector":
            return batch.vectors[self.user.name] * weights[0]
        mine = user.index(batch, self.user)
        worth = torch.full(mine.shape, 1.0, device=mine.device) * weights[0]
        for number, name in enumerate(self.weights, 1):
            values = batch.vectors[name]
            worth = worth + F.pad(values, (0, mine.shape[1] - values.shape[1])) * weights[number]
        worth = torch.where(mine >= FIRST_KNOWN, worth, 0.0)
        return worth.new_zeros(len(mine), self.item.size).scatter_add_(1, mine, worth)

    @staticmethod
    def _sum(counts: Tensor, batch: Batch, name: str) -> Tensor:
        values = batch.vectors[name][:, : counts.shape[1]]
        return (counts[:, : values.shape[1]] * values).sum(1)


def pair_fields(fields: Sequence[FieldShape]) -> list[PairField]:
    """Return the pairs that the fields' partners name; those of unlike fields are passed over."""
    named = {field.name: field for field in fields}
    pairs = []
    for field in fields:
        item = named.get(field.partner)
        if item is None or field.kind == "weights" or role_of(item) != "item" or role_of(field) != "user":
            continue
        lists = ("categorical", "bag")
        alike = (field.kind in lists and item.kind in lists) or field.kind == item.kind == "vector"
        if alike and field.size == item.size:
            weights = tuple(f.name for f in fields if f.kind == "weights" and f.partner == field.name)
            pairs.append(PairField(field, item, weights))
    return pairs


@dataclass(frozen=True)
class HistoryPair:
    """A user's history of items and an item: names of two vectors whose inner product is one number.

    They are fitted with the encoder (:mod:`mmlora.encoding.history`).
    """

    user: str
    item: str

    def number(self, batch: Batch) -> Tensor:
        """B rows -> ``[B]``."""
        return (batch.vectors[self.user] * batch.vectors[self.item]).sum(1)


def history_pair(fields: Sequence[FieldShape]) -> HistoryPair | None:
    """Return the history among the fields; None where there is none."""
    return next((HistoryPair(f.name, f.partner) for f in fields if f.kind == "history" and f.partner), None)
