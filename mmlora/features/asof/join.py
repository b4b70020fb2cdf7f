"""Run the ASOF joins of a retrieval: prepare the views once, then join the entity rows in chunks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.duck import in_memory, kept
from mmlora.errors import ContractError, UsageError
from mmlora.features.asof.request import check_keys, fetch
from mmlora.features.asof.source import attach
from mmlora.features.asof.sql import (
    ROW,
    TIME,
    Known,
    ViewColumns,
    features_sql,
    join_sql,
    read_sql,
    ready_sql,
)

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_SMALL_VIEW = 2 * 2**20
"""Size of a view's files up to which it is read for all entities."""
_JOIN_BYTES = 120
"""Memory per row during a join, in addition to its columns: sorted keys, time and row numbers."""


@dataclass(frozen=True)
class Features:
    """The features of the rows of a view that can be read.

    Attributes:
        columns: one array per feature.
        index: index into the columns by source row.
        events: the rows' event times (microseconds), if they expire.
        ttl: time to live of a row (microseconds); None if rows don't expire.
    """

    columns: tuple[pa.Array, ...]
    index: np.ndarray
    events: np.ndarray
    ttl: int | None

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return int(sum(column.nbytes for column in self.columns) + self.index.nbytes + self.events.nbytes)

    @property
    def row_bytes(self) -> float:
        """Size in memory of a row of the result."""
        rows = max(1, len(self.columns[0]) if self.columns else 1)
        return float(sum(column.nbytes for column in self.columns) / rows)

    def gather(self, source_rows: np.ndarray, times: np.ndarray, pool: ThreadPoolExecutor) -> list[pa.Array]:
        """Return the features of the given source rows; null for -1 and for expired rows.

        Args:
            source_rows: number of the source row that each entity row reads, -1 for none.
            times: the entity rows' times (microseconds).
            pool: threads that gather the columns.
        """
        missing = source_rows < 0
        if not len(self.index):
            return [pa.nulls(len(source_rows), column.type) for column in self.columns]
        positions = self.index[source_rows]
        if self.ttl is not None:
            missing |= self.events[positions] < times - self.ttl
        indices = pa.array(positions, mask=missing)
        return list(pool.map(lambda column: column.take(indices), self.columns))


