"""Trees compiled for the pairs of two sides: what each side leaves of every tree, and an ``and`` a pair."""

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
    """What :class:`~mmlora.models.side_plans.pair_model.PairModel` is for networks; the bits are the model's.

    Args:
        model: the trees; it stays as it is.
        device: where to compute.
    """

    def __init__(self, model: TreeModel, *, device: str = "cpu") -> None:
        state = {name: tensor.to(device) for name, tensor in model.state_dict().items()}
        self._model = TreeModel(model.fields, state)
        number = {column: place for place, column in enumerate(model.columns.columns)}
        # A side's batch holds its own fields only, so its columns are found in other places.
        self._columns, self._nodes = {}, {}
        for role in _ROLES:
            own = TreeColumns([f for f in model.fields if (f.side == "item") == (role == "item")])
            places = torch.full((len(number),), -1, device=device)
            places[[number[column] for column in own.columns]] = torch.arange(len(own), device=device)
            self._columns[role] = own
            self._nodes[role] = [nodes.of_columns(places) for nodes in self._model.nodes]

    def side(self, batch: Batch, role: Role) -> SideTensors:
        """A side's own inputs, n rows -> what it leaves of each tree, ``[n, T]``."""
        return (self._model.leaves(self._columns[role](batch), *self._nodes[role]),)

    def logits(self, pairs: Pairs, user: SideTensors, item: SideTensors) -> Tensor:
        """B pairs of rows of the sides' tensors -> logits ``[B]`` float32."""
        return self._model.logits(pairs.combine(torch.bitwise_and, user[0], item[0]))

    def cross_logits(self, user: SideTensors, item: SideTensors) -> Tensor:
        """Trees have no cross terms (``UsageError``)."""
        raise no_cross_terms()
