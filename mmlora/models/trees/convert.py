"""Convert LightGBM's description of its trees to the tensors of :mod:`mmlora.models.trees.model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmlora.models.trees.model import HASH, LEAVES, UNIT

Node = Mapping[str, Any]
_ALL = -1  # every bit
_MOST = 2**31 - 1


@dataclass
class _Tree:
    """A tree's leaf values and training rows, left to right; its nodes: column, condition, leaves kept."""

    values: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    numeric: list[tuple[int, float, int]] = field(default_factory=list)
    categorical: list[tuple[int, list[int], int]] = field(default_factory=list)

    @classmethod
    def of(cls, root: Node) -> _Tree:
        tree = cls()
        tree._add(root)
        return tree

    def _add(self, node: Node) -> None:
        if "leaf_value" in node:
            self.values.append(node["leaf_value"])
            self.rows.append(node.get("leaf_count", 0))
            return
        first = len(self.values)
        self._add(node["left_child"])
        left = (1 << len(self.values)) - (1 << first)
        self._add(node["right_child"])
        column, threshold = node["split_feature"], node["threshold"]
        if node["decision_type"] == "==":
            self.categorical.append((column, [int(value) for value in threshold.split("||")], _ALL ^ left))
        else:
            self.numeric.append((column, threshold, _ALL ^ left))


def tree_state(model: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a model's trees.

    Args:
        model: the result of ``lightgbm.Booster.dump_model``; trees have at most ``LEAVES`` leaves and were
            trained on rows without missing values.
    """
    trees = [_Tree.of(tree["tree_structure"]) for tree in model["tree_info"]]
    column, threshold, keep = _padded([tree.numeric for tree in trees], (0, np.inf, _ALL))
    state = {
        "numeric_column": torch.from_numpy(column.astype(np.int32)),
        "numeric_threshold": torch.from_numpy(_rounded_down(threshold.astype(np.float64))),
        "numeric_keep": torch.from_numpy(keep.astype(np.int32)),
    }
    column, chosen, keep = _padded([tree.categorical for tree in trees], (0, [], _ALL))
    members, start = [np.zeros(1, bool)], np.zeros(chosen.shape, np.int32)
    width, taken = np.zeros(chosen.shape, np.int32), 1
    for place in np.ndindex(chosen.shape):
        if chosen[place]:
            member = np.zeros(max(chosen[place]) + 2, bool)  # the last stands for all values above
            member[chosen[place]] = True
            start[place], width[place], taken = taken, len(member) - 1, taken + len(member)
            members.append(member)
    return state | {
        "category_column": torch.from_numpy(column.astype(np.int32)),
        "category_start": torch.from_numpy(start),
        "category_width": torch.from_numpy(width),
        "category_keep": torch.from_numpy(keep.astype(np.int32)),
        "category_member": torch.from_numpy(np.concatenate(members)),
        "values": _placed([[round(value / UNIT) for value in tree.values] for tree in trees]),
        "leaf_rows": _placed([tree.rows for tree in trees]),
    }


def _padded(nodes: Sequence[Sequence[tuple[Any, ...]]], none: tuple[Any, ...]) -> list[np.ndarray[Any, Any]]:
    """Return each part of the trees' nodes as ``[nodes of the largest tree, trees]``."""
    most = max((len(own) for own in nodes), default=0)
    parts = []
    for part in range(len(none)):
        out = np.empty((most, len(nodes)), object)
        for tree, own in enumerate(nodes):
            for place in range(most):
                out[place, tree] = own[place][part] if place < len(own) else none[part]
        parts.append(out)
    return parts


def _rounded_down(threshold: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the largest float32 not above; float32 values compare to it as they do to the threshold."""
    single = threshold.astype(np.float32)
    below: np.ndarray[Any, np.dtype[np.float32]] = np.nextafter(single, np.float32(-np.inf))
    return np.where(single > threshold, below, single)


def _placed(trees: Sequence[Sequence[int]]) -> Tensor:
    """Return a number of each tree's leaves at the hash of the leaf's bit, ``[T, LEAVES]``."""
    values = torch.zeros(len(trees), LEAVES, dtype=torch.int32)
    for tree, own in enumerate(trees):
        for leaf, value in enumerate(own):
            place = ((1 << leaf) * HASH % 2**32) >> 27
            values[tree, place] = max(-_MOST, min(_MOST, value))
    return values
