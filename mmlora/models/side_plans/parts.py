"""What a side plan is made of: the inputs that a side decides, and the tensors computed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

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


class Parts(NamedTuple):
    """The inputs by side; the domain's own are the user's, for in one domain they are constants.

    Attributes:
        user: inputs of user (and domain).
        item: inputs of the item (and domain).
    """

    user: Part
    item: Part


class SidePlan(Protocol):
    """What to compute of each side, and of a pair."""

    def side(self, embedded: Embedded, role: Role) -> SideTensors:
        """A side's embedded inputs, ``[n, its fields, D]`` -> whatever :meth:`logits` needs of them."""

    def logits(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Tensor:
        """B pairs -> ``[B]``."""
