"""The entity rows of a retrieval: read them from whatever came, and check them against the views."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from mmlora.errors import ContractError, UsageError
from mmlora.features.asof_sql import ViewColumns, quote
from mmlora.schema import EVENT_TIMESTAMP

if TYPE_CHECKING:
    import pandas as pd

KNOWN_AS_OF = "known_as_of"


def fetch(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    """Run a query into Arrow."""
    return connection.sql(query).to_arrow_table()


def entity_rows(entity_df: pd.DataFrame | pa.Table | str) -> tuple[pa.Table, datetime | None]:
    """Return the rows as Arrow, and the moment as of which all is known, if they state one."""
    if isinstance(entity_df, str):
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return fetch(connection, entity_df), None
    if isinstance(entity_df, pa.Table):
        stated = (entity_df.schema.metadata or {}).get(KNOWN_AS_OF.encode(), b"").decode()
        table = entity_df.replace_schema_metadata(None)
    else:
        stated = entity_df.attrs.get(KNOWN_AS_OF, "")
        table = pa.Table.from_pandas(entity_df, preserve_index=False).replace_schema_metadata(None)
    if not stated:
        return table, None
    known_as_of = datetime.fromisoformat(str(stated))
    return table, known_as_of if known_as_of.tzinfo else known_as_of.replace(tzinfo=UTC)


def time_column(entities: pa.Table) -> str:
    """Return the column of the rows' times: ``event_timestamp``, or the only timestamp there is."""
    times = [f.name for f in entities.schema if pa.types.is_timestamp(f.type)]
    if EVENT_TIMESTAMP in entities.column_names or len(times) != 1:
        times = [EVENT_TIMESTAMP]
    if times[0] not in entities.column_names:
        raise UsageError(
            f"entity rows need a column {EVENT_TIMESTAMP}; they have {', '.join(entities.column_names)}"
        )
    return str(times[0])


def check_keys(view: ViewColumns, entities: pa.Table) -> None:
    """Refuse keys that are missing or of another kind than the view's, which match nothing or by accident."""
    missing = [column for column, _ in view.keys if column not in entities.column_names]
    if missing:
        raise UsageError(f"feature view {view.name} needs {', '.join(missing)} in the entity rows")
    with duckdb.connect() as connection:
        try:
            columns = ", ".join(quote(source) for _, source in view.keys)
            found = fetch(connection, f"SELECT {columns} FROM {view.scan} LIMIT 0").schema
        except duckdb.IOException as error:
            raise UsageError(
                f"feature view {view.name}: no Parquet under {view.path}; "
                f"run `mmlora features build --through DATE` ({error})"
            ) from None
    for column, source in view.keys:
        asked, stored = entities.schema.field(column).type, found.field(source).type
        if pa.types.is_integer(asked) != pa.types.is_integer(stored) and not pa.types.is_null(asked):
            raise ContractError(
                f"{column} is {asked} in the entity rows, but {stored} in feature view {view.name}: "
                "use the ids as they were imported",
                expected=str(stored),
                found=str(asked),
            )
