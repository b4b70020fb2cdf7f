"""Merge rows that are carried over from an earlier night with rows that are scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmlora.candidates.pairs import Int64Array
from mmlora.load_checks import Carried
from mmlora.numerics import Numerics
from mmlora.scoring.blocks import last_within
from mmlora.scoring.rows import RowStream
from mmlora.scoring.staging import ROWS_PER_GROUP


@dataclass(frozen=True)
class CarriedRows:
    """Rows of some users of a load that are not scored.

    Attributes:
        load_id: the load that they come from.
        users: whether a user's rows are carried over, ``[U]``.
        file: Parquet file of the rows, in the schema of the scores, by user and position.
        numerics: the environments that computed them.
    """

    load_id: str
    users: NDArray[np.bool_]
    file: Path
    numerics: frozenset[Numerics]

    def facts(self, kept: Int64Array) -> Carried:
        """Return what is kept with the load; ``kept`` is the number of rows of each user."""
        rows, total = int(kept[self.users].sum()), int(kept.sum())
        return Carried(self.load_id, int((self.users & (kept > 0)).sum()), rows, rows / max(total, 1))


class MergedRows:
    """The rows of a load, from two streams.

    Args:
        scored: the rows of the users who are scored.
        carried: what is carried over; None if nothing is.
        kept: number of rows of each user, ``[U]``.
    """

    def __init__(self, scored: RowStream, carried: CarriedRows | None, kept: Int64Array) -> None:
        self._scored, self._kept = scored, kept
        self._starts = np.concatenate([np.zeros(1, np.int64), kept.cumsum()])
        self._users = np.zeros(len(kept), bool) if carried is None else carried.users
        self._carried = RowStream(iter(()) if carried is None else _read(carried.file))

    def take(self, first: int, last: int) -> Iterator[pa.Table]:
        """Yield the rows of users ``first..last - 1``, who follow those taken before."""
        while first < last:
            end = min(max(first + 1, last_within(self._starts, first, ROWS_PER_GROUP)), last)
            yield from self._take(first, end)
            first = end

    def skip(self, first: int, last: int) -> None:
        """Leave out users ``first..last - 1``, who are not scored either."""
        for _ in self._carried.take(int(self._kept[first:last][self._users[first:last]].sum())):
            pass

    def end(self) -> None:
        """Read both streams to their ends; see :meth:`RowStream.end`."""
        self._scored.end()
        self._carried.end()

    def _take(self, first: int, last: int) -> Iterator[pa.Table]:
        kept, users = self._kept[first:last], self._users[first:last]
        carried, scored = int(kept[users].sum()), int(kept[~users].sum())
        if not carried or not scored:
            yield from self._scored.take(scored)
            yield from self._carried.take(carried)
            return
        rows = pa.concat_tables([*self._scored.take(scored), *self._carried.take(carried)])
        of_carried = np.repeat(users, kept)
        order = np.empty(len(of_carried), np.int64)
        order[~of_carried] = np.arange(scored)
        order[of_carried] = np.arange(scored, scored + carried)
        yield rows.take(pa.array(order))


def _read(file: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(ROWS_PER_GROUP):
            yield pa.Table.from_batches([batch])
