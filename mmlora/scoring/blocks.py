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

from mmlora.candidates.pairs import Candidates, Int64Array
from mmlora.models.side_plans.pairs import GridPairs, ListedPairs, Pairs
from mmlora.scoring.topk import Ranked, rank_grid, rank_listed
from mmlora.scoring.workers import ParallelMap

CHUNK_MEMORY = 128 << 20
# What a chunk takes at its peak, which is the ranking: of each pair in the stream a score and a key; of one
# that is left out its places; of one that is listed these and its key, sorted twice; of one that is kept the
# columns of its row, twice over (ids as text of 16 letters). Measured as anonymous memory, to the next 8.
_PAIR_BYTES, _LEFT_OUT_BYTES, _LISTED_BYTES, _ROW_BYTES = 12, 16, 72, 96

# B pairs of rows of users and items -> scores ``[B]`` float32.
ScorePairs = Callable[[Pairs], Tensor]


class Scorer(Protocol):
    """Whatever scores pairs of users and items."""

    @property
    def user_bytes(self) -> int:
        """Bytes of a user's side tensors."""

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
        if self.candidates.listed:
            return int(self.candidates.pairs.starts[self.last] - self.candidates.pairs.starts[self.first])
        return (self.last - self.first) * len(self.candidates.items)

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


@dataclass(frozen=True)
class ChunkLimits:
    """How much of a load is held at once: users' side tensors, their pairs, and the rows kept of them.

    Attributes:
        memory: bytes of a chunk, about; at least one user's are held.
        user_bytes: of the side tensors of a user.
        top_k: rows kept a user; 0 keeps all.
        pairs: pairs of a chunk at most; at least one user's. None: as many as the memory holds.
    """

    memory: int = CHUNK_MEMORY
    user_bytes: int = 0
    top_k: int = 0
    pairs: int | None = None

    def cut(self, candidates: Candidates) -> Iterator[Chunk]:
        """Cut the users into chunks, in order."""
        taken, streamed = self._taken(candidates), _stream_starts(candidates)
        first, users = 0, len(candidates.users)
        while first < users:
            last = _reach(taken, first, self.memory)
            if self.pairs is not None:
                last = min(last, _reach(streamed, first, self.pairs))
            yield Chunk(candidates, first, max(first + 1, last))
            first = max(first + 1, last)

    def most_of_a_user(self, candidates: Candidates) -> int:
        """Return the bytes that the user with most of them takes: what a chunk needs at least."""
        return int(np.diff(self._taken(candidates)).max(initial=0))

    def _taken(self, candidates: Candidates) -> Int64Array:
        """Bytes of the users before each, ``[U + 1]``."""
        named = _LISTED_BYTES if candidates.listed else _LEFT_OUT_BYTES
        kept = np.minimum(candidates.counts, self.top_k) if self.top_k else candidates.counts
        own = self.user_bytes + named * candidates.pairs.counts + _ROW_BYTES * kept
        return np.concatenate([[0], own.cumsum()]) + _PAIR_BYTES * _stream_starts(candidates)


def stream_pairs(candidates: Candidates) -> int:
    """Return the pairs that are computed, excluded ones included."""
    return int(_stream_starts(candidates)[-1])


def _stream_starts(candidates: Candidates) -> Int64Array:
    """Pairs of the users before each in the stream, ``[U + 1]``."""
    if candidates.listed:
        return candidates.pairs.starts
    return np.arange(len(candidates.users) + 1) * len(candidates.items)


def _reach(starts: Int64Array, first: int, most: int) -> int:
    """Return the last place that is at most so far from the first."""
    return int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
