"""The weight of each expert for a row: by the row's domain, or from a trained gate.

A tower takes one gate for all its layers, or one per layer. A domain index of -1 (absent at training) gives a
row of zeros, i.e. the backbone alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Total weight of a domain's own experts where the gate's training starts: close to phase 2's model, but with
# some weight on the others, without which there would be no gradient.
_OWN_SHARE = 0.9
# The logit of other domains' experts if a domain uses only its own: its exponential is exactly 0.
_NEVER = -1e3


class FixedGate(nn.Module):
    """The gate of one domain whose experts have fixed weights, such as those it shares with other domains.

    Args:
        weights: the weight of each expert, ``[E]``.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.weights: Tensor
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """``x [B, H]`` and ``domain [B]`` (both unused) -> ``[B, E]``."""
        return self.weights.expand(len(domain), -1)


class OwnExpertGate(nn.Module):
    """The gate of ``mlora``: each domain uses its own experts, equally; nothing is trained.

    Args:
        num_domains: domains seen in training.
        expert_domains: the domain index of each expert, ``[E]``.
    """

    def __init__(self, num_domains: int, expert_domains: Sequence[int]) -> None:
        super().__init__()
        own = _own_experts(num_domains, expert_domains)
        share = own / own.sum(1, keepdim=True).clamp(min=1.0)
        self.shares: Tensor  # row 0 is the unknown domain's
        self.register_buffer("shares", F.pad(share, (0, 0, 1, 0)), persistent=False)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """``x [B, H]`` (unused), ``domain [B]`` -> ``[B, E]``."""
        return F.embedding(domain + 1, self.shares)


class SoftmaxGate(nn.Module):
    """The gate of ``moe_mlora``: ``softmax(T[domain] + x V)`` over the experts, or over a row's ``top_k``.

    ``domain`` uses only the table T of logits, ``sample`` only the product with the layer's input, ``both``
    their sum. T starts with most weight on a domain's own experts (equal weights for a domain without any); V
    starts at 0.

    Args:
        num_domains: domains seen in training.
        expert_domains: the domain index of each expert, ``[E]``.
        input_dim: H, input width of the gate's layer.
        by_domain: whether the gate sees the domain.
        by_sample: whether the gate sees the row's input of that layer.
        top_k: number of experts kept per row, those with the largest logits; the others have weight 0 and
            learn nothing from the row. None keeps all. Sparse gates follow
            https://arxiv.org/abs/1701.06538, equations 3 to 5, without noise.
    """

    def __init__(
        self,
        num_domains: int,
        expert_domains: Sequence[int],
        *,
        input_dim: int,
        by_domain: bool,
        by_sample: bool,
        top_k: int | None = None,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        experts = len(expert_domains)
        self.expert_domains: Tensor  # saved, because the gate's columns depend on their order
        self.register_buffer("expert_domains", torch.tensor(expert_domains, dtype=torch.int64))
        self.present: Tensor  # domains for which the gate mixes experts; the others get the backbone
        self.register_buffer("present", torch.ones(num_domains, dtype=torch.float32))
        own = _own_experts(num_domains, expert_domains)
        self.table = nn.Parameter(_logits(own, _OWN_SHARE)) if by_domain else None
        self.weight = nn.Parameter(torch.zeros(input_dim, experts)) if by_sample else None
        self.bias = nn.Parameter(torch.zeros(experts)) if by_sample and not by_domain else None

    def use_own_only(self, seen: Tensor) -> None:
        """Give each domain only its own experts, exactly as ``mlora`` does, if the gate sees the domain.

        A domain without experts gets the backbone alone. A gate that sees only the row mixes all experts
        equally.

        Args:
            seen: which domains have training rows, ``[num_domains]``.
        """
        self.present.copy_(seen)
        if self.table is not None:
            own = _own_experts(len(self.table), self.expert_domains.tolist()).to(self.table.device)
            self.present.mul_(own.amax(1))
            with torch.no_grad():
                self.table.copy_((1 - own) * _NEVER)

    def start(self, seen: Tensor) -> None:
        """Set the weights with which training starts: experts are mixed for every domain seen.

        Args:
            seen: as in :meth:`use_own_only`.
        """
        self.present.copy_(seen)
        if self.table is not None:
            own = _own_experts(len(self.table), self.expert_domains.tolist())
            with torch.no_grad():
                self.table.copy_(_logits(own, _OWN_SHARE))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """``x [B, H]``, ``domain [B]`` -> ``[B, E]``; rows sum to 1, or to 0 for a domain not seen."""
        known = domain.clamp(min=0)
        logits = x.new_zeros(()) if self.bias is None else self.bias
        if self.table is not None:
            logits = logits + F.embedding(known, self.table)
        if self.weight is not None:
            logits = logits + x @ self.weight
        if self.top_k is not None:
            logits = _keep_largest(logits, self.top_k)
        present = self.present[known] * (domain >= 0)
        return torch.softmax(logits, 1) * present.unsqueeze(1)


def load_balance(weights: Tensor) -> Tensor:
    r"""``E sum_e P_e^2``, with ``P_e`` the share of a batch's weight that expert e gets.

    It is 1 if all experts get the same weight and E if one gets all; minus 1, it is the squared coefficient
    of variation of https://arxiv.org/abs/1701.06538, equation 7. (Equation 4 of
    https://arxiv.org/abs/2101.03961 counts rows, ``E sum_e f_e P_e``, because its gate sends each row to one
    expert; here weights are summed.)

    Args:
        weights: a gate's weights, ``[B, E]``; rows of zeros don't count.

    Returns:
        A scalar.
    """
    importance = weights.sum(0)
    share = importance / importance.sum().clamp(min=torch.finfo(weights.dtype).tiny)
    return weights.shape[1] * share.square().sum()


def _keep_largest(logits: Tensor, count: int) -> Tensor:
    """Set all but the ``count`` largest of each row to minus infinity; of equal ones the first are kept."""
    dropped = logits.argsort(stable=True, dim=1, descending=True)[:, count:]
    return logits.scatter(1, dropped, -math.inf)


def _own_experts(num_domains: int, expert_domains: Sequence[int]) -> Tensor:
    """Return ``[num_domains, E]``: 1 where the expert is the domain's own.

    Always on the CPU: on the meta device, where models are built only to be refused, comparisons and sums
    import torch's compiler, which takes three seconds.
    """
    experts = torch.tensor(expert_domains, dtype=torch.int64, device="cpu")
    return (torch.arange(num_domains, device="cpu").unsqueeze(1) == experts).float()


def _logits(own: Tensor, share: float) -> Tensor:
    """Return logits that give a domain's own experts a total share; equal logits if it has no experts."""
    mine = own.sum(1, keepdim=True)
    others = own.shape[1] - mine
    odds = math.log(share / (1 - share)) + torch.log(others.clamp(min=1) / mine.clamp(min=1))
    return own * torch.where((mine > 0) & (others > 0), odds, 0.0)
