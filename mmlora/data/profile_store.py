"""Adds the new versions of one profile table to the store, keeping one schema over all its files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from mmlora.data.commit import Commit
from mmlora.data.merge import new_profiles
from mmlora.data.profiles import VECTOR
from mmlora.errors import ContractError, DataError
from mmlora.schema import CREATED_TIMESTAMP, ENTITY_KEYS, EVENT_TIMESTAMP, Entity


def add_profile(
    commit: Commit, folder: Path, incoming: pa.Table, *, entity: Entity, imported_at: datetime
) -> tuple[int, list[str]]:
    """Stage an entity's new profile versions.

    A feature that the store lacks is added: its earlier versions get null. A feature that the import lacks
        is an error, for there is no telling whether its values still hold.

    Returns:
        The versions staged, and the columns left out because they hold no value.

    Raises:
        DataError: no feature holds any value.
        ContractError: features are missing or their types differ from the stored ones.
    """
    key = ENTITY_KEYS[entity]
    files = sorted(folder.glob("*.parquet"))
    stored = pa.concat_tables([pq.ParquetFile(file).read() for file in files]) if files else None
    known = set(stored.column_names) if stored is not None else set()
    empty = [f.name for f in incoming.schema if pt.is_null(f.type) and f.name not in known]
    incoming = incoming.drop_columns(empty)
    if set(incoming.column_names) <= {key, EVENT_TIMESTAMP}:
        raise DataError(f"{entity} profiles", f"no column but {key} holds any value")
    if stored is None:
        versions = new_profiles(incoming, None, key=key, imported_at=imported_at)
    else:
        incoming = _fit(incoming, stored, entity)
        gained = [
            f for f in incoming.schema if f.name not in stored.column_names and f.name != EVENT_TIMESTAMP
        ]
        for f in gained:
            stored = stored.append_column(f, pa.nulls(stored.num_rows, f.type))
        versions = new_profiles(incoming, stored, key=key, imported_at=imported_at)
        if gained:
            commit.add_table(f"profiles/{entity}", stored)
            for file in files:
                commit.remove(file)
    if versions.num_rows:
        commit.add_table(f"profiles/{entity}", versions)
    return versions.num_rows, empty


def _fit(incoming: pa.Table, stored: pa.Table, entity: Entity) -> pa.Table:
    """Return the incoming features in the stored order and types, gained ones last."""
    key = ENTITY_KEYS[entity]
    features = [name for name in stored.column_names if name not in (key, EVENT_TIMESTAMP, CREATED_TIMESTAMP)]
    wrong = []
    columns = {
        name: incoming.column(name) for name in (key, EVENT_TIMESTAMP) if name in incoming.column_names
    }
    for name in features:
        if name not in incoming.column_names:
            wrong.append(f"{name} is missing")
            continue
        column, kind = incoming.column(name), stored.schema.field(name).type
        if pt.is_timestamp(column.type) and pt.is_floating(kind):
            column = _days(column)  # as stores of before timestamps hold dates
        if not _castable(column, stored.column(name)):
            wrong.append(
                f"{name} is {column.type}{_width(column)}, stored is {kind}{_width(stored.column(name))}"
            )
            continue
        columns[name] = column.cast(kind, safe=False)
    if wrong:
        message = f"{entity} profiles differ from the stored ones: {'; '.join(wrong)}; bring them in line"
        raise ContractError(message, expected=features, found=incoming.column_names)
    return pa.table({**columns, **{n: incoming.column(n) for n in incoming.column_names if n not in columns}})


def _days(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the days since 1970."""
    return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), 86_400e6)


def _castable(incoming: pa.ChunkedArray, stored: pa.ChunkedArray) -> bool:
    """Say whether nothing but precision is lost: numbers may become floats, empty columns anything."""
    came, kind = incoming.type, stored.type
    if came == VECTOR and kind == VECTOR:
        return None in (_lengths(incoming), _lengths(stored)) or _lengths(incoming) == _lengths(stored)
    number = pt.is_integer(came) or pt.is_floating(came)
    return bool(came == kind or pt.is_null(came) or (number and pt.is_floating(kind)))


def _lengths(column: pa.ChunkedArray) -> int | None:
    """Return the width of a vector column (None without values)."""
    return int(top) if (top := pc.max(pc.list_value_length(column)).as_py()) is not None else None


def _width(column: pa.ChunkedArray) -> str:
    return f" of width {_lengths(column)}" if column.type == VECTOR else ""
