"""Rank each user's best items by score and then by item id, independent of the order of computation.

Items are sorted by id, so an item's row number orders like its id. A score and a row number make one integer
key without ties: the score's bits (floats of the same sign are ordered like their bits) above the row number
counted from the end.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_EXCLUDED = -1
_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1
_NO_SIGN = 0x7FFF_FFFF


class Ranked(NamedTuple):
    """Kept pairs, ordered by user row and position.

    Attributes:
        user_rows, item_rows: row numbers of user and item, ``[M]`` int64.
        scores: ``[M]`` float32.
        positions: position in the user's list from 1, ``[M]`` int32.
    """

    user_rows: Tensor
    item_rows: Tensor
    scores: Tensor
    positions: Tensor


def rank_grid(scores: Tensor, excluded: tuple[Tensor, Tensor], top_k: int) -> Ranked:
    """Rank the items of users who are scored on all items.

    Args:
        scores: ``[U, I]`` float32, none below 0 (NaN ranks first, so that the audit finds it).
        excluded: user rows and item rows of the excluded pairs.
        top_k: pairs kept per user; 0 keeps all.
    """
    users, items = scores.shape
    keys = _keys(scores, torch.arange(items, device=scores.device))
    keys[excluded] = _EXCLUDED
    counts = items - torch.bincount(excluded[0], minlength=users)
    best = keys.topk(min(top_k, items) if top_k else items, dim=1).values
    positions = torch.arange(best.shape[1], device=scores.device)
    kept = positions < counts.unsqueeze(1)
    user_rows, columns = kept.nonzero(as_tuple=True)
    return _ranked(best[kept], user_rows, columns)


def rank_listed(scores: Tensor, user_rows: Tensor, item_rows: Tensor, top_k: int) -> Ranked:
    """Rank the items of users who are scored on listed items.

    Args:
        scores: ``[P]`` float32, none below 0.
        user_rows: ``[P]``, ascending.
        item_rows: ``[P]``.
        top_k: pairs kept per user; 0 keeps all.
    """
    keys, order = _keys(scores, item_rows).sort(descending=True)
    user_rows, by_user = user_rows[order].sort(stable=True)
    keys = keys[by_user]
    starts = torch.searchsorted(user_rows, user_rows)
    columns = torch.arange(len(keys), device=keys.device) - starts
    kept = columns < top_k if top_k else torch.ones_like(columns, dtype=torch.bool)
    return _ranked(keys[kept], user_rows[kept], columns[kept])


def _keys(scores: Tensor, item_rows: Tensor) -> Tensor:
    # In place, because keys are most of a chunk's memory.
    keys = scores.contiguous().view(torch.int32).to(torch.int64).bitwise_and_(_NO_SIGN)
    return keys.bitwise_left_shift_(_ROW_BITS).bitwise_or_(_ROW_MASK - item_rows)


def _ranked(keys: Tensor, user_rows: Tensor, columns: Tensor) -> Ranked:
    scores = (keys >> _ROW_BITS).to(torch.int32).view(torch.float32)
    return Ranked(user_rows, _ROW_MASK - (keys & _ROW_MASK), scores, (columns + 1).to(torch.int32))
