"""AutoInt (https://arxiv.org/abs/1810.11921), as AutoInt+: self-attention between fields beside the tower."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlora.models.embedding import Embedded


class InteractingLayer(nn.Module):
    r"""Every field attends to every field, in several heads; then a residual.

    For head h, with ``Q, K, V = W_query v, W_key v, W_value v`` of each field's ``v``:
    ``a_mk = softmax_k(<Q_m, K_k>)``, ``o_m = sum_k a_mk V_k``; the heads side by side give
    ``relu(o_m + W_residual v_m)``. The paper doesn't scale the inner products.

    Args:
        input_dim: width of a field.
        num_heads: attention heads.
        head_dim: width of each head.
    """

    def __init__(self, input_dim: int, *, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.output_dim = num_heads * head_dim
        self.query, self.key, self.value, self.residual = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.output_dim, input_dim))) for _ in range(4)
        )

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F, D]`` -> ``[B, F, heads * head_dim]``."""
        heads = *fields.shape[:2], self.num_heads, self.head_dim
        query, key, value = (
            F.linear(fields, weight).view(heads).transpose(1, 2)
            for weight in (self.query, self.key, self.value)
        )  # [B, heads, F, head_dim] each
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return torch.relu(attended.transpose(1, 2).flatten(2) + F.linear(fields, self.residual))


class AutoInt(nn.Module):
    """``terms = w^T [o_1 .. o_F]`` of the last interacting layer; the tower sees embeddings and dense values.

    The defaults are the paper's.

    Args:
        num_fields: F, embedded fields.
        embedding_dim: D.
        num_dense: Fd, dense fields; they go to the tower only.
        num_layers: interacting layers.
        num_heads: attention heads of a layer.
        head_dim: width of a head.
    """

    def __init__(
        self,
        *,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        num_layers: int = 3,
        num_heads: int = 2,
        head_dim: int = 32,
    ) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.layers = nn.Sequential(
            *(
                InteractingLayer(embedding_dim if first else width, num_heads=num_heads, head_dim=head_dim)
                for first in [True] + [False] * (num_layers - 1)
            )
        )
        self.output = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, num_fields * width)))
        self.output_dim = num_fields * embedding_dim + num_dense

    def forward(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``fields [B, F, D]``, ``dense [B, Fd]`` -> ``[B]``, ``[B, F D + Fd]``."""
        attended = self.layers(embedded.fields).flatten(1)
        x = torch.cat([embedded.fields.flatten(1), embedded.dense], 1)
        return F.linear(attended, self.output).squeeze(1), x


build = AutoInt
