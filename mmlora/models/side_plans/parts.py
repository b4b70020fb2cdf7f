"""The parts of a side plan: the inputs that belong to a side, and the tensors computed from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.models.embedding import Embedded
from mmlora.models.side_plans.pairs import Pairs

Role = Literal["user", "item"]
# Tensors computed for a side's n rows, each ``[n, ...]``.
SideTensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Part:
    """The inputs that belong to one side.

    Attributes:
        fields: indices among the F embedded fields, ascending.
        dense: indices among the dense fields, ascending.
    """

    fields: tuple[int, ...]
    dense: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Positions of the sides' inputs among the model's.

    Attributes:
        user: inputs of the user, and those of the domain, which are constant within a domain.
        item: inputs of the item.
        embedding_dim: D.
    """

    user: Part
    item: Part
    embedding_dim: int

    @property
    def num_fields(self) -> int:
        """F, the number of embedded fields of both sides."""
        return len(self.user.fields) + len(self.item.fields)

    def part(self, role: Role) -> Part:
        """The inputs of a side."""
        return self.user if role == "user" else self.item

    def flat_columns(self, role: Role, *, between: int = 0) -> list[int]:
        """A side's columns in ``[all embeddings side by side, between other columns, dense values]``."""
        part, dim = self.part(role), self.embedding_dim
        fields = [field * dim + place for field in part.fields for place in range(dim)]
        return fields + [self.num_fields * dim + between + place for place in part.dense]


class SidePlan(Protocol):
    """What to compute for each side, and for each pair."""

    def side(self, embedded: Embedded, role: Role) -> SideTensors:
        """A side's embedded inputs, ``[n, its fields, D]`` -> the tensors that :meth:`logits` needs."""

    def logits(
        self, pairs: Pairs, user: SideTensors, item: SideTensors, adaptation: Tensor | None = None
    ) -> Tensor:
        """B pairs -> ``[B]`` float32.

        ``adaptation``, if experts are not folded, is what each expert adds, ``[B, E]``, to be weighted by
        the gate.
        """


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The final product, always in float32, because a bfloat16 logit has only about a hundred values.

    ``[B, k]``, ``[1, k]``, ``[1]`` -> ``[B]``.
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), weight, bias).squeeze(1)
