"""The tower's layer: a linear map that every domain adapts by low-rank experts.

LoRA (https://arxiv.org/abs/2106.09685), one per domain in MLoRA (https://arxiv.org/abs/2408.08913), mixed by
a gate in MoE-MLoRA (https://arxiv.org/abs/2506.07563).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MoELoRALinear(nn.Module):
    r"""``x W + b + (alpha / R) sum_e g_e (x A_e B_e + c_e)``.

    ``B_e`` and ``c_e`` start at 0, so a fresh expert changes nothing. All experts are computed in two matrix
    products: the gate weights scale the ``[B, E * R]`` values between them.

    Args:
        in_features: width of the input.
        out_features: width of the output.
        num_experts: E; with 0 this is a plain linear layer.
        rank: R. If it is 1 or more, a narrower layer (the output projection) uses ``min(rank, in, out)``, but
            its scale stays ``alpha / rank``, the same for all layers. Below 1, it is a share of the layer's
            width: ``R = max(1, round(rank * min(in, out)))``, with scale ``alpha / R`` for that layer.
        alpha: LoRA's scale.
    """

    def __init__(
        self, in_features: int, out_features: int, *, num_experts: int, rank: float, alpha: float
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        width = min(in_features, out_features)
        full_rank = max(1, round(rank * width)) if rank < 1 else int(rank)
        self.scale = alpha / full_rank
        rank = min(full_rank, width)
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.lora_a = nn.Parameter(torch.empty(num_experts, in_features, rank))
        self.lora_b = nn.Parameter(torch.zeros(num_experts, rank, out_features))
        self.lora_c = nn.Parameter(torch.zeros(num_experts, out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw W (Glorot) and A (uniform in +- 1 / sqrt(in)); b, B and c start at 0."""
        nn.init.xavier_uniform_(self.weight)
        bound = 1 / math.sqrt(self.weight.shape[1])
        with torch.no_grad():
            self.lora_a.uniform_(-bound, bound)
            for zero in (self.bias, self.lora_b, self.lora_c):
                zero.zero_()

    def forward(self, x: Tensor, gate_weights: Tensor | None) -> Tensor:
        """``x [B, in]``, ``gate_weights [B, E]`` (None: the backbone alone) -> ``[B, out]``."""
        base = F.linear(x, self.weight, self.bias)
        if gate_weights is None or self.num_experts == 0:
            return base
        return base + self.adaptation(x, gate_weights)

    def adaptation(self, x: Tensor, gate_weights: Tensor) -> Tensor:
        """The experts' share of the output, ``[B, out]``."""
        experts, width, rank = self.lora_a.shape
        weights = gate_weights * self.scale  # [B, E]
        down = x @ self.lora_a.transpose(0, 1).reshape(width, experts * rank)  # [B, E * R]
        gated = (down.view(-1, experts, rank) * weights.unsqueeze(2)).view(-1, experts * rank)
        # The bias c_e is part of the second product, as one more row per expert.
        up = torch.cat([self.lora_b.view(experts * rank, -1), self.lora_c])  # [E * R + E, out]
        return torch.cat([gated, weights], 1) @ up
