"""What a side plan is made of: the inputs that a side decides, and the tensors computed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.models.embedding import Embedded
from mmlora.models.side_plans.pairs import Pairs

Role = Literal["user", "item"]
# What was computed of a side's n rows, each ``[n, ...]``.
SideTensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Part:
    """The inputs that one side decides.

    Attributes:
        fields: places among the F embedded fields, ascending.
        dense: places among the dense fields, ascending.
    """

    fields: tuple[int, ...]
    dense: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where the sides' inputs stand among the model's.

    Attributes:
        user: inputs of the user, and those of the domain, for in one domain they are constants.
        item: inputs of the item.
        embedding_dim: D.
    """

    user: Part
    item: Part
    embedding_dim: int

    @property
    def num_fields(self) -> int:
        """F, the embedded fields of both sides."""
        return len(self.user.fields) + len(self.item.fields)

    def part(self, role: Role) -> Part:
        """The inputs of a side."""
        return self.user if role == "user" else self.item

    def flat_columns(self, role: Role, *, between: int = 0) -> list[int]:
        """A side's columns in ``[all embeddings side by side, so many others, dense values]``."""
        part, dim = self.part(role), self.embedding_dim
        fields = [field * dim + place for field in part.fields for place in range(dim)]
        return fields + [self.num_fields * dim + between + place for place in part.dense]


class SidePlan(Protocol):
    """What to compute of each side, and of a pair."""

    def side(self, embedded: Embedded, role: Role) -> SideTensors:
        """A side's embedded inputs, ``[n, its fields, D]`` -> whatever :meth:`logits` needs of them."""

    def logits(
        self, pairs: Pairs, user: SideTensors, item: SideTensors, adaptation: Tensor | None = None
    ) -> Tensor:
        """B pairs -> ``[B]`` float32.

        ``adaptation``, where experts are not folded, is what each adds besides, ``[B, E]``: the gate weighs
        it.
        """


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The last product of all, in float32 whatever is cast: a logit of bfloat16 has a hundred values.

    ``[B, k]``, ``[1, k]``, ``[1]`` -> ``[B]``.
    """
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), weight, bias).squeeze(1)
