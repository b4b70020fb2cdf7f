"""xDeepFM (https://arxiv.org/abs/1803.05170): a compressed interaction network (CIN) beside the tower."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlora.models.embedding import Embedded


class CIN(nn.Module):
    r"""``X^k_h = sum_i sum_j W^k_hij (X^{k-1}_i * X^0_j)`` (product by element), pooled over D.

    Layer k has ``H_k`` feature maps; ``X^0`` are the fields, so that layer k crosses
    k + 1 fields at a time. The activation is the identity, which the paper found best; maps aren't split.

    Args:
        num_fields: F, the paper's m.
        maps: H_1 to H_T, feature maps of each layer.
    """

    def __init__(self, num_fields: int, maps: Sequence[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            torch.empty(after, before, num_fields)
            for before, after in itertools.pairwise([num_fields, *maps])
        )
        for weight in self.weights:
            nn.init.xavier_uniform_(weight.flatten(1))
        self.output_dim = sum(maps)

    def forward(self, fields: Tensor) -> Tensor:
        """``[B, F, D]`` -> ``[B, H_1 + .. + H_T]``."""
        x0 = fields.transpose(1, 2)  # [B, D, F]
        x, pooled = x0, []
        *inner, last = [weight.flatten(1) for weight in self.weights]  # [H_k, H_{k-1} F]
        for weight in inner:
            outer = x.unsqueeze(3) * x0.unsqueeze(2)  # [B, D, H_{k-1}, F]
            x = F.linear(outer.flatten(2), weight)  # [B, D, H_k]
            pooled.append(x.sum(1))
        # Only the sum over D of the last layer is needed, and that commutes with W: D times less work.
        outer = x.transpose(1, 2) @ x0  # [B, H_{T-1}, F]
        pooled.append(F.linear(outer.flatten(1), last))
        return torch.cat(pooled, 1)


class XDeepFM(nn.Module):
    """``terms = sum_i w_i + w^T cin``; the tower sees all embeddings side by side, and the dense values.

    Args:
        num_fields: F, embedded fields.
        embedding_dim: D.
        num_dense: Fd, dense fields; they go to the tower and the first-order terms only.
        maps: feature maps of each layer of the CIN.
    """

    def __init__(
        self, *, num_fields: int, embedding_dim: int, num_dense: int, maps: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        self.cin = CIN(num_fields, maps)
        self.output = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, self.cin.output_dim)))
        self.output_dim = num_fields * embedding_dim + num_dense

    def forward(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``fields [B, F, D]``, ``dense [B, Fd]``, ``linear [B]`` -> ``[B]``, ``[B, F D + Fd]``."""
        crossed = F.linear(self.cin(embedded.fields), self.output).squeeze(1)
        return embedded.linear + crossed, torch.cat([embedded.fields.flatten(1), embedded.dense], 1)


build = XDeepFM
