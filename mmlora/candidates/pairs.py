"""The pairs of one domain and date: users, items, and either a list of pairs or those left out of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairIndex:
    """Pairs as positions in the sorted users and items (compressed sparse rows).

    Attributes:
        starts: user u's pairs are ``item_rows[starts[u]:starts[u + 1]]``, ``[U + 1]``.
        item_rows: positions of the items, ascending within a user; int32 if there are many.
    """

    starts: Int64Array
    item_rows: npt.NDArray[np.integer]

    @classmethod
    def from_rows(cls, user_rows: Int64Array, item_rows: Int64Array, users: int) -> PairIndex:
        """Build from pairs that are sorted by user, then item."""
        starts = np.searchsorted(user_rows, np.arange(users + 1)).astype(np.int64)
        return cls(starts, item_rows)

    @property
    def counts(self) -> Int64Array:
        """Number of pairs of each user, ``[U]``."""
        return np.diff(self.starts)

    def between(self, first: int, last: int) -> tuple[Int64Array, Int64Array]:
        """Return the pairs of users ``first..last - 1``: user rows counted from ``first``, and item rows."""
        user_rows = np.repeat(np.arange(last - first, dtype=np.int64), self.counts[first:last])
        return user_rows, self.item_rows[self.starts[first] : self.starts[last]].astype(np.int64, copy=False)


@dataclass(frozen=True)
class Candidates:
    """The pairs of one domain and date.

    Attributes:
        users: ids of the users, sorted, distinct.
        items: ids of the items, sorted, distinct.
        pairs: if ``listed``, the pairs to score; otherwise the pairs to leave out of users x items.
        listed: whether ``pairs`` lists the pairs to score.
    """

    users: pa.Array
    items: pa.Array
    pairs: PairIndex
    listed: bool = False

    @property
    def counts(self) -> Int64Array:
        """Number of pairs to score of each user, ``[U]``."""
        return self.pairs.counts if self.listed else len(self.items) - self.pairs.counts

    @property
    def num_pairs(self) -> int:
        """Number of pairs to score."""
        return int(self.counts.sum())

    @property
    def num_users(self) -> int:
        """Number of users with a pair to score."""
        return int((self.counts > 0).sum())

    def kept_rows(self, top_k: int) -> Int64Array:
        """Return the number of rows of each user in a load, ``[U]``: at most ``top_k`` (0: all pairs)."""
        return np.minimum(self.counts, top_k) if top_k else self.counts

    def expected_rows(self, top_k: int) -> int:
        """Return the number of rows of a load (see :meth:`kept_rows`)."""
        return int(self.kept_rows(top_k).sum())

    def of_users(self, rows: Int64Array) -> Candidates:
        """Return the candidates of some users, given by ascending rows."""
        starts, item_rows = self.pairs.starts, self.pairs.item_rows
        gaps = np.flatnonzero(np.diff(rows) != 1) + 1  # runs of neighbours are taken at once
        runs = [run for run in np.split(rows, gaps) if len(run)]
        own = [item_rows[starts[run[0]] : starts[run[-1] + 1]] for run in runs]
        counts = np.concatenate([np.zeros(1, np.int64), self.pairs.counts[rows]])
        pairs = PairIndex(counts.cumsum(), np.concatenate([item_rows[:0], *own]))
        return Candidates(self.users.take(pa.array(rows)), self.items, pairs, self.listed)
