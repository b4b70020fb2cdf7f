"""DCN (https://arxiv.org/abs/1708.05123) and DCN V2 (https://arxiv.org/abs/2008.13535): a cross network.

Both in the parallel form: ``logit = w^T x_L + tower(x_0)``, where ``x_0`` is all embeddings and the dense
values. A cross layer has a vector (V1) or a matrix (V2) of its width as weights, so it includes dense values.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmlora.models.embedding import Embedded


class VectorCross(nn.Module):
    """``x_{l+1} = x_0 (x_l^T w_l) + b_l + x_l``, of DCN.

    Args:
        width: d, of ``x_0``.
        num_layers: crosses up to degree ``num_layers`` + 1.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        bound = math.sqrt(6 / (width + 1))
        self.weight = nn.Parameter(torch.empty(num_layers, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(num_layers, width))

    def forward(self, x0: Tensor) -> Tensor:
        """``[B, d]`` -> ``[B, d]``."""
        x = x0
        for weight, bias in zip(self.weight, self.bias, strict=True):
            x = x0 * (x @ weight).unsqueeze(1) + bias + x
        return x


class MatrixCross(nn.Module):
    """``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l`` (product by element), of DCN V2.

    Args:
        width: d, of ``x_0``.
        num_layers: crosses up to degree ``num_layers`` + 1.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_layers, width, width))
        self.bias = nn.Parameter(torch.zeros(num_layers, width))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)

    def forward(self, x0: Tensor) -> Tensor:
        """``[B, d]`` -> ``[B, d]``."""
        x = x0
        for weight, bias in zip(self.weight, self.bias, strict=True):
            x = x0 * F.linear(x, weight, bias) + x
        return x


class DCN(nn.Module):
    """``terms = w^T x_L``, of the cross network; the tower sees the same ``x_0``.

    Args:
        num_fields: F, embedded fields.
        embedding_dim: D.
        num_dense: Fd, dense fields.
        cross: the kind of cross layer: :class:`VectorCross` (V1) or :class:`MatrixCross` (V2).
        num_layers: cross layers.
    """

    def __init__(
        self,
        *,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        cross: Callable[[int, int], nn.Module] = VectorCross,
        num_layers: int = 2,
    ) -> None:
        super().__init__()
        self.output_dim = num_fields * embedding_dim + num_dense
        self.cross = cross(self.output_dim, num_layers)
        self.output = nn.Parameter(torch.empty(1, self.output_dim))
        nn.init.xavier_uniform_(self.output)

    def forward(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``fields [B, F, D]``, ``dense [B, Fd]`` -> ``[B]``, ``[B, F D + Fd]``."""
        x0 = torch.cat([embedded.fields.flatten(1), embedded.dense], 1)
        return F.linear(self.cross(x0), self.output).squeeze(1), x0


build = DCN
