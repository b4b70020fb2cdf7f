"""NFM (https://arxiv.org/abs/1708.05027): bi-interaction pooling under the deep tower."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmlora.models.embedding import Embedded


class NFM(nn.Module):
    """``terms = sum_i w_i``; the tower sees ``sum_{i<j} v_i * v_j`` (by element), and the dense values.

    The paper's batch normalisation is left out (no row may depend on its neighbours), and so is its dropout
    below the tower.

    Args:
        num_fields: F, embedded fields; any number is pooled into D values.
        embedding_dim: D.
        num_dense: Fd, dense fields.
    """

    first_order_terms = True

    def __init__(self, *, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.output_dim = embedding_dim + num_dense

    def forward(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``fields [B, F, D]``, ``dense [B, Fd]``, ``linear [B]`` -> ``[B]``, ``[B, D + Fd]``."""
        fields = embedded.fields
        # The sum over pairs is half of (square of the sum less sum of the squares): O(F D).
        pooled = 0.5 * (fields.sum(1).square() - fields.square().sum(1))  # [B, D]
        return embedded.linear, torch.cat([pooled, embedded.dense], 1)


build = NFM
