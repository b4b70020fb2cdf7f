"""Backbones with a cross network beside a tower over all embeddings: DCN V2, xDeepFM, AutoInt.

The tower's first layer and first-order terms split as in WDL; the cross network sees whole rows, so a pair's
inputs are gathered for it. The parts of the cross network that split are computed once per side: ``W_0 x_0``
in DCN V2; in xDeepFM the last layer, and the first layer's maps of two fields of the same side. In AutoInt
nothing
splits: the first layer's projections are a tenth of its work, and no cheaper to gather.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlora.models.backbones.autoint import AutoInt
from mmlora.models.backbones.dcn import DCN, MatrixCross
from mmlora.models.backbones.xdeepfm import XDeepFM
from mmlora.models.embedding import Embedded
from mmlora.models.side_plans.direct import Join
from mmlora.models.side_plans.flat import WDLSplit, flat
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Layout, Role, SideTensors, project
from mmlora.models.side_plans.split import Crossed, Share


class MatrixDCNSplit(WDLSplit):
    """``x_1 = x_0 * (W_0 x_0 + b_0) + x_0``, whose product splits; then the other layers.

    Args:
        layout: the inputs by side.
        dcn: the backbone.
        cross: its cross layers.
    """

    def __init__(self, layout: Layout, dcn: DCN, cross: MatrixCross) -> None:
        super().__init__(layout)
        self._cross, self._output = cross, dcn.output.detach()
        device = self._output.device
        self._join = Join(layout.flat_columns("user"), layout.flat_columns("item"), device)

    def share(self, embedded: Embedded, role: Role) -> Share:
        """No terms; the inputs, and their part of ``W_0 x_0 + b_0``, ``[n, d]``."""
        inputs = flat(embedded)
        weight = self._cross.weight[0].detach()
        columns = torch.tensor(self.columns(role), dtype=torch.int64, device=inputs.device)
        bias = self._cross.bias[0].detach() if role == "user" else None
        product = F.linear(inputs, weight.index_select(1, columns), bias)
        return Share(torch.zeros_like(embedded.linear), inputs, (inputs, product))

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """The layers from the second on, and the output's product."""
        x0 = self._join(pairs, user[0], item[0])
        x = pairs.combine(torch.add, user[1], item[1]).mul_(x0).add_(x0)
        for weight, bias in zip(self._cross.weight[1:], self._cross.bias[1:], strict=True):
            x = x.addcmul_(x0, F.linear(x, weight, bias))
        return Crossed(terms=project(x, self._output))


class XDeepFMSplit(WDLSplit):
    """A CIN of two layers, the last of which is a matrix ``u``, because only sums follow it.

    ``terms = sum_dh x_dh y_dh`` with the maps ``x = W (v * v)`` of the first layer and ``y = o + u v``; ``y``
    splits by side, and so do maps of two fields of the same side. The maps across the sides remain per pair.

    Args:
        layout: the inputs by side.
        xdeepfm: the backbone.
    """

    def __init__(self, layout: Layout, xdeepfm: XDeepFM) -> None:
        super().__init__(layout)
        first, last = (weight.detach() for weight in xdeepfm.cin.weights)  # [H1, F, F], [H2, H1, F]
        output = xdeepfm.output.detach()[0]
        self._offset, output = output[: len(first)], output[len(first) :]  # [H1], [H2]
        self._last = torch.einsum("k,khf->hf", output, last)  # [H1, F]
        user, item = (list(layout.part(role).fields) for role in ("user", "item"))
        self._inside = {"user": first[:, user][:, :, user], "item": first[:, item][:, :, item]}
        # W_hij and W_hji multiply the same product.
        across = first[:, user][:, :, item] + first[:, item][:, :, user].transpose(1, 2)
        self._across = across.flatten(1)  # [H1, Fu Fi]

    def share(self, embedded: Embedded, role: Role) -> Share:
        """First-order terms; the fields, the maps within the side and its ``u v``, ``[n, D, H1]``."""
        v = embedded.fields.transpose(1, 2).contiguous()  # [n, D, Fs]
        maps = F.linear(_outer(v, v), self._inside[role].flatten(1))
        weights = F.linear(v, self._last[:, list(self._layout.part(role).fields)])
        if role == "user":
            weights += self._offset
        return Share(embedded.linear, flat(embedded), (v, maps, weights))

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """The maps across the sides, and the sum."""
        maps = F.linear(_outer(pairs.users(user[0]), pairs.items(item[0])), self._across)  # [B, D, H1]
        maps += pairs.combine(torch.add, user[1], item[1])
        weighed = maps.mul_(pairs.combine(torch.add, user[2], item[2]))
        return Crossed(terms=weighed.sum((1, 2), dtype=torch.float32))


class AutoIntSplit(WDLSplit):
    """The interacting layers, all computed per pair.

    Args:
        layout: the inputs by side.
        autoint: the backbone.
    """

    def __init__(self, layout: Layout, autoint: AutoInt) -> None:
        super().__init__(layout)
        self._layers, self._output = autoint.layers, autoint.output.detach()
        self._join = Join(layout.user.fields, layout.item.fields, self._output.device)

    def share(self, embedded: Embedded, role: Role) -> Share:
        """No terms; the fields."""
        return Share(torch.zeros_like(embedded.linear), flat(embedded), (embedded.fields,))

    def cross(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Crossed:
        """All interacting layers, and the output's product."""
        attended = self._layers(self._join(pairs, user[0], item[0])).flatten(1)
        return Crossed(terms=project(attended, self._output))


def _outer(left: Tensor, right: Tensor) -> Tensor:
    """``[n, D, a]``, ``[n, D, b]`` -> ``[n, D, a b]``."""
    return (left.unsqueeze(3) * right.unsqueeze(2)).flatten(2)
