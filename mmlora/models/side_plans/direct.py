"""The plan for a model without a split: gather both sides' embeddings, then run the forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmlora.models.ctr import CTRModel
from mmlora.models.embedding import Embedded
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Layout, Role, SideTensors


class DirectPlan:
    """Embeddings are looked up, and first-order weights summed, once per side; the rest is computed per pair.

    Args:
        model: the model, folded as far as its gate allows; its last layer is replaced.
        layout: the inputs by side.
        domain: the domain's index; -1 when absent at training.
    """

    def __init__(self, model: CTRModel, layout: Layout, *, domain: int) -> None:
        self._model, self._domain = model, domain
        model.tower.layers[-1] = _Float32(model.tower.layers[-1])
        device = model.embedding.table.device
        self._fields = Join(layout.user.fields, layout.item.fields, device)
        self._dense = Join(layout.user.dense, layout.item.dense, device)

    def side(self, embedded: Embedded, role: Role) -> SideTensors:
        """``[n, its fields, D]``, ``[n, its dense fields]``, ``[n]``."""
        return embedded.fields, embedded.dense, embedded.linear

    def logits(
        self, pairs: Pairs, user: SideTensors, item: SideTensors, adaptation: Tensor | None = None
    ) -> Tensor:
        """B pairs -> ``[B]`` float32; ``adaptation`` is what each expert adds, weighted by the gate."""
        fields, dense = self._fields(pairs, user[0], item[0]), self._dense(pairs, user[1], item[1])
        domain = torch.full((pairs.rows,), self._domain, dtype=torch.int64, device=fields.device)
        embedded = Embedded(fields, dense, pairs.combine(torch.add, user[2], item[2]))
        return self._model.score(embedded, domain, adaptation)


class _Float32(nn.Module):
    """A tower's last layer, always in float32: see :func:`.parts.project`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, x: Tensor, gate_weights: Tensor | None) -> Tensor:
        weights = None if gate_weights is None else gate_weights.float()
        with torch.autocast(x.device.type, enabled=False):
            return cast(Tensor, self._layer(x.float(), weights))


class Join:
    """``[U, k, ...]`` and ``[I, m, ...]`` -> ``[B, k + m, ...]``: pairs' inputs in the order of the model's.

    Args:
        user: positions of the user's k inputs among all inputs.
        item: positions of the item's m inputs.
        device: where the tensors are.
    """

    def __init__(self, user: Sequence[int], item: Sequence[int], device: torch.device) -> None:
        places = [*user, *item]
        # As an order for gathering: which input is first, second, ...
        order = sorted(range(len(places)), key=places.__getitem__)
        in_order = order == list(range(len(places)))
        self._order = None if in_order else torch.tensor(order, dtype=torch.int64, device=device)

    def __call__(self, pairs: Pairs, user: Tensor, item: Tensor) -> Tensor:
        """Join the rows of B pairs."""
        joined = torch.cat([pairs.users(user), pairs.items(item)], 1)
        return joined if self._order is None else joined.index_select(1, self._order)
