"""FiBiNET: bilinear products ``(v_i W) * v_j`` of fields, and the same of weighted fields.

Products within a side are computed once per side; the raw ones go through the first layer there too. Across
the sides, an elementwise product remains for each pair. The weights are scalars, so what they scale can
be computed first: ``(a_i v_i W) * (a_j v_j) = a_i a_j ((v_i W) * v_j)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.models.backbones.fibinet import BilinearInteraction, FiBiNET
from mmlora.models.embedding import Embedded
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Layout, Role, SideTensors
from mmlora.models.side_plans.split import Crossed, Share

_ROLES: tuple[Role, ...] = ("user", "item")


class FiBiNETSplit:
    """First-order terms, raw products within each side, dense values; weighted and cross products remain.

    Args:
        layout: the inputs by side.
        fibinet: the backbone.
    """

    def __init__(self, layout: Layout, fibinet: FiBiNET) -> None:
        self._layout, self._raw, self._weighed = layout, fibinet.bilinear, fibinet.weighed_bilinear
        self._squeeze, self._excite = fibinet.senet.squeeze.detach(), fibinet.senet.excite.detach()
        self._left, self._right = self._raw.left, self._raw.right
        # Position of each pair of fields among all pairs, grouped by the sides of its fields.
        users = torch.isin(torch.stack([self._left, self._right]), self._left.new_tensor(layout.user.fields))
        self._inside: dict[Role, Tensor] = {
            "user": users.all(0).nonzero()[:, 0],
            "item": (~users).all(0).nonzero()[:, 0],
        }
        self._across = (users[0] != users[1]).nonzero()[:, 0]
        # A field's position within its side.
        self._place = self._left.new_zeros(layout.num_fields)
        for role in _ROLES:
            fields = layout.part(role).fields
            self._place[list(fields)] = torch.arange(len(fields), device=self._place.device)
        self._user_left = users[0][self._across]
        self._weighed_pairs = torch.cat([self._across, *(self._inside[role] for role in _ROLES)])
        weighed = [place + len(self._left) for place in self._weighed_pairs.tolist()]
        self.cross_columns: Sequence[int] = self._product_columns([*self._across.tolist(), *weighed])

    def columns(self, role: Role) -> Sequence[int]:
        """Raw products of two of the side's own fields, and its dense values."""
        dense = 2 * len(self._left) * self._layout.embedding_dim
        own = self._product_columns(self._inside[role].tolist())
        return own + [dense + place for place in self._layout.part(role).dense]

    def share(self, embedded: Embedded, role: Role) -> Share:
        """First-order terms; raw products within and dense values; inputs of weights and cross products."""
        fields = embedded.fields
        raw = self._products(self._raw, fields, role)
        squeezed = F.linear(fields.mean(2), self._squeeze[:, list(self._layout.part(role).fields)])
        across = (self._factors(bilinear, fields, role) for bilinear in (self._raw, self._weighed))
        cross = squeezed, *across, self._products(self._weighed, fields, role)
        return Share(embedded.linear, torch.cat([raw.flatten(1), embedded.dense], 1), cross)

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """Raw products across; weighted products across and within both sides."""
        hidden = pairs.combine(torch.add, user[0], item[0]).relu_()
        weights = F.linear(hidden, self._excite).relu_().t()  # [F, B]
        raw, across = (pairs.combine(torch.mul, user[kind], item[kind]) for kind in (1, 2))
        weighed = torch.cat([across, pairs.users(user[3]), pairs.items(item[3])], 1)  # [B, pairs, D]
        scale = weights[self._left[self._weighed_pairs]] * weights[self._right[self._weighed_pairs]]
        weighed.mul_(scale.t().unsqueeze(2))
        return Crossed(inputs=torch.cat([raw.flatten(1), weighed.flatten(1)], 1))

    def _products(self, bilinear: BilinearInteraction, fields: Tensor, role: Role) -> Tensor:
        """Products within a side, ``[n, pairs, D]``."""
        pairs = self._inside[role]
        right = fields.index_select(1, self._place[self._right[pairs]])
        return _left_factors(bilinear, fields, self._place[self._left[pairs]], pairs).mul_(right)

    def _factors(self, bilinear: BilinearInteraction, fields: Tensor, role: Role) -> Tensor:
        """The side's factors of products across, ``[n, pairs, D]``: ``v W`` if its field is the left one."""
        is_left = self._user_left == (role == "user")
        field = torch.where(is_left, self._left[self._across], self._right[self._across])
        factors = fields.index_select(1, self._place[field])
        mine = is_left.nonzero()[:, 0]
        places, pairs = self._place[field[mine]], self._across[mine]
        return factors.index_copy_(1, mine, _left_factors(bilinear, fields, places, pairs))

    def _product_columns(self, places: Sequence[int]) -> list[int]:
        dim = self._layout.embedding_dim
        return [place * dim + number for place in places for number in range(dim)]


def _left_factors(bilinear: BilinearInteraction, fields: Tensor, places: Tensor, pairs: Tensor) -> Tensor:
    """Fields at ``places`` of ``[n, k, D]``, by the matrices of ``pairs`` -> ``v_i W``, ``[n, pairs, D]``."""
    matrices = bilinear.weight.detach().index_select(0, bilinear.which[pairs])
    return torch.bmm(fields.transpose(0, 1).index_select(0, places), matrices).transpose(0, 1).contiguous()
