"""Which terms of each backbone split by side.

========  =========================================  ======================================
backbone  once a side                                a pair
========  =========================================  ======================================
WDL       first-order terms, first layer             -
DeepFM    also products inside a side, side sums     one inner product of width D
========  =========================================  ======================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmlora.models.backbones.deepfm import DeepFM
from mmlora.models.backbones.wdl import WDL
from mmlora.models.embedding import Embedded, FieldEmbedding
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Part, Parts, Role, SideTensors
from mmlora.models.side_plans.split import Crossed, Share, Split


class WDLSplit:
    """``sum_i w_i`` and a tower over all embeddings and dense values: nothing is left to a pair.

    Args:
        parts: the inputs by side.
        num_fields: F.
        embedding_dim: D.
    """

    cross_columns: Sequence[int] = ()

    def __init__(self, backbone: nn.Module, embedding: FieldEmbedding, parts: Parts) -> None:
        self._parts = parts
        self._num_fields, self._dim = embedding.num_fields, embedding.embedding_dim
