"""Embeddings of all input fields: one table, one lookup per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlora.batch import Batch
from mmlora.models.sharing import shallow_copy
from mmlora.models.spec import FieldShape

_INITIAL_STD = 0.01


@dataclass(frozen=True)
class Embedded:
    """B rows of F embedded fields.

    Attributes:
        fields: embeddings of the categorical fields, bags and vectors, in that order, ``[B, F, D]``.
        dense: dense values, unchanged, ``[B, Fd]``.
        linear: first-order term, the sum of one weight per field value, ``[B]``.
    """

    fields: Tensor
    dense: Tensor
    linear: Tensor


class FieldEmbedding(nn.Module):
    """Embed every field, and sum its first-order weights.

    All vocabularies are in one table, each at its own offset. A row is D + 1 wide: the embedding, then the
    value's first-order weight, so a batch costs one lookup and one gradient. Bags are mean-pooled over their
    values (an empty bag is 0); vectors are projected to D + 1; dense values are passed through, with one
    first-order weight each.

    Args:
        fields: shapes of the inputs, in the order of the encoded columns.
        embedding_dim: D.
    """

    def __init__(self, fields: Sequence[FieldShape], *, embedding_dim: int) -> None:
        super().__init__()
        categorical = [field for field in fields if field.kind == "categorical"]
        bags = [field for field in fields if field.kind == "bag"]
        vectors = [field for field in fields if field.kind == "vector"]
        self.num_dense = sum(field.kind == "dense" for field in fields)
        self.num_fields = len(categorical) + len(bags) + len(vectors)
        self.embedding_dim = embedding_dim

        sizes = [field.size for field in (*categorical, *bags)]
        starts = [sum(sizes[:place]) for place in range(len(sizes))]
        self.num_categorical = len(categorical)
        self.offsets: Tensor
        self.register_buffer(
            "offsets", torch.tensor(starts[: len(categorical)], dtype=torch.int64), persistent=False
        )
        self.bag_offsets = dict(zip([bag.name for bag in bags], starts[len(categorical) :], strict=True))
        self.table = nn.Parameter(torch.empty(sum(sizes), embedding_dim + 1))
        # A list, because a feature's name may contain characters that a module's name may not.
        self.vector_names = [field.name for field in vectors]
        self.projections = nn.ModuleList(nn.Linear(field.size, embedding_dim + 1) for field in vectors)
        self.dense_weight = nn.Parameter(torch.zeros(self.num_dense))
        self.reset_parameters()

    @property
    def first_order(self) -> list[Tensor]:
        """The first-order weights: of the table's values, of numbers, and of vectors."""
        projections = [cast(nn.Linear, projection) for projection in self.projections]
        of_vectors = [part[-1] for of in projections for part in (of.weight, of.bias)]
        return [self.table[:, -1], self.dense_weight, *of_vectors]

    def part(self, fields: Sequence[int], dense: Sequence[int]) -> FieldEmbedding:
        """Return the embedding of some of the inputs; it shares this one's memory.

        Args:
            fields: indices among the F embedded fields, ascending.
            dense: indices among the dense fields, ascending.
        """
        bags_end = self.num_categorical + len(self.bag_offsets)
        names = [*self.bag_offsets, *self.vector_names]
        part = shallow_copy(self)
        part.num_fields, part.num_dense = len(fields), len(dense)
        categorical = [field for field in fields if field < self.num_categorical]
        part.num_categorical, part.offsets = len(categorical), self.offsets[categorical]
        bags = [names[f - self.num_categorical] for f in fields if self.num_categorical <= f < bags_end]
        part.bag_offsets = {name: self.bag_offsets[name] for name in bags}
        vectors = [field - bags_end for field in fields if field >= bags_end]
        part.vector_names = [self.vector_names[vector] for vector in vectors]
        part.projections = nn.ModuleList(part.projections[vector] for vector in vectors)
        part.dense_weight = nn.Parameter(self.dense_weight.detach()[list(dense)], False)
        return part

    def reset_parameters(self) -> None:
        """Initialise the embeddings at random and first-order weights with 0."""
        if self.table.is_meta:  # nothing to initialise, and torch would import its compiler to find out
            return
        with torch.no_grad():
            self.table.normal_(std=_INITIAL_STD)
            self.table[:, -1] = 0.0
            for projection in self.projections:
                cast(nn.Linear, projection).weight[-1] = 0.0
                cast(nn.Linear, projection).bias[-1] = 0.0

    def forward(self, batch: Batch, rows: Tensor | None = None) -> Embedded:
        """``categorical [B, Fc]``, bags ``[B, L]``, vectors ``[B, W]`` -> ``[B, F, D]``, and the rest.

        ``rows``, if given, are the table's rows at :meth:`places`, looked up by the caller.
        """
        if rows is None:
            rows = F.embedding(self.places(batch), self.table)
        rows = self._join(rows, batch)  # [B, F, D + 1]
        linear = rows[:, :, -1].sum(1)
        if self.num_dense:
            linear = linear + batch.dense @ self.dense_weight
        return Embedded(rows[:, :, :-1], batch.dense, linear)

    def places(self, batch: Batch) -> Tensor:
        """Return the table's rows that a batch needs, ``[B, Fc + sum of L]``."""
        index = batch.categorical + self.offsets
        if not self.bag_offsets:
            return index
        return torch.cat([index, *(batch.bags[name] + start for name, start in self.bag_offsets.items())], 1)

    def _join(self, rows: Tensor, batch: Batch) -> Tensor:
        """``rows [B, Fc + sum of L, D + 1]`` -> ``[B, F, D + 1]``: bags are pooled, vectors projected."""
        bags = [batch.bags[name] for name in self.bag_offsets]
        if not bags and not self.vector_names:
            return rows
        parts = list(torch.split(rows, [self.num_categorical, *(bag.shape[1] for bag in bags)], 1))
        parts[1:] = [_mean(values, bag != 0) for values, bag in zip(parts[1:], bags, strict=True)]
        for name, projection in zip(self.vector_names, self.projections, strict=True):
            parts.append(projection(batch.vectors[name]).unsqueeze(1))
        return torch.cat(parts, 1)


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """Mean of ``values [B, L, D]`` where ``present [B, L]``, or 0 if none is -> ``[B, 1, D]``."""
    weight = present.to(values.dtype)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1.0)
    return torch.bmm(weight.unsqueeze(1), values)
