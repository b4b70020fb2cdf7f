"""The plan of a tower whose first layer splits: ``W x = W_user x_user + W_item x_item + W_pair x_pair``.

A backbone describes this by a :class:`Split`; nearly all of the forward pass of a wide input is then
computed once per side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from mmlora.models.embedding import Embedded
from mmlora.models.lora import MoELoRALinear
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Role, SideTensors, project
from mmlora.models.tower import Tower


@dataclass(frozen=True)
class Share:
    """What one side contributes to its pairs.

    Attributes:
        terms: its part of the interaction terms, ``[n]``.
        inputs: its part of the tower's input, ``[n, k]``: values of :meth:`Split.columns`.
        cross: the tensors that :meth:`Split.cross` needs, each ``[n, ...]``.
    """

    terms: Tensor
    inputs: Tensor
    cross: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Crossed:
    """What is computed per pair.

    Attributes:
        terms: added to the interaction terms, ``[B]`` float32.
        inputs: values of the tower's input that depend on both sides, ``[B, k]``, of
            :attr:`Split.cross_columns`.
    """

    terms: Tensor | None = None
    inputs: Tensor | None = None


class Split(Protocol):
    """Which of a backbone's terms and tower inputs split by side, for given inputs of two sides.

    Both are sums over the user's share, the item's and the pair's. Several of them may contribute to the
    same column of the tower's input.
    """

    @property
    def cross_columns(self) -> Sequence[int]:
        """Columns of the tower's input to which :meth:`cross` contributes."""

    def columns(self, role: Role) -> Sequence[int]:
        """Columns of the tower's input to which a side's share contributes."""

    def share(self, embedded: Embedded, role: Role) -> Share:
        """A side's embedded inputs -> its share."""

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """The sides' :attr:`Share.cross` -> what is computed per pair."""


class SplitPlan:
    """First layer and interaction terms by side; a pair costs a sum, its cross terms and the layers above.

    Args:
        split: the backbone's split.
        tower: a tower without experts.
        dtype: type of what the sides contribute to a pair, except for the terms.
    """

    def __init__(self, split: Split, tower: Tower, *, dtype: torch.dtype = torch.float32) -> None:
        self._split, self._dtype = split, dtype
        first, *self._above, self._last = (cast(MoELoRALinear, layer) for layer in tower.layers)
        self._weights = {role: _columns(first, split.columns(role)) for role in _ROLES}
        self._cross_weight = _columns(first, split.cross_columns).t().to(dtype)
        self._bias = first.bias

    def side(self, embedded: Embedded, role: Role) -> SideTensors:
        """-> terms ``[n]``, share of the first layer ``[n, H1]``, and what the cross terms need."""
        share = self._split.share(embedded, role)
        bias = self._bias if role == "user" else None
        hidden = nn.functional.linear(share.inputs, self._weights[role], bias)
        return share.terms, *(tensor.to(self._dtype) for tensor in (hidden, *share.cross))

    def logits(
        self, pairs: Pairs, user: SideTensors, item: SideTensors, adaptation: Tensor | None = None
    ) -> Tensor:
        """B pairs -> ``[B]`` float32; ``adaptation`` is unused, because there are no experts."""
        terms = pairs.combine(torch.add, user[0], item[0])
        hidden = pairs.combine(torch.add, user[1], item[1])
        crossed = self._split.cross(pairs, user[2:], item[2:])
        if crossed.terms is not None:
            terms += crossed.terms
        if crossed.inputs is not None:
            hidden.addmm_(crossed.inputs.to(self._dtype), self._cross_weight)
        for layer in self._above:
            hidden = layer(hidden.relu_(), None)
        return terms.add_(project(hidden.relu_(), self._last.weight, self._last.bias))


_ROLES: tuple[Role, ...] = ("user", "item")


def _columns(layer: MoELoRALinear, columns: Sequence[int]) -> Tensor:
    index = torch.tensor(columns, dtype=torch.int64, device=layer.weight.device)
    return layer.weight.detach().index_select(1, index)
