"""The entity rows of a retrieval: convert them to Arrow and check them against the views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from mmlora.duck import in_memory
from mmlora.errors import ContractError, UsageError
from mmlora.features.asof.sql import ViewColumns

if TYPE_CHECKING:
    import pandas as pd

KNOWN_AS_OF = "known_as_of"
_EVENT_TIMESTAMP = "event_timestamp"


def fetch(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, object] | None = None
) -> pa.Table:
    """Return a query's result as an Arrow table."""
    return connection.sql(query, params=dict(parameters or {})).to_arrow_table()


def entity_rows(entity_df: pd.DataFrame | pa.Table | str) -> tuple[pa.Table, datetime | None]:
    """Return the rows as an Arrow table, and their ``known_as_of`` moment if they state one."""
    if isinstance(entity_df, str):
        with in_memory() as connection:
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
    """Return the name of the rows' time column: ``event_timestamp``, or the only timestamp column."""
    times = [f.name for f in entities.schema if pa.types.is_timestamp(f.type)]
    if _EVENT_TIMESTAMP in entities.column_names or len(times) != 1:
        times = [_EVENT_TIMESTAMP]
    if times[0] not in entities.column_names:
        raise UsageError(
            f"entity rows need a column {_EVENT_TIMESTAMP}; they have {', '.join(entities.column_names)}"
        )
    return str(times[0])


def check_names(entities: pa.Table, views: Sequence[ViewColumns]) -> None:
    """Reject a result in which two columns would have the same name."""
    names = Counter([*entities.column_names, *(name for view in views for name, _ in view.features)])
    if repeated := sorted(name for name, count in names.items() if count > 1):
        raise UsageError(
            f"{', '.join(repeated)} would be in the result twice: rename the entity rows' column, or request "
            "full feature names"
        )


def check_keys(
    connection: duckdb.DuckDBPyConnection, view: ViewColumns, scan: str, entities: pa.Table
) -> None:
    """Reject keys that are missing, or whose type differs from the view's and so can't match."""
    missing = [column for column, _ in view.keys if column not in entities.column_names]
    if missing:
        raise UsageError(f"feature view {view.name} needs {', '.join(missing)} in the entity rows")
    try:
        source = fetch(connection, f"SELECT * FROM {scan} LIMIT 0").schema
    except duckdb.Error as error:
        raise UsageError(
            f"feature view {view.name}: {view.source.path} can't be read as Parquet ({error})"
        ) from error
    columns = [*(name for _, name in view.keys), *(name for _, name in view.features), view.event]
    absent = sorted({c for c in (*columns, view.created) if c} - set(source.names))
    if absent:
        raise ContractError(
            f"feature view {view.name}: {view.source.path} has no column {', '.join(absent)}; it has "
            f"{', '.join(source.names)}",
            expected=", ".join(absent),
            found=", ".join(source.names),
        )
    for column, name in view.keys:
        given, stored = entities.schema.field(column).type, source.field(name).type
        if not same_kind(given, stored) and not pa.types.is_null(given):
            raise ContractError(
                f"{column} is {given} in the entity rows, but {stored} in feature view {view.name}: "
                "use ids of the imported type",
                expected=str(stored),
                found=str(given),
            )


def same_kind(left: pa.DataType, right: pa.DataType) -> bool:
    """Whether ids of two types can be equal: both are integers, or both are strings."""
    return _kind(left) == _kind(right)


def _kind(of: pa.DataType) -> str:
    if pa.types.is_dictionary(of):
        return _kind(of.value_type)
    if pa.types.is_integer(of):
        return "integer"
    if pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of):
        return "string"
    return str(of)
