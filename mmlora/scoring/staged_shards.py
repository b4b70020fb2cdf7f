"""Divide a load's users into shards, which are staged one by one, each in a part of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmlora.candidates.pairs import Candidates
from mmlora.scoring.blocks import last_within, stream_starts

SHARD_PAIRS = 20_000_000
"""Pairs of a shard: an interrupted run repeats at most about as many."""
SHARD_ROWS = 5_000_000


@dataclass(frozen=True)
class Shard:
    """Users ``first..last - 1`` of a load.

    Attributes:
        first: the first user's row.
        last: the row after the last user's.
        rows: number of rows that are kept of them.
    """

    first: int
    last: int
    rows: int


def cut_shards(candidates: Candidates, top_k: int) -> list[Shard]:
    """Divide the users into shards, in order, at least one; they follow from the candidates alone.

    Args:
        candidates: the pairs.
        top_k: rows kept per user; 0 keeps all.
    """
    streamed, kept = stream_starts(candidates), np.zeros(len(candidates.users) + 1, np.int64)
    kept[1:] = candidates.kept_rows(top_k).cumsum()
    shards, first, users = list[Shard](), 0, len(candidates.users)
    while first < users or not shards:
        ends = last_within(streamed, first, SHARD_PAIRS), last_within(kept, first, SHARD_ROWS)
        last = min(max(first + 1, min(ends)), users)
        shards.append(Shard(first, last, int(kept[last] - kept[first])))
        first = last
    return shards
