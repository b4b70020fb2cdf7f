"""Runs the ASOF joins of one retrieval: views made ready once, entity rows joined chunk by chunk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
_JOIN_BYTES = 120
"""What a row costs beside its own columns while it is joined: keys, time and numbers, sorted."""


@dataclass(frozen=True)
class Features:
    """The features of a view's ready rows.

    Attributes:
        columns: one array each.
        position: where in them the row of each place is.
        events: the rows' event times (microseconds), where they expire.
        ttl: how long a row can be read (microseconds); None for ever.
    """

    columns: tuple[pa.Array, ...]
    position: np.ndarray
    events: np.ndarray
    ttl: int | None

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        return int(sum(column.nbytes for column in self.columns) + self.position.nbytes + self.events.nbytes)

    @property
    def row_bytes(self) -> float:
        """Memory that a result row takes."""
        rows = max(1, len(self.columns[0]) if self.columns else 1)
        return float(sum(column.nbytes for column in self.columns) / rows)

    def gather(self, place: np.ndarray, times: np.ndarray, pool: ThreadPoolExecutor) -> list[pa.Array]:
        """Return the features of the rows of these places; null for -1, and where a row has expired.

        Args:
            place: the place of each entity row's row.
            times: the entity rows' times (microseconds).
            pool: gathers columns side by side.
        """
        nobody = place < 0
        if not len(self.position):
            return [pa.nulls(len(place), column.type) for column in self.columns]
        position = self.position[place]
        if self.ttl is not None:
            nobody |= self.events[position] < times - self.ttl
        index = pa.array(position, mask=nobody)
        return list(pool.map(lambda column: column.take(index), self.columns))


class AsofJoin:
    """Entity rows, the views to join with them, and what is known.

    Args:
        entities: the entity rows.
        time: their time column.
        views: the views.
        known_as_of: the moment as of which all is known, if there is one.
        by_created: whether a row is hidden before its created time, when there is no such moment.

    Raises:
        UsageError: keys that the views need, or their Parquet, are missing.
        ContractError: keys or features are of another kind than the views say.
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
        with duckdb.connect() as connection:
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
        """Join chunk by chunk, in the order asked; at least one table comes, so that its schema does.

        Args:
            connection: the database to work in.
            rows: entity rows joined at once, of which no more than keys, times and places are held.
            piece: rows whose features are gathered at once, those of a table; all that are joined when None.
            budget: bytes within which the chunks and the views' features must keep, half of what the job was
                given; makes ``rows`` smaller.

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
                times, places = self._places(connection, query, part)
                for at in range(0, max(1, len(part)), piece or rows):
                    some = slice(at, at + (piece or rows))
                    table = part.slice(at, piece or rows)
                    for view, of, place in zip(self._views, features, places, strict=True):
                        columns = of.gather(place[some], times[some], pool)
                        for (name, _), column in zip(view.features, columns, strict=True):
                            table = table.append_column(name, column)
                    yield table

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> tuple[bool, list[Features]]:
        self._show(connection, self.entities)
        earliest, latest = (
            connection.execute(f"SELECT min({TIME}), max({TIME}) FROM asked").fetchone() or (None,) * 2
        )
        asked = {"earliest": earliest, "latest": latest, "known_as_of": self._known_as_of or latest}
        snapshot = earliest is not None and earliest == latest
        found = []
        for number, (view, scan) in enumerate(zip(self._views, self._scans, strict=True)):
            query = read_sql(view, scan, number, snapshot=snapshot, known=self._known)
            connection.execute(query, {name: value for name, value in asked.items() if f"${name}" in query})
            connection.execute(ready_sql(view, number, snapshot=snapshot, known=self._known))
            found.append(_features(connection, view, number))
            connection.execute(f"DROP TABLE source{number}")
        return snapshot, found

    def _places(
        self, connection: duckdb.DuckDBPyConnection, query: str, part: pa.Table
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the rows' times (microseconds), and for each view the places of the rows that they read."""
        times = part.column(self._time).cast(_TIMESTAMP, safe=False).cast(pa.int64())
        times = pc.fill_null(times, 0).to_numpy()
        if not self._views:
            return times, []
        self._show(connection, part)
        found = fetch(connection, query)
        row = found.column(ROW).to_numpy()
        places = []
        for number in range(len(self._views)):
            # Rows come back in any order: writing each to its number puts them right without a sort.
            place = np.empty(len(part), np.int64)
            place[row] = found.column(f"p{number}").to_numpy()
            places.append(place)
        return times, places

    def _show(self, connection: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
        """Make ``asked`` of these rows: their numbers, times and keys."""
        keys = {column for view in self._views for column, _ in view.keys}
        times = rows.column(self._time).cast(_TIMESTAMP, safe=False)
        shown = rows.select(sorted(keys)).append_column(TIME, times)
        connection.register("asked", shown.append_column(ROW, pa.array(np.arange(len(rows)))))

    def _rows_within(self, budget: int, features: Sequence[Features]) -> int:
        held = sum(of.bytes for of in features)
        if held * 2 > budget:
            raise UsageError(
                f"the views' features take {held >> 20} MiB, which leaves too little of a memory budget of "
                f"{budget * 2 >> 20} MiB: give at least {(held * 4 >> 20) + 1} MiB, or ask for fewer features"
            )
        own = self.entities.nbytes / max(1, len(self.entities))
        return max(1000, int((budget - held) / (own + _JOIN_BYTES + sum(of.row_bytes for of in features))))


def _features(connection: duckdb.DuckDBPyConnection, view: ViewColumns, number: int) -> Features:
    counts = f"SELECT (SELECT count(*) FROM source{number}), (SELECT count(*) FROM ready{number})"
    ((rows, ready),) = connection.execute(counts).fetchall()
    # Where nearly all rows are ready, sorting out the others costs more than keeping them.
    table = fetch(connection, features_sql(view, number, all_rows=2 * ready > rows))
    # Half the width is half the time that looking up takes.
    width = np.int32 if len(table) < 2**31 else np.int64
    position = np.zeros(rows, width)
    position[table.column("place").to_numpy()] = np.arange(len(table), dtype=width)
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
    return Features(tuple(columns), position, events, ttl)
