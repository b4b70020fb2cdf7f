"""Who is scored on what: users x items less what each user has had, never written out as pairs.

The query is ``sql/candidates.sql``. A pair table of the user's own (:mod:`mmlora.scoring.pair_table`) gives
the same :class:`Candidates`, so whoever scores needn't know where they came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmlora.errors import DataError
from mmlora.resources import sql
from mmlora.schema import Id, midnight

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairIndex:
    """Pairs as places in the sorted users and items (compressed sparse rows).

    Attributes:
        starts: user u's pairs are ``item_rows[starts[u]:starts[u + 1]]``, ``[U + 1]``.
        item_rows: places of the items, ascending inside a user.
    """

    starts: Int64Array
    item_rows: Int64Array

    @classmethod
    def from_rows(cls, user_rows: Int64Array, item_rows: Int64Array, users: int) -> PairIndex:
        """Build from pairs that are sorted by user, then item."""
        starts = np.searchsorted(user_rows, np.arange(users + 1)).astype(np.int64)
        return cls(starts, item_rows)

    @property
    def counts(self) -> Int64Array:
        """Pairs of each user, ``[U]``."""
        return np.diff(self.starts)

    def between(self, first: int, last: int) -> tuple[Int64Array, Int64Array]:
        """Return the pairs of users ``first..last - 1``: user rows counted from ``first``, and item rows."""
        user_rows = np.repeat(np.arange(last - first, dtype=np.int64), self.counts[first:last])
        return user_rows, self.item_rows[self.starts[first] : self.starts[last]]


@dataclass(frozen=True)
class Candidates:
    """The pairs of one domain and date.

    Attributes:
        users: their ids, sorted, distinct.
        items: their ids, sorted, distinct.
        pairs: with ``listed``, the pairs to score; else the pairs to leave out of users x items.
        listed: whether the pairs are a list of their own.
    """

    users: pa.Array
    items: pa.Array
    pairs: PairIndex
    listed: bool = False

    @property
    def counts(self) -> Int64Array:
        """Pairs to score of each user, ``[U]``."""
        return self.pairs.counts if self.listed else len(self.items) - self.pairs.counts

    @property
    def num_pairs(self) -> int:
        """Pairs to score."""
        return int(self.counts.sum())

    @property
    def num_users(self) -> int:
        """Users who have a pair to score."""
        return int((self.counts > 0).sum())

    def expected_rows(self, top_k: int) -> int:
        """Return the rows of a load: each user's pairs, at most ``top_k`` of them (0: all)."""
        counts = self.counts
        return int((np.minimum(counts, top_k) if top_k else counts).sum())


def find_candidates(
    offline: Path, *, domain: Id, on: date, known_as_of: datetime | None = None, active_days: int
) -> Candidates:
    """Find the candidates of a domain on a scoring date.

    Args:
        offline: the offline store's folder.
        domain: the domain.
        on: scoring date D; only what happened before D 00:00 UTC counts.
        known_as_of: what had to have reached us by when (default: D 00:00 UTC).
        active_days: a user is scored who was active in the domain in the last so many days before D.

    Raises:
        DataError: nothing has been imported.
    """
    import duckdb

    folder = offline / "interactions"
    if not any(folder.glob("**/*.parquet")):
        raise DataError(str(folder), "no interactions: import data first (mmlora data --help)")
    cutoff = midnight(on)
    query = sql("candidates.sql").replace(
        "{interactions_current}", sql("interactions_current.sql").strip().rstrip(";")
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        _add_item_profiles(connection, offline / "profiles" / "item")
        found: pa.Table = connection.sql(
            query,
            params={
                "interactions": str(folder / "**" / "*.parquet"),
                "known_as_of": known_as_of or cutoff,
                "domain": domain,
                "active_since": cutoff - timedelta(days=active_days),
                "cutoff": cutoff,
            },
        ).to_arrow_table()
    users, items, excluded_users, excluded_items = (_only_list(found, name) for name in found.column_names)
    excluded = PairIndex.from_rows(
        excluded_users.to_numpy(zero_copy_only=False).astype(np.int64),
        excluded_items.to_numpy(zero_copy_only=False).astype(np.int64),
        len(users),
    )
    return Candidates(users, items, excluded)


def _add_item_profiles(connection: DuckDBPyConnection, folder: Path) -> None:
    """Make ``item_profiles`` from the profile's versions; empty when items have no profile."""
    if any(folder.glob("**/*.parquet")):
        connection.execute(
            "CREATE TEMP TABLE item_profiles AS SELECT item_id, event_timestamp, created_timestamp "
            "FROM read_parquet($1, union_by_name = true)",
            [str(folder / "**" / "*.parquet")],
        )
    else:
        connection.execute(
            "CREATE TEMP TABLE item_profiles AS "
            "SELECT NULL AS item_id, NULL::TIMESTAMPTZ AS event_timestamp, "
            "NULL::TIMESTAMPTZ AS created_timestamp WHERE false"
        )


def _only_list(table: pa.Table, name: str) -> pa.Array:
    """Return the values of the one list in a column (an empty list comes as null)."""
    column = table.column(name).combine_chunks()
    values = column.flatten()
    return values.cast(pa.string()) if pa.types.is_large_string(values.type) else values
