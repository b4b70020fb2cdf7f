"""Score the pairs of some users as a stream of blocks of a fixed size.

The last bits of a row of a matrix product depend on the product's shape, so all blocks have the same number
of
rows: the last block of a chunk is padded, and the padding's scores are discarded. With a fixed shape a pair's
position in its block doesn't matter (tested), and neither do chunks or threads.
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
# Memory of a chunk at its peak, the ranking: per pair in the stream a score and a key; per excluded pair its
# row numbers; per listed pair these and its key, sorted twice; per kept pair the columns of its row, twice
# (ids as text of 16 letters). Measured as anonymous memory, rounded up to a multiple of 8.
_PAIR_BYTES, _EXCLUDED_BYTES, _LISTED_BYTES, _ROW_BYTES = 12, 16, 72, 96

# Scores of B pairs of user and item rows, ``[B]`` float32.
ScorePairs = Callable[[Pairs], Tensor]


class Scorer(Protocol):
    """Something that scores pairs of users and items."""

    @property
    def user_bytes(self) -> int:
        """Size of a user's side tensors in bytes."""

    def of_users(self, first: int, last: int) -> ScorePairs:
        """Return the scoring function of users ``first..last - 1``, whose rows are counted from ``first``."""


@dataclass(frozen=True)
class Chunk:
    """The pairs of users ``first..last - 1`` as a stream."""

    candidates: Candidates
    first: int
    last: int

    @property
    def pairs(self) -> int:
        """Number of pairs in the stream, with excluded pairs: a regular grid is quicker to form."""
        if self.candidates.listed:
            return int(self.candidates.pairs.starts[self.last] - self.candidates.pairs.starts[self.first])
        return (self.last - self.first) * len(self.candidates.items)

    def score(
        self, scorer: Scorer, block_rows: int, done: Callable[[int], None], run: ParallelMap = map
    ) -> Tensor:
        """Score the stream block by block; return ``[pairs]`` float32 on the CPU.

        Args:
            scorer: computes the blocks.
            block_rows: rows of every block.
            done: called with the number of pairs of each block, in order, in the caller's thread.
            run: map that computes blocks in parallel.
        """
        out = torch.empty(self.pairs, dtype=torch.float32)
        score_pairs = scorer.of_users(self.first, self.last)

        def score_block(start: int) -> int:
            rows = min(block_rows, self.pairs - start)
            out[start : start + rows] = score_pairs(self._block(start, rows, block_rows))[:rows]
            return rows

        for rows in run(score_block, range(0, self.pairs, block_rows)):
            done(rows)
        return out

    def rank(self, scores: Tensor, top_k: int) -> Ranked:
        """Rank the scores of the stream."""
        user_rows, item_rows = self._indexed_pairs
        if self.candidates.listed:
            ranked = rank_listed(scores, user_rows, item_rows, top_k)
        else:
            grid = scores.view(self.last - self.first, len(self.candidates.items))
            ranked = rank_grid(grid, (user_rows, item_rows), top_k)
        return ranked._replace(user_rows=ranked.user_rows + self.first)

    def _block(self, start: int, rows: int, block_rows: int) -> Pairs:
        """Return the block of pairs that begins at ``start`` in the stream."""
        if not self.candidates.listed:
            return GridPairs(start, rows, block_rows, len(self.candidates.items))
        user_rows, item_rows = self._indexed_pairs
        stream = torch.arange(start, start + block_rows).clamp_(max=self.pairs - 1)
        return ListedPairs(user_rows[stream], item_rows[stream])

    @cached_property
    def _indexed_pairs(self) -> tuple[Tensor, Tensor]:
        """The users' listed or excluded pairs, with user rows counted from the chunk's first."""
        user_rows, item_rows = self.candidates.pairs.between(self.first, self.last)
        return torch.from_numpy(user_rows), torch.from_numpy(item_rows)


@dataclass(frozen=True)
class ChunkLimits:
    """Limits on what is held of a load at once: users' side tensors, their pairs, and the kept rows.

    Attributes:
        memory: approximate bytes of a chunk, which has at least one user.
        user_bytes: bytes of a user's side tensors.
        top_k: rows kept per user; 0 keeps all.
        pairs: maximum pairs of a chunk, which has at least one user; None for as many as fit the memory.
    """

    memory: int = CHUNK_MEMORY
    user_bytes: int = 0
    top_k: int = 0
    pairs: int | None = None

    def cut(self, candidates: Candidates) -> Iterator[Chunk]:
        """Divide the users into chunks, in order."""
        used, streamed = self._used(candidates), stream_starts(candidates)
        first, users = 0, len(candidates.users)
        while first < users:
            last = last_within(used, first, self.memory)
            if self.pairs is not None:
                last = min(last, last_within(streamed, first, self.pairs))
            yield Chunk(candidates, first, max(first + 1, last))
            first = max(first + 1, last)

    def largest_user(self, candidates: Candidates) -> int:
        """Return the bytes of the user who needs the most memory, the minimum for a chunk."""
        return int(np.diff(self._used(candidates)).max(initial=0))

    def _used(self, candidates: Candidates) -> Int64Array:
        """Return the cumulative bytes of the users before each user, ``[U + 1]``."""
        index_bytes = _LISTED_BYTES if candidates.listed else _EXCLUDED_BYTES
        rows = candidates.kept_rows(self.top_k)
        per_user = self.user_bytes + index_bytes * candidates.pairs.counts + _ROW_BYTES * rows
        return np.concatenate([[0], per_user.cumsum()]) + _PAIR_BYTES * stream_starts(candidates)


def stream_pairs(candidates: Candidates) -> int:
    """Return the number of computed pairs, with excluded pairs."""
    return int(stream_starts(candidates)[-1])


def stream_starts(candidates: Candidates) -> Int64Array:
    """Return the cumulative pairs in the stream of the users before each user, ``[U + 1]``."""
    if candidates.listed:
        return candidates.pairs.starts
    return np.arange(len(candidates.users) + 1) * len(candidates.items)


def last_within(starts: Int64Array, first: int, limit: int) -> int:
    """Return the last index whose start is at most ``limit`` after that of the first."""
    return int(np.searchsorted(starts, starts[first] + limit, side="right")) - 1
