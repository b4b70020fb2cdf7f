"""PNN (https://arxiv.org/abs/1611.00144): products of fields, beside the fields, under the deep tower.

The paper's first hidden layer is ``relu(l_z + l_p + b)``: linear signals ``l_z = W_z z`` of the fields and
product signals ``l_p = W_p p`` of all pairs. With ``[z, p]`` as the tower's input, that is the tower's first
layer, ``W = [W_z W_p]``; so the experts adapt it too.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mmlora.models.embedding import Embedded

Product = Literal["inner", "outer"]


class InnerProduct(nn.Module):
    """``p_ij = <v_i, v_j>`` for each pair i < j: the product layer of IPNN.

    Args:
        num_fields: F.
    """

    def __init__(self, num_fields: int) -> None:
        super().__init__()
        self.left: Tensor
        self.right: Tensor
        _register_pairs(self, num_fields)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F, D]`` -> ``[B, F (F - 1) / 2]``."""
        return (fields.index_select(1, self.left) * fields.index_select(1, self.right)).sum(2)


class OuterProduct(nn.Module):
    """``p_ij = <W_ij, v_i v_j^T> = v_i^T W_ij v_j`` for each pair i < j: the product layer of OPNN.

    A whole outer product per pair would be D^2 inputs to every unit. The paper sums them over the pairs,
    which loses which fields interacted; here each pair is weighted by its own kernel, as in the authors'
    longer version (https://arxiv.org/abs/1807.00311).

    Args:
        num_fields: F.
        embedding_dim: D.
    """

    def __init__(self, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.left: Tensor
        self.right: Tensor
        pairs = _register_pairs(self, num_fields)
        self.kernel = nn.Parameter(torch.empty(pairs, embedding_dim, embedding_dim))
        for kernel in self.kernel:
            nn.init.xavier_uniform_(kernel)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F, D]`` -> ``[B, F (F - 1) / 2]``."""
        by_field = fields.transpose(0, 1)  # [F, B, D]
        left, right = by_field.index_select(0, self.left), by_field.index_select(0, self.right)  # [P, B, D]
        return (torch.bmm(left, self.kernel) * right).sum(2).t()


class PNN(nn.Module):
    """``terms = 0``; the tower sees all embeddings side by side, their products, and the dense values.

    Args:
        num_fields: F, embedded fields.
        embedding_dim: D.
        num_dense: Fd, dense fields; no products are formed of them.
        product: ``inner`` (IPNN) or ``outer`` (OPNN).
    """

    first_order_terms = True

    def __init__(
        self, *, num_fields: int, embedding_dim: int, num_dense: int, product: Product = "inner"
    ) -> None:
        super().__init__()
        self.products = (
            InnerProduct(num_fields) if product == "inner" else OuterProduct(num_fields, embedding_dim)
        )
        self.output_dim = num_fields * embedding_dim + num_fields * (num_fields - 1) // 2 + num_dense

    def forward(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``fields [B, F, D]``, ``dense [B, Fd]`` -> ``[B]``, ``[B, F D + F (F - 1) / 2 + Fd]``."""
        fields = embedded.fields
        x = torch.cat([fields.flatten(1), self.products(fields), embedded.dense], 1)
        return fields.new_zeros(len(fields)), x


def _register_pairs(module: nn.Module, num_fields: int) -> int:
    """Register the field indices ``left < right`` of all pairs on ``module``; return the number of pairs."""
    left, right = torch.triu_indices(num_fields, num_fields, 1)
    module.register_buffer("left", left, persistent=False)
    module.register_buffer("right", right, persistent=False)
    return len(left)


build = PNN
