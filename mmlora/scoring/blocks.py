"""Fixed blocks: the pairs of some users as one stream, computed in blocks of one number of rows.

The last bits of a matrix product's row depend on the product's shape, so every forward pass has exactly
``block_rows`` rows: the last block of a chunk is filled up with copies of its last pair, whose scores are
thrown away. With the shape fixed, where a pair stands in its block doesn't matter (tested), so neither do
chunks nor threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mmlora.scoring.candidates import Candidates
from mmlora.scoring.topk import Ranked, rank_grid, rank_listed

# A chunk's scores and keys are held at once: 12 bytes a pair.
CHUNK_PAIRS = 2_000_000


class Scorer(Protocol):
    """Whatever scores pairs of encoded users and items."""

    def scores(self, user_rows: Tensor, item_rows: Tensor) -> Tensor:
        """Places ``[B]`` of users and of items -> calibrated scores ``[B]`` float32."""


@dataclass(frozen=True)
class Chunk:
    """The pairs of users ``first..last - 1`` as a stream.

    Attributes:
        pairs: pairs in the stream; excluded ones are computed as well, for a regular grid is quicker to form.
    """

    candidates: Candidates
    first: int
    last: int

    @property
    def pairs(self) -> int:
        """Pairs in the stream."""
        return _stream_start(self.candidates, self.last) - _stream_start(self.candidates, self.first)

    def score(self, scorer: Scorer, block_rows: int, done: Callable[[int], None]) -> Tensor:
        """Score the stream block by block -> ``[pairs]`` float32 on the CPU.

        Args:
            scorer: computes a block.
            block_rows: rows of every block.
            done: told the pairs of each block.
        """
        out = torch.empty(self.pairs, dtype=torch.float32)
        for start in range(0, self.pairs, block_rows):
            stream = torch.arange(start, start + block_rows).clamp_(max=self.pairs - 1)
            kept = min(block_rows, self.pairs - start)
            out[start : start + kept] = scorer.scores(*self._rows(stream))[:kept]
            done(kept)
        return out

    def rank(self, scores: Tensor, top_k: int) -> Ranked:
        """Rank the scores of the stream."""
        user_rows, item_rows = self._own_pairs
        if self.candidates.listed:
            ranked = rank_listed(scores, user_rows, item_rows, top_k)
        else:
            grid = scores.view(self.last - self.first, len(self.candidates.items))
            ranked = rank_grid(grid, (user_rows, item_rows), top_k)
        return ranked._replace(user_rows=ranked.user_rows + self.first)

    def _rows(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        """Return user rows and item rows of places in the stream."""
        if self.candidates.listed:
            user_rows, item_rows = self._own_pairs
            return user_rows[stream] + self.first, item_rows[stream]
        items = len(self.candidates.items)
        return torch.div(stream, items, rounding_mode="floor") + self.first, stream % items

    @cached_property
    def _own_pairs(self) -> tuple[Tensor, Tensor]:
        """The users' listed or excluded pairs; user rows counted from the chunk's first."""
        user_rows, item_rows = self.candidates.pairs.between(self.first, self.last)
        return torch.from_numpy(user_rows), torch.from_numpy(item_rows)


def chunks(candidates: Candidates, chunk_pairs: int = CHUNK_PAIRS) -> Iterator[Chunk]:
    """Cut the users into runs of about ``chunk_pairs`` pairs, at least one user each."""
    first, users = 0, len(candidates.users)
    while first < users:
        last = max(first + 1, _last_user(candidates, first, chunk_pairs))
        yield Chunk(candidates, first, last)
        first = last


def stream_pairs(candidates: Candidates) -> int:
    """Return the pairs that are computed, excluded ones included."""
    return _stream_start(candidates, len(candidates.users))


def _stream_start(candidates: Candidates, user: int) -> int:
    return int(candidates.pairs.starts[user]) if candidates.listed else user * len(candidates.items)


def _last_user(candidates: Candidates, first: int, chunk_pairs: int) -> int:
    if candidates.listed:
        starts = candidates.pairs.starts
        return int(np.searchsorted(starts, starts[first] + chunk_pairs, side="right")) - 1
    return min(len(candidates.users), first + chunk_pairs // max(1, len(candidates.items)))
