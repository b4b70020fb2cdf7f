"""DeepFM (https://arxiv.org/abs/1703.04247): a factorisation machine beside the deep tower."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmlora.models.embedding import Embedded


class DeepFM(nn.Module):
    """``terms = sum_i w_i + sum_{i<j} <v_i, v_j>``; the tower sees the same embeddings, and the dense values.

    Args:
        num_fields: F, embedded fields.
        embedding_dim: D.
        num_dense: Fd, dense fields.
    """

    def __init__(self, *, num_fields: int, embedding_dim: int, num_dense: int) -> None:
        super().__init__()
        self.output_dim = num_fields * embedding_dim + num_dense

    def forward(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``fields [B, F, D]``, ``dense [B, Fd]``, ``linear [B]`` -> ``[B]``, ``[B, H0]``."""
        fields = embedded.fields
        # The sum over pairs is half of (square of the sum less sum of the squares): O(F D).
        pairs = fields.sum(1).square().sum(1) - fields.square().sum((1, 2))  # [B]
        return embedded.linear + 0.5 * pairs, torch.cat([fields.flatten(1), embedded.dense], 1)


build = DeepFM
