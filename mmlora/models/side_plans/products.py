"""PNN: inner or outer products of fields, within a side and across the sides.

Products within a side go through the first layer once per side. Across the sides, kernels of the outer
product are applied to the item's fields once per item; a pair then costs an inner product of width D for each
user field and item field, and these products' share of the first layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmlora.models.backbones.pnn import PNN, OuterProduct
from mmlora.models.embedding import Embedded
from mmlora.models.side_plans.flat import flat
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Layout, Role, SideTensors
from mmlora.models.side_plans.split import Crossed, Share


class PNNSplit:
    """Embeddings, dense values and products within each side; products across remain for each pair.

    Args:
        layout: the inputs by side.
        pnn: the backbone.
    """

    def __init__(self, layout: Layout, pnn: PNN) -> None:
        self._layout = layout
        products = pnn.products
        numbers = zip(products.left.tolist(), products.right.tolist(), strict=True)
        self._places = {pair: place for place, pair in enumerate(numbers)}
        self._kernel = products.kernel.detach() if isinstance(products, OuterProduct) else None
        across = [(user, item) for user in layout.user.fields for item in layout.item.fields]
        self.cross_columns: Sequence[int] = self._product_columns(across)
        self._across_kernel = self._from_item(across)

    def columns(self, role: Role) -> Sequence[int]:
        """Embeddings, dense values, and products of two of the side's own fields."""
        own = self._layout.flat_columns(role, between=len(self._places))
        return own + self._product_columns(_pairs_of(self._layout.part(role).fields))

    def share(self, embedded: Embedded, role: Role) -> Share:
        """No terms; embeddings, dense values and products within; the fields."""
        fields = embedded.fields
        inputs = torch.cat([flat(embedded), self._inside(fields, role)], 1)
        if role == "item" and self._across_kernel is not None:
            # [n, 1, Fi, 1, D] x [Fu, Fi, D, D] -> [n, Fu, Fi, D]
            fields = (fields[:, None, :, None] @ self._across_kernel).squeeze(3)
        return Share(torch.zeros_like(embedded.linear), inputs, (fields,))

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """Products of each user field with each item field, ``[B, Fu Fi]``."""
        left, right = pairs.users(user[0]), pairs.items(item[0])  # [B, Fu, D]; [B, Fi, D] or [B, Fu, Fi, D]
        if self._kernel is None:
            return Crossed(inputs=torch.bmm(left, right.transpose(1, 2)).flatten(1))
        return Crossed(inputs=right.mul_(left.unsqueeze(2)).sum(3).flatten(1))

    def _inside(self, fields: Tensor, role: Role) -> Tensor:
        numbers = self._layout.part(role).fields
        left, right = torch.triu_indices(len(numbers), len(numbers), 1, device=fields.device)
        first, second = fields.index_select(1, left), fields.index_select(1, right)  # [n, P, D]
        if self._kernel is not None:
            places = torch.tensor(self._numbers(_pairs_of(numbers)), dtype=torch.int64, device=fields.device)
            first = (first.unsqueeze(2) @ self._kernel.index_select(0, places)).squeeze(2)
        return (first * second).sum(2)

    def _from_item(self, across: Sequence[tuple[int, int]]) -> Tensor | None:
        """Kernels to apply to the item's fields, ``[Fu, Fi, D, D]``: transposed if it is on the right."""
        if self._kernel is None:
            return None
        dim = self._layout.embedding_dim
        kernels = [
            self._kernel[place] if item < user else self._kernel[place].t()
            for (user, item), place in zip(across, self._numbers(across), strict=True)
        ]
        shape = len(self._layout.user.fields), len(self._layout.item.fields), dim, dim
        return torch.stack(kernels).view(shape) if kernels else self._kernel.new_zeros(shape)

    def _numbers(self, pairs: Sequence[tuple[int, int]]) -> list[int]:
        """Return the products' indices; a pair is keyed by its smaller field first."""
        return [self._places[min(pair), max(pair)] for pair in pairs]

    def _product_columns(self, pairs: Sequence[tuple[int, int]]) -> list[int]:
        start = self._layout.num_fields * self._layout.embedding_dim
        return [start + number for number in self._numbers(pairs)]


def _pairs_of(fields: Sequence[int]) -> list[tuple[int, int]]:
    """All pairs of a side's fields, in the order of ``triu_indices``."""
    return [(left, right) for place, left in enumerate(fields) for right in fields[place + 1 :]]
