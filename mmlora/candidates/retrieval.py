"""The retrieval stage: preselect each user's best N items by a cheap score, for the full model to score.

The cheap score is a dot product of a user's and an item's vector, or the item's popularity. The size of a
block of users depends only on the number of items, and each block is computed by one thread, so the same load
keeps the same items with any number of threads and any memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from mmlora.candidates.pairs import Candidates, Int64Array, PairIndex
from mmlora.load_checks import Recall
from mmlora.schema import ITEM_ID, USER_ID

RECALL_AT = 100
_RECALL_USERS, _LEAST_USERS, _RECALL_PAIRS = 200, 20, 20_000_000
CHUNK_USERS, BLOCK_USERS, _BLOCK_PAIRS = 1024, 256, 1 << 22
KeptItems = tuple[Int64Array, npt.NDArray[np.int32]]
# Some rows of users -> scores of all items, ``[last - first, I]`` float32, which may be written to.
ScoreItems = Callable[[int, int], Tensor]
# Users ``first..last - 1``, a chunk -> a function that scores some of its users, with rows counted from
# ``first``.
ScoreChunk = Callable[[int, int], ScoreItems]
# The built-in ``map``, or one whose calls run side by side.
BlockMap = Callable[[Callable[[int], KeptItems], Iterable[int]], Iterator[KeptItems]]


def popular(popularity: npt.NDArray[np.float32]) -> ScoreChunk:
    """Return scores that are the same for every user: the items' popularity, ``[I]``."""
    row = torch.from_numpy(popularity)
    return lambda *chunk: lambda first, last: row.repeat(last - first, 1)


def retrieve(
    candidates: Candidates, chunk_scores: ScoreChunk, keep: int, *, run: BlockMap = map
) -> Candidates:
    """Keep each user's best items.

    Args:
        candidates: users x items minus what is left out.
        chunk_scores: the cheap score.
        keep: number of items kept per user, fewer than there are; of equal scores the first by id are kept.
        run: computes blocks in parallel.

    Returns:
        The kept pairs, as a list.
    """
    users, size = len(candidates.users), int(np.clip(_BLOCK_PAIRS // len(candidates.items), 1, BLOCK_USERS))
    parts: list[KeptItems] = []
    for start in range(0, users, CHUNK_USERS):
        end = min(start + CHUNK_USERS, users)
        scores = chunk_scores(start, end)

        def block(first: int, start: int = start, end: int = end, scores: ScoreItems = scores) -> KeptItems:
            last = min(first + size, end)
            own = candidates.pairs.between(first, last)
            return _best(scores(first - start, last - start).numpy(), own, keep)

        parts += run(block, range(start, end, size))
    counts = np.concatenate([np.zeros(1, np.int64), *(counts for counts, _ in parts)])
    rows = np.concatenate([np.zeros(0, np.int32), *(rows for _, rows in parts)])
    return Candidates(candidates.users, candidates.items, PairIndex(counts.cumsum(), rows), listed=True)


def _best(scores: npt.NDArray[np.float32], left_out: tuple[Int64Array, Int64Array], keep: int) -> KeptItems:
    """Return how many items each user of a block keeps, and which, ascending within a user."""
    items = scores.shape[1]
    scores[left_out] = -np.inf
    least = np.partition(scores, items - keep, axis=1)[:, items - keep]
    kept = ~(scores < least[:, None])  # NaNs are kept, so that the audit finds them
    kept[left_out] = False
    counts = kept.sum(1)
    for user in np.flatnonzero(counts > keep):
        equal = np.flatnonzero(kept[user] & (scores[user] == least[user]))
        kept[user, equal[len(equal) - (counts[user] - keep) :]] = False
    return np.minimum(counts, keep), (np.flatnonzero(kept) % items).astype(np.int32)


def sampled_users(candidates: Candidates) -> Int64Array:
    """Return rows of evenly spread users to measure recall on: up to 200, fewer if there are many items."""
    most = np.clip(_RECALL_PAIRS // max(len(candidates.items), 1), _LEAST_USERS, _RECALL_USERS)
    rows = np.flatnonzero(candidates.counts)
    return np.asarray(rows[np.unique(np.linspace(0, len(rows) - 1, min(int(most), len(rows))).astype(int))])


def recall(kept: Candidates, lists: pa.Table) -> Recall:
    """Compare the kept pairs with the full model's lists.

    Args:
        kept: the result of :func:`retrieve`.
        lists: user_id and item_id of the best of all items, for some users.
    """
    user, item = (
        pc.index_in(lists.column(name), value_set=values).to_numpy().astype(np.int64)
        for name, values in ((USER_ID, kept.users), (ITEM_ID, kept.items))
    )
    user_rows, inverse = np.unique(user, return_inverse=True)
    hit = np.zeros(len(user), bool)
    for place, row in enumerate(user_rows):
        mine = inverse == place
        hit[mine] = np.isin(item[mine], kept.pairs.between(int(row), int(row) + 1)[1])
    counts = np.bincount(inverse, minlength=len(user_rows))
    shares = np.bincount(inverse, hit, minlength=len(user_rows)) / np.maximum(counts, 1)
    return Recall(RECALL_AT, len(user_rows), float(shares.mean()) if len(shares) else None)
