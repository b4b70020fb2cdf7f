"""The plan of a model of which nothing is known: gather both sides' embeddings, then the forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from mmlora.models.ctr import CTRModel
from mmlora.models.embedding import Embedded
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Parts, Role, SideTensors


class DirectPlan:
    """Embeddings are looked up, and first-order weights summed, once a side; the rest is computed a pair.

    Args:
        model: the model, folded as far as its gate allows.
        parts: the inputs by side.
        domain: the domain's index; -1 when absent at training.
    """

    def __init__(self, model: CTRModel, parts: Parts, *, domain: int) -> None:
        self._model, self._domain = model, domain
        device = model.embedding.table.device
        self._fields = merge_order(parts.user.fields, parts.item.fields, device)
        self._dense = merge_order(parts.user.dense, parts.item.dense, device)

    def side(self, embedded: Embedded, role: Role) -> SideTensors:
        """``[n, its fields, D]``, ``[n, its dense fields]``, ``[n]``."""
        return embedded.fields, embedded.dense, embedded.linear

    def logits(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Tensor:
        """B pairs -> ``[B]``."""
        fields = join(pairs, user[0], item[0], self._fields)
        embedded = Embedded(
            fields, join(pairs, user[1], item[1], self._dense), pairs.combine(torch.add, user[2], item[2])
        )
        domain = torch.full((pairs.rows,), self._domain, dtype=torch.int64, device=fields.device)
        return self._model.score(embedded, domain)


def merge_order(user: tuple[int, ...], item: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where each input stands when the user's are followed by the item's."""
    return torch.tensor([*user, *item], dtype=torch.int64, device=device).argsort()


def join(pairs: Pairs, user: Tensor, item: Tensor, order: Tensor) -> Tensor:
    """``[U, k, ...]`` and ``[I, m, ...]`` -> ``[B, k + m, ...]``, in the order of the model's inputs."""
    return torch.cat([pairs.users(user), pairs.items(item)], 1).index_select(1, order)
