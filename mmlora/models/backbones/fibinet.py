"""FiBiNET (https://arxiv.org/abs/1905.09433): weighted fields and bilinear products under the deep tower."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlora.errors import UsageError
from mmlora.models.embedding import Embedded

Bilinear = Literal["all", "each", "interaction"]


class SENet(nn.Module):
    """``a_i v_i``: fields weighted by ``a = relu(W_2 relu(W_1 z))``, ``z_i = mean(v_i)``, over all fields.

    The paper calls this squeeze, excitation and reweighting. ``W_2`` starts positive: followed by a ReLU, a
    row of negative weights would leave its field out for good.

    Args:
        num_fields: F.
        reduction: r; the excitation has ceil(F / r) hidden units.
    """

    def __init__(self, num_fields: int, *, reduction: int) -> None:
        super().__init__()
        hidden = math.ceil(num_fields / reduction)
        self.squeeze = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden, num_fields)))
        self.excite = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_fields, hidden)).abs_())

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F, D]`` -> ``[B, F, D]``."""
        hidden = torch.relu(F.linear(fields.mean(2), self.squeeze))
        weights = torch.relu(F.linear(hidden, self.excite))  # [B, F]
        return fields * weights.unsqueeze(2)


class BilinearInteraction(nn.Module):
    """``p_ij = (v_i W) * v_j`` (product by element) for each pair i < j.

    Args:
        num_fields: F.
        embedding_dim: D.
        kind: one W for ``all`` pairs, one for ``each`` left field, or one for each pair (``interaction``).
    """

    def __init__(self, num_fields: int, embedding_dim: int, *, kind: Bilinear) -> None:
        super().__init__()
        left, right = torch.triu_indices(num_fields, num_fields, 1)
        which = {"all": torch.zeros_like(left), "each": left, "interaction": torch.arange(len(left))}[kind]
        self.left: Tensor
        self.right: Tensor
        self.which: Tensor  # the matrix of each pair
        for name, index in (("left", left), ("right", right), ("which", which)):
            self.register_buffer(name, index, persistent=False)
        matrices = {"all": 1, "each": num_fields - 1, "interaction": len(left)}[kind]
        self.weight = nn.Parameter(torch.empty(matrices, embedding_dim, embedding_dim))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)
        self.output_dim = len(left) * embedding_dim

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F, D]`` -> ``[B, F (F - 1) / 2 * D]``."""
        by_field = fields.transpose(0, 1)  # [F, B, D]
        left, right = by_field.index_select(0, self.left), by_field.index_select(0, self.right)  # [P, B, D]
        product = torch.bmm(left, self.weight.index_select(0, self.which)) * right
        return product.transpose(0, 1).flatten(1)


class FiBiNET(nn.Module):
    """``terms = sum_i w_i``; the tower sees bilinear products of (weighted) fields, and dense values.

    Args:
        num_fields: F, embedded fields.
        embedding_dim: D.
        num_dense: Fd, dense fields; no products are formed of them.
        reduction: SENet's r.
        kind: how the bilinear products share their matrices.

    Raises:
        UsageError: there are fewer than two embedded fields, so there is no pair.
    """

    first_order_terms = True

    def __init__(
        self,
        *,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        reduction: int = 3,
        kind: Bilinear = "interaction",
    ) -> None:
        super().__init__()
        if num_fields < 2:
            raise UsageError(
                f"backbone fibinet needs two or more categorical fields, bags or vectors, but there is "
                f"{num_fields}: add one, or use another backbone"
            )
        self.senet = SENet(num_fields, reduction=reduction)
        self.bilinear = BilinearInteraction(num_fields, embedding_dim, kind=kind)
        self.weighed_bilinear = BilinearInteraction(num_fields, embedding_dim, kind=kind)
        self.output_dim = 2 * self.bilinear.output_dim + num_dense

    def forward(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``fields [B, F, D]``, ``dense [B, Fd]``, ``linear [B]`` -> ``[B]``, ``[B, F (F - 1) D + Fd]``."""
        fields = embedded.fields
        products = self.bilinear(fields), self.weighed_bilinear(self.senet(fields))
        return embedded.linear, torch.cat([*products, embedded.dense], 1)


build = FiBiNET
