"""The parts of one row's prediction by trees: how the average changes along each path (Saabas, 2014).

A node's average is that of the training rows that reached it. A tree's prediction is its root's average plus
the steps from each node on the row's path to the next, so the steps by field add up to the prediction.
http://blog.datadive.net/interpreting-random-forests/
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch
from torch import Tensor

from mmlora.batch import Batch
from mmlora.models.trees.model import HASH, LEAVES, UNIT, TreeModel

AVERAGE = "average of the training rows"
_BITS = 0xFFFFFFFF


class _Node(NamedTuple):
    """A node: its field, its left leaves (``first`` to before ``middle``), whether its condition is true."""

    field: str
    first: int
    middle: int
    true: bool


def path_parts(model: TreeModel, batch: Batch) -> dict[str, float]:
    """Return the average and each field's part of one row's logit; they add up to it.

    Trees without row counts, i.e. those trained before these were kept, count each leaf once.
    """
    places = torch.tensor([((1 << leaf) * HASH % 2**32) >> 27 for leaf in range(LEAVES)])
    values = (model.values[:, places].double() * UNIT).tolist()
    rows = (torch.ones_like(model.values) if model.rows is None else model.rows)[:, places].tolist()
    parts: defaultdict[str, float] = defaultdict(float)
    for own, value, weight in zip(_nodes(model, model.columns(batch)[0]), values, rows, strict=True):
        low, high = 0, len(own) + 1
        average = _average(value[low:high], weight[low:high])
        parts[AVERAGE] += average
        while high - low > 1:
            node = max((n for n in own if n.first == low and n.middle < high), key=lambda n: n.middle)
            low, high = (low, node.middle) if node.true else (node.middle, high)
            before, average = average, _average(value[low:high], weight[low:high])
            parts[node.field] += average - before
    return dict(parts)


def _average(values: list[float], rows: list[int]) -> float:
    if not sum(rows):
        rows = [1] * len(values)
    return sum(value * count for value, count in zip(values, rows, strict=True)) / sum(rows)


def _nodes(model: TreeModel, columns: Tensor) -> list[list[_Node]]:
    """Return the nodes of each tree with what their conditions say of one row's columns, ``[C]``."""
    numeric, categorical = model.nodes
    (threshold,), (start, width) = numeric.condition, categorical.condition
    below = columns[numeric.column] <= threshold
    code = torch.minimum(columns[categorical.column].to(torch.int32), width)
    chosen = model.get_buffer("category_member")[(start + code).long()]
    trees: list[list[_Node]] = [[] for _ in model.values]
    for nodes, true in ((numeric, below), (categorical, chosen)):
        for row in zip(nodes.column.tolist(), nodes.keep.tolist(), true.tolist(), strict=True):
            for tree, (column, keep, holds) in enumerate(zip(*row, strict=True)):
                if left := ~keep & _BITS:
                    first, middle = (left & -left).bit_length() - 1, left.bit_length()
                    trees[tree].append(_Node(model.columns.columns[column].field, first, middle, holds))
    return trees
