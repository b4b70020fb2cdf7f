"""Fixed blocks: the pairs of some users as one stream, computed in blocks of one number of rows.

The last bits of a matrix product's row depend on the product's shape, so all blocks have the same number of
rows: the last of a chunk is filled up, and what is scored there thrown away. With the shape fixed, where a
pair stands in its block doesn't matter (tested), so neither do chunks nor threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mmlora.models.side_plans.pairs import GridPairs, ListedPairs, Pairs
from mmlora.scoring.candidates import Candidates
from mmlora.scoring.topk import Ranked, rank_grid, rank_listed
from mmlora.scoring.workers import ParallelMap

# A chunk's scores and keys are held at once: 12 bytes a pair.
CHUNK_PAIRS = 2_000_000
# The users' side tensors are held a chunk as well: 1 to 25 KB a user.
CHUNK_USERS = 16_384


# B pairs of rows of users and items -> scores ``[B]`` float32.
ScorePairs = Callable[[Pairs], Tensor]


class Scorer(Protocol):
    """Whatever scores pairs of users and items."""

    def of_users(self, first: int, last: int) -> ScorePairs:
        """Make ready for users ``first..last - 1``; their rows are counted from ``first``."""


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

    def score(
        self, scorer: Scorer, block_rows: int, done: Callable[[int], None], run: ParallelMap = map
    ) -> Tensor:
        """Score the stream block by block -> ``[pairs]`` float32 on the CPU.

        Args:
            scorer: computes a block.
            block_rows: rows of every block.
            done: told the pairs of each block, in order, in the caller's thread.
            run: computes blocks side by side.
        """
        out = torch.empty(self.pairs, dtype=torch.float32)
        score_pairs = scorer.of_users(self.first, self.last)

        def score_block(start: int) -> int:
            kept = min(block_rows, self.pairs - start)
            out[start : start + kept] = score_pairs(self._block(start, kept, block_rows))[:kept]
            return kept

        for kept in run(score_block, range(0, self.pairs, block_rows)):
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

    def _block(self, start: int, kept: int, block_rows: int) -> Pairs:
        """Return the pairs at ``start`` of the stream and after."""
        if not self.candidates.listed:
            return GridPairs(start, kept, block_rows, len(self.candidates.items))
        user_rows, item_rows = self._own_pairs
        stream = torch.arange(start, start + block_rows).clamp_(max=self.pairs - 1)
        return ListedPairs(user_rows[stream], item_rows[stream])

    @cached_property
    def _own_pairs(self) -> tuple[Tensor, Tensor]:
        """The users' listed or excluded pairs; user rows counted from the chunk's first."""
        user_rows, item_rows = self.candidates.pairs.between(self.first, self.last)
        return torch.from_numpy(user_rows), torch.from_numpy(item_rows)


def chunks(candidates: Candidates, chunk_pairs: int = CHUNK_PAIRS) -> Iterator[Chunk]:
    """Cut the users into runs of at most ``chunk_pairs`` pairs and 16,384 users, at least one user each."""
    first, users = 0, len(candidates.users)
    while first < users:
        last = max(first + 1, min(first + CHUNK_USERS, _last_user(candidates, first, chunk_pairs)))
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
