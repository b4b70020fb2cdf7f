"""The tree model: trees as tensors, and their prediction for a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmlora.batch import Batch
from mmlora.models.spec import FieldShape
from mmlora.models.trees.columns import TreeColumns

LEAVES = 32
"""Maximum number of leaves per tree, one bit each."""
UNIT = 2.0**-24
"""Number of fractional bits of a leaf's value."""
HASH = 0x077CB531
"""Multiplied by a power of two, the highest five of 32 bits identify the power (a de Bruijn sequence)."""

_BLOCK_ROWS = 1024  # for this many rows, the remaining leaves of the trees fit into a core's cache


class Nodes(NamedTuple):
    """Nodes of all trees, the k-th of each in row k, ``[K, T]`` each.

    Attributes:
        column: the column that the condition reads.
        keep: the leaves that remain if the condition is false; all leaves if a tree has no k-th node.
        condition: the condition's threshold, or the position of its values in ``category_member``.
    """

    column: Tensor
    keep: Tensor
    condition: tuple[Tensor, ...]

    def of_columns(self, places: Tensor) -> Nodes:
        """Return the nodes that read some columns, without gaps; ``places`` numbers these, -1 for others."""
        column = places[self.column]
        mine = column >= 0
        order = (
            (~mine).to(torch.int8).argsort(dim=0, stable=True)[: int(mine.sum(0).max()) if len(mine) else 0]
        )
        keep = torch.where(mine, self.keep, -1)
        column, keep, *condition = (t.gather(0, order) for t in (column, keep, *self.condition))
        return Nodes(column.clamp(min=0), keep, tuple(condition))


class TreeModel(nn.Module):
    """``logit = sum of the trees' values``.

    Args:
        fields: shapes of the inputs, as in the model's specification.
        state: the tensors from :func:`~mmlora.models.trees.convert.tree_state`.
    """

    def __init__(self, fields: Sequence[FieldShape], state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.columns = TreeColumns(fields)
        for name, tensor in state.items():
            if name != "values":
                self.register_buffer(name, tensor)
        self.values = nn.Parameter(state["values"], requires_grad=False)

    @property
    def rows(self) -> Tensor | None:
        """Training rows in each leaf, at the places of ``values``; None in trees of before they were kept."""
        return self._buffers.get("leaf_rows")

    def forward(self, batch: Batch) -> Tensor:
        """B rows of any domains -> logits ``[B]``."""
        nodes, columns = self.nodes, self.columns(batch)
        logits = columns.new_empty(len(columns))
        for start in range(0, len(columns), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            logits[block] = self.logits(self.leaves(columns[block], *nodes))
        return logits

    @property
    def nodes(self) -> tuple[Nodes, Nodes]:
        """All nodes: of numbers, of categories."""
        get = self.get_buffer
        numeric = Nodes(get("numeric_column").long(), get("numeric_keep"), (get("numeric_threshold"),))
        condition = (get("category_start"), get("category_width"))
        return numeric, Nodes(get("category_column").long(), get("category_keep"), condition)

    def leaves(self, columns: Tensor, numeric: Nodes, categorical: Nodes) -> Tensor:
        """``[B, C]`` -> the leaves of each tree that remain after these nodes, as bits, ``[B, T]`` int32."""
        by_column = columns.t().contiguous()
        left = by_column.new_full((len(self.values), len(columns)), -1, dtype=torch.int32)
        for column, keep, threshold in zip(numeric.column, numeric.keep, *numeric.condition, strict=True):
            true = by_column[column] <= threshold[:, None]
            left &= torch.where(true, -1, keep[:, None])
        member, codes = self.get_buffer("category_member"), by_column.to(torch.int32)
        for column, keep, start, width in zip(
            categorical.column, categorical.keep, *categorical.condition, strict=True
        ):
            place = torch.minimum(codes[column], width[:, None]).add_(start[:, None])
            true = member.index_select(0, place.flatten()).view_as(place)
            left &= torch.where(true, -1, keep[:, None])
        return left.t().contiguous()

    def logits(self, leaves: Tensor) -> Tensor:
        """Remaining leaves of each tree, ``[B, T]`` int32, overwritten -> logits ``[B]`` float32."""
        starts = torch.arange(len(self.values), dtype=torch.int32, device=leaves.device) * LEAVES
        place = leaves.bitwise_and_(-leaves).mul_(HASH).bitwise_right_shift_(27).bitwise_and_(LEAVES - 1)
        values = self.values.flatten().index_select(0, place.add_(starts).flatten())
        return values.view_as(leaves).sum(1).to(torch.float64).mul_(UNIT).to(torch.float32)