class AsofJoin:
    """The join of entity rows with the rows of views, as of the entity rows' times.

    Args:
        entities: the entity rows.
        time: their time column.
        views: the views.
        known_as_of: moment by which rows must be known; None for each entity row's own time.
        by_created: without ``known_as_of``, whether rows are hidden before their created time.

    Raises:
        UsageError: keys that the views need, or the views' Parquet files, are missing.
        ContractError: keys or features don't have the types that the views declare.
    """

    def __init__(
        self,
        entities: pa.Table,
        time: str,
        views: Sequence[ViewColumns],
        known_as_of: datetime | None,
        by_created: bool,
    ) -> None:
        self.entities = entities
        self._time = time
        self._views = views
        self._known_as_of = known_as_of
        self._known: Known = "cutoff" if known_as_of else "row" if by_created else "all"
        self._scans = [view.source.scan() for view in views]
        with in_memory() as connection:
            attach(connection, (view.source for view in views))
            for view, scan in zip(views, self._scans, strict=True):
                check_keys(connection, view, scan, entities)

    def run(
        self,
        connection: duckdb.DuckDBPyConnection,
        *,
        rows: int,
        piece: int | None = None,
        budget: int | None = None,
    ) -> Iterator[pa.Table]:
        """Join the entity rows in chunks and in order; yield at least one table, for its schema.

        Args:
            connection: the database to work in.
            rows: entity rows per join; only their keys, times and row numbers are held.
            piece: rows whose features are gathered at once, i.e. rows per table; None for all rows of a join.
            budget: bytes for the chunks and the views' features, half of the job's budget; it may reduce
                ``rows``.

        Raises:
            UsageError: the views' features alone take more than the budget.
        """
        attach(connection, (view.source for view in self._views))
        snapshot, features = self._prepare(connection)
        if budget is not None:
            rows = min(rows, self._rows_within(budget, features))
        query = join_sql(self._views, snapshot=snapshot)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, max(1, len(self.entities)), rows):
                part = self.entities.slice(start, rows)
                times, source_rows = self._source_rows(connection, query, part)
                for offset in range(0, max(1, len(part)), piece or rows):
                    window = slice(offset, offset + (piece or rows))
                    table = part.slice(offset, piece or rows)
                    for view, of_view, numbers in zip(self._views, features, source_rows, strict=True):
                        columns = of_view.gather(numbers[window], times[window], pool)
                        for (name, _), column in zip(view.features, columns, strict=True):
                            table = table.append_column(name, column)
                    yield table

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> tuple[bool, list[Features]]:
        """Make the tables ``ready<number>``; return whether all rows have one time, and the features."""
        self._register(connection, self.entities)
        times = pc.min_max(self.entities.column(self._time).cast(_TIMESTAMP, safe=False)).as_py()
        earliest, latest = times["min"], times["max"]
        limits = {"earliest": earliest, "latest": latest, "known_as_of": self._known_as_of or latest}
        snapshot = earliest is not None and earliest == latest
        features = []
        for number, (view, scan) in enumerate(zip(self._views, self._scans, strict=True)):
            if snapshot:
                ready, of_view = self._latest(connection, view, scan, limits)
                connection.register(f"ready{number}", ready)
                features.append(of_view)
                continue
            query = read_sql(view, scan, snapshot=False, known=self._known)
            connection.execute(f"CREATE TEMP TABLE source{number} AS {query}", _given(query, limits))
            connection.execute(ready_sql(view, number, known=self._known))
            features.append(_features(connection, view, number))
            connection.execute(f"DROP TABLE source{number}")
        return snapshot, features

    def _latest(
        self,
        connection: duckdb.DuckDBPyConnection,
        view: ViewColumns,
        scan: str,
        limits: Mapping[str, datetime | None],
    ) -> tuple[pa.Table, Features]:
        """Return the rows of a view to join, one per entity, and their features.

        A small view is read for all entities, once for all retrievals of the same time.
        """
        state = view.source.state
        whole = state is not None and sum(size for size, _ in state) <= _SMALL_VIEW
        query = read_sql(view, scan, snapshot=True, known=self._known, whole=whole)
        given = _given(query, limits)

        def read() -> tuple[pa.Table, Features]:
            return _joinable(view, fetch(connection, query, given))

        return kept((query, state, *given.items()), read) if whole else read()

    def _source_rows(
        self, connection: duckdb.DuckDBPyConnection, query: str, part: pa.Table
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the rows' times (microseconds), and per view the source row that each reads."""
        times = part.column(self._time).cast(_TIMESTAMP, safe=False).cast(pa.int64())
        times = pc.fill_null(times, 0).to_numpy()
        if not self._views:
            return times, []
        self._register(connection, part)
        joined = fetch(connection, query)
        row = joined.column(ROW).to_numpy()
        source_rows = []
        for number in range(len(self._views)):
            # DuckDB returns rows in any order: assigning by row number restores the order without a sort.
            ordered = np.empty(len(part), np.int64)
            ordered[row] = joined.column(f"source_row{number}").to_numpy()
            source_rows.append(ordered)
        return times, source_rows

    def _register(self, connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
        """Register the table ``entities``: the rows' numbers, times and keys."""
        keys = {column for view in self._views for column, _ in view.keys}
        times = rows.column(self._time).cast(_TIMESTAMP, safe=False)
        table = rows.select(sorted(keys)).append_column(TIME, times)
        connection.register("entities", table.append_column(ROW, pa.array(np.arange(len(rows)))))

    def _rows_within(self, budget: int, features: Sequence[Features]) -> int:
        held = sum(of_view.bytes for of_view in features)
        if held * 2 > budget:
            raise UsageError(
                f"the views' features take {held >> 20} MiB, which leaves too little of a memory budget of "
                f"{budget * 2 >> 20} MiB: give at least {(held * 4 >> 20) + 1} MiB, or ask for fewer features"
            )
        per_row = self.entities.nbytes / max(1, len(self.entities)) + _JOIN_BYTES
        per_row += sum(of_view.row_bytes for of_view in features)
        return max(1000, int((budget - held) / per_row))


def _given(query: str, parameters: Mapping[str, datetime | None]) -> dict[str, datetime | None]:
    """Return the parameters that a query reads; DuckDB refuses others."""
    return {name: value for name, value in parameters.items() if f"${name}" in query}


def _joinable(view: ViewColumns, table: pa.Table) -> tuple[pa.Table, Features]:
    """Return what a table with one row per entity is joined by (:func:`ready_sql`), and its features."""
    index = np.arange(len(table))
    keys = table.select([f"k{i}" for i in range(len(view.keys))])
    keys = keys.append_column("available", table.column("event"))
    return keys.append_column("source_row", pa.array(index)), _gathered(view, table, index)


def _features(connection: duckdb.DuckDBPyConnection, view: ViewColumns, number: int) -> Features:
    """Return the features of the rows of ``source<number>`` that are in ``ready<number>``."""
    counts = f"SELECT (SELECT count(*) FROM source{number}), (SELECT count(*) FROM ready{number})"
    ((rows, ready),) = connection.execute(counts).fetchall()
    # Where most rows are ready, filtering out the others costs more than keeping them.
    table = fetch(connection, features_sql(view, number, all_rows=2 * ready > rows))
    # Look-ups in 32-bit indices take half the time of 64-bit ones.
    width = np.int32 if len(table) < 2**31 else np.int64
    index = np.zeros(rows, width)
    index[table.column("source_row").to_numpy()] = np.arange(len(table), dtype=width)
    return _gathered(view, table, index)


def _gathered(view: ViewColumns, table: pa.Table, index: np.ndarray) -> Features:
    columns = [table.column(f"f{i}").combine_chunks() for i in range(len(view.features))]
    if any(isinstance(column, pa.ChunkedArray) for column in columns):
        raise ContractError(
            f"feature view {view.name} has a feature of more than 2 GiB: ask for fewer rows at once",
            expected="< 2 GiB",
            found="more",
        )
    events, ttl = np.empty(0, np.int64), None
    if view.ttl:
        events = table.column("event").cast(_TIMESTAMP).cast(pa.int64()).to_numpy()
        ttl = view.ttl // timedelta(microseconds=1)
    return Features(tuple(columns), index, events, ttl)
