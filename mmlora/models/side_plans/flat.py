"""Backbones with little left to compute per pair: WDL, DeepFM, NFM, DCN.

========  ==================================================  =======================================
backbone  once per side                                       per pair
========  ==================================================  =======================================
WDL       first-order terms, first layer                      -
DeepFM    also products within the side, sum of its fields    an inner product of width D
NFM       also products within the side, sum of its fields    the sums' product and its first layer
DCN       also ``x_0 w_l`` of all layers                      a recursion of scalars
========  ==================================================  =======================================
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.models.backbones.dcn import DCN, VectorCross
from mmlora.models.embedding import Embedded
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Layout, Role, SideTensors
from mmlora.models.side_plans.split import Crossed, Share


class WDLSplit:
    """``sum_i w_i``: nothing remains per pair.

    Args:
        layout: the inputs by side.
    """

    cross_columns: Sequence[int] = ()

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def columns(self, role: Role) -> Sequence[int]:
        """The side's own columns."""
        return self._layout.flat_columns(role)

    def share(self, embedded: Embedded, role: Role) -> Share:
        """First-order terms."""
        return Share(embedded.linear, flat(embedded))

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """Nothing."""
        return Crossed()


class DeepFMSplit(WDLSplit):
    """``sum_{i<j} <v_i, v_j>`` within each side, and ``<sum of the user's v, sum of the item's v>``."""

    def share(self, embedded: Embedded, role: Role) -> Share:
        """First-order terms and products within the side; the sum of its fields."""
        total = embedded.fields.sum(1)  # [n, D]
        inside = 0.5 * (total.square().sum(1) - embedded.fields.square().sum((1, 2)))
        return Share(embedded.linear + inside, flat(embedded), (total,))

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """The inner product of both sums."""
        return Crossed(terms=pairs.combine(torch.mul, user[0], item[0]).sum(1, dtype=torch.float32))


class NFMSplit(WDLSplit):
    """``sum_{i<j} v_i * v_j`` within each side, and ``(sum of the user's v) * (sum of the item's v)``.

    Args:
        layout: the inputs by side.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.cross_columns = range(layout.embedding_dim)

    def columns(self, role: Role) -> Sequence[int]:
        """The pooled products, for both sides, and the side's own dense values."""
        dim = self._layout.embedding_dim
        return [*range(dim), *(dim + place for place in self._layout.part(role).dense)]

    def share(self, embedded: Embedded, role: Role) -> Share:
        """First-order terms; pooled products within the side; the sum of its fields."""
        total = embedded.fields.sum(1)  # [n, D]
        inside = 0.5 * (total.square() - embedded.fields.square().sum(1))
        return Share(embedded.linear, torch.cat([inside, embedded.dense], 1), (total,))

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """The product of both sums."""
        return Crossed(inputs=pairs.combine(torch.mul, user[0], item[0]))


class DCNSplit(WDLSplit):
    """DCN by its scalars ``x_0 w_l``: ``x_l = a_l x_0 + c_l`` with ``a_{l+1} = a_l (1 + x_0 w_l) + c_l w_l``.

    Args:
        layout: the inputs by side.
        dcn: the backbone.
        cross: its cross layers.
    """

    def __init__(self, layout: Layout, dcn: DCN, cross: VectorCross) -> None:
        super().__init__(layout)
        self._weights = torch.cat([cross.weight, dcn.output]).detach()  # w_0 .., and the output's: [L + 1, d]
        # c_l, which depends on no input: the sum of the earlier biases.
        offsets = F.pad(cross.bias.detach(), (0, 0, 1, 0)).cumsum(0)  # [L + 1, d]
        self._offsets: list[float] = (offsets * self._weights).sum(1).tolist()

    def share(self, embedded: Embedded, role: Role) -> Share:
        """No terms; ``x_0 w_l`` of the side, ``[n, L + 1]``."""
        inputs = flat(embedded)
        columns = torch.tensor(self.columns(role), dtype=torch.int64, device=inputs.device)
        products = F.linear(inputs, self._weights.index_select(1, columns))
        return Share(torch.zeros_like(embedded.linear), inputs, (products,))

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """The recursion, and the output's product."""
        *layers, output = pairs.combine(torch.add, user[0], item[0]).float().unbind(1)
        scale = torch.ones_like(output)
        for product, offset in zip(layers, self._offsets[:-1], strict=True):
            scale = scale + scale * product + offset
        return Crossed(terms=scale * output + self._offsets[-1])


def flat(embedded: Embedded) -> Tensor:
    """``[n, k D + dense]``: embeddings side by side, and dense values."""
    return torch.cat([embedded.fields.flatten(1), embedded.dense], 1)
