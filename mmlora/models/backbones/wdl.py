"""Wide & Deep (https://arxiv.org/abs/1606.07792): first-order weights beside the deep tower."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmlora.models.embedding import Embedded


class WDL(nn.Module):
    """``terms = sum_i w_i``; the tower sees all embeddings side by side, and the dense values.

    Args:
        num_fields: F, embedded fields.
        embedding_dim: D.
        num_dense: Fd, dense fields.
    """

    first_order_terms = True

    def __init__(self, *, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.output_dim = num_fields * embedding_dim + num_dense

    def forward(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``fields [B, F, D]``, ``dense [B, Fd]``, ``linear [B]`` -> ``[B]``, ``[B, H0]``."""
        return embedded.linear, torch.cat([embedded.fields.flatten(1), embedded.dense], 1)


build = WDL
