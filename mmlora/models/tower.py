"""The deep tower: hidden layers and the projection to one logit, every one adapted by the experts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmlora.models.dropout import dropout
from mmlora.models.lora import MoELoRALinear


class Tower(nn.Module):
    """ReLU layers with dropout, then one logit; no batch statistics, so no row depends on its neighbours.

    Args:
        input_dim: H0, width of the backbone's output.
        hidden_units: widths of the hidden layers.
        dropout: share of hidden units dropped in training.
        num_experts: E.
        rank: R.
        alpha: LoRA's scale.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_units: Sequence[int],
        *,
        dropout: float,
        num_experts: int,
        rank: int,
        alpha: float,
    ) -> None:
        super().__init__()
        widths = [input_dim, *hidden_units, 1]
        self.dropout = dropout
        self.layers = nn.ModuleList(
            MoELoRALinear(width, out, num_experts=num_experts, rank=rank, alpha=alpha)
            for width, out in itertools.pairwise(widths)
        )

    def forward(self, x: Tensor, gate_weights: Tensor | None) -> Tensor:
        """``x [B, H0]``, ``gate_weights [B, E]`` or None -> ``[B]``."""
        *hidden, output = self.layers
        for layer in hidden:
            x = torch.relu(layer(x, gate_weights))
            if self.training:
                x = dropout(x, self.dropout)
        logit: Tensor = output(x, gate_weights)
        return logit.squeeze(1)
