"""What is known on a scoring date, as tables of one DuckDB connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from mmlora.candidates.report import FIRST_NAMED
from mmlora.duck import in_memory
from mmlora.errors import DataError
from mmlora.load_checks import Unknown
from mmlora.resources import sql
from mmlora.schema import ENTITY_KEYS, Entity, Id, midnight

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class KnownData:
    """A connection with a table ``known`` of the interactions before the date, as they were known by then.

    Its columns are user_id, item_id, here (whether in the domain), event_timestamp and clicked.

    Attributes:
        connection: the DuckDB connection.
        offline: the offline store's folder.
        domain: the domain.
        on: scoring date D; only what happened before D 00:00 UTC counts.
        known_as_of: only what was known by then counts.
    """

    connection: DuckDBPyConnection
    offline: Path
    domain: Id
    on: date
    known_as_of: datetime

    @property
    def cutoff(self) -> datetime:
        """D 00:00 UTC."""
        return midnight(self.on)

    def since(self, days: int) -> datetime:
        """Return the time this many days before D."""
        return self.cutoff - timedelta(days=days)

    def make(self, name: str, query: str, **parameters: object) -> int:
        """Create a table of a query's rows; return their number."""
        made = self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}", parameters or None)
        return int(made.fetchall()[0][0])

    def number(self, query: str, **parameters: object) -> int:
        """Return the single number that a query returns."""
        return int(self.connection.execute(query, parameters or None).fetchall()[0][0])

    def column(self, query: str, **parameters: object) -> pa.Array:
        """Return the single column that a query returns."""
        values = self.rows(query, **parameters).column(0).combine_chunks()
        return values.cast(pa.string()) if pa.types.is_large_string(values.type) else values

    def rows(self, query: str, **parameters: object) -> pa.Table:
        """Return a query's rows."""
        return self.connection.sql(query, params=parameters or None).to_arrow_table()

    def profile_files(self, entity: Entity) -> list[str]:
        """Return the files of an entity's profile versions."""
        return [str(path) for path in sorted((self.offline / "profiles" / entity).glob("**/*.parquet"))]

    def make_everyone(self) -> int:
        """Create ``everyone`` with all users that have an interaction or a profile; return their number."""
        return self._make_all("everyone", "user")

    def make_everything(self) -> int:
        """Create ``everything`` with all items that have an interaction or a profile; return their number."""
        return self._make_all("everything", "item")

    def _make_all(self, name: str, entity: Entity) -> int:
        key, files = ENTITY_KEYS[entity], self.profile_files(entity)
        if not files:
            return self.make(name, f"SELECT DISTINCT {key} FROM known")
        query = (
            f"SELECT {key} FROM known UNION "
            f"SELECT {key} FROM read_parquet($files) "
            "WHERE event_timestamp <= $cutoff AND created_timestamp <= $known_as_of"
        )
        return self.make(name, query, files=files, cutoff=self.cutoff, known_as_of=self.known_as_of)

    def unknown(self, table: str, entity: Entity, name: str) -> list[Unknown]:
        """Return the ids of a table that have neither an interaction nor a profile.

        Args:
            table: a table of the connection, with the entity's ids.
            entity: ``user`` or ``item``; the table of all of them must exist.
            name: the table's name for messages.
        """
        key, known = ENTITY_KEYS[entity], "everyone" if entity == "user" else "everything"
        count = self.make("unknown", f"SELECT DISTINCT {key} FROM {table} ANTI JOIN {known} USING ({key})")
        if not count:
            return []
        first = self.column(f"SELECT {key} FROM unknown ORDER BY 1 LIMIT {FIRST_NAMED}")
        return [Unknown(name, "users" if entity == "user" else "items", count, tuple(first.to_pylist()))]


@contextmanager
def open_known(
    offline: Path, *, domain: Id, on: date, known_as_of: datetime | None = None
) -> Iterator[KnownData]:
    """Read the interactions that were known on a date; see :class:`KnownData`.

    Raises:
        DataError: nothing has been imported.
    """
    folder = offline / "interactions"
    if not any(folder.glob("**/*.parquet")):
        raise DataError(str(folder), "there are no interactions: import data first (mmlora data --help)")
    current = sql("interactions_current.sql").strip().rstrip(";")
    with in_memory(ordered=False) as connection:
        known = KnownData(connection, offline, domain, on, known_as_of or midnight(on))
        known.make(
            "known",
            "SELECT user_id, item_id, domain_id = $domain AS here, event_timestamp, label > 0 AS clicked "
            f"FROM ({current}) WHERE event_timestamp < $cutoff",
            domain=domain,
            cutoff=known.cutoff,
            known_as_of=known.known_as_of,
            interactions=str(folder / "**" / "*.parquet"),
        )
        yield known
