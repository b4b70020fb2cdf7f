"""The deep tower: hidden layers and the projection to one logit, every one adapted by the experts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mmlora.models.dropout import relu_dropout
from mmlora.models.lora import MoELoRALinear


class Tower(nn.Module):
    """ReLU layers with dropout, then one logit; no batch statistics, so no row depends on its neighbours.

    A tower receives its gates: none, one for all layers, which sees the tower's input, or one per layer,
    which sees that layer's input.

    Args:
        input_dim: H0, width of the backbone's output.
        hidden_units: widths of the hidden layers.
        dropout: share of hidden units dropped in training.
        num_experts: E.
        rank: see :class:`MoELoRALinear`.
        alpha: LoRA's scale.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_units: Sequence[int],
        *,
        dropout: float,
        num_experts: int,
        rank: float,
        alpha: float,
    ) -> None:
        super().__init__()
        widths = [input_dim, *hidden_units, 1]
        self.dropout = dropout
        self.layers = nn.ModuleList(
            MoELoRALinear(width, out, num_experts=num_experts, rank=rank, alpha=alpha)
            for width, out in itertools.pairwise(widths)
        )

    def start_silent(self) -> None:
        """Make the tower's output start at 0, next to terms that are trained before it."""
        with torch.no_grad():
            cast(MoELoRALinear, self.layers[-1]).weight.zero_()

    def forward(self, x: Tensor, domain: Tensor, gates: Sequence[nn.Module]) -> tuple[Tensor, list[Tensor]]:
        """``x [B, H0]``, ``domain [B]`` -> logits ``[B]``, and each gate's weights, ``[B, E]`` each."""
        weights: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            if number:
                x = relu_dropout(x, self.dropout if self.training else 0.0)
            if number < len(gates):
                weights.append(gates[number](x, domain))
            x = layer(x, weights[-1] if weights else None)
        return x.squeeze(1), weights
