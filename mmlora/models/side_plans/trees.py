"""Trees compiled for user-item pairs: each side's remaining leaves, and one ``and`` per tree and pair."""

from __future__ import annotations

import torch
from torch import Tensor

from mmlora.batch import Batch
from mmlora.models.side_plans.pair_model import no_cross_terms
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Role, SideTensors
from mmlora.models.trees.columns import TreeColumns
from mmlora.models.trees.model import TreeModel

_ROLES: tuple[Role, ...] = ("user", "item")


class TreePairs:
    """The counterpart of :class:`.pair_model.PairModel` for trees, with bit-identical logits.

    Args:
        model: the trees; not changed.
        device: where to compute.
    """

    def __init__(self, model: TreeModel, *, device: str = "cpu") -> None:
        state = {name: tensor.to(device) for name, tensor in model.state_dict().items()}
        self._model = TreeModel(model.fields, state)
        number = {column: place for place, column in enumerate(model.columns.columns)}
        # A side's batch has only the side's own fields, so their columns are at different positions.
        self._columns, self._nodes = {}, {}
        for role in _ROLES:
            own = TreeColumns([f for f in model.fields if (f.side == "item") == (role == "item")])
            places = torch.full((len(number),), -1, device=device)
            places[[number[column] for column in own.columns]] = torch.arange(len(own), device=device)
            self._columns[role] = own
            self._nodes[role] = [nodes.of_columns(places) for nodes in self._model.nodes]

    def side(self, batch: Batch, role: Role) -> SideTensors:
        """A side's own inputs, n rows -> the remaining leaves of each tree, ``[n, T]``."""
        return (self._model.leaves(self._columns[role](batch), *self._nodes[role]),)

    def logits(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Tensor:
        """B pairs of rows of the sides' tensors -> logits ``[B]`` float32."""
        return self._model.logits(pairs.combine(torch.bitwise_and, user[0], item[0]))

    def cross_logits(self, user: SideTensors, item: SideTensors) -> Tensor:
        """Trees have no cross terms (``UsageError``)."""
        raise no_cross_terms()
