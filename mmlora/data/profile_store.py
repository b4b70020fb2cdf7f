"""Adds the new versions of one profile table to the store, keeping one schema over all its files."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from mmlora.data.commit import Commit
from mmlora.data.faults import FaultList
from mmlora.data.lists import VECTOR
from mmlora.data.profile_merge import new_profiles
from mmlora.errors import ContractError, DataError
from mmlora.schema import CREATED_TIMESTAMP, ENTITY_KEYS, EVENT_TIMESTAMP, Entity


@dataclass(frozen=True)
class AddedProfile:
    """What was staged of a profile table.

    Attributes:
        versions: the new versions.
        first: whether these are the entity's first.
        empty: columns left out because they have no values.
        gained: features that the store didn't have.
        lacking: stored features that the delivery doesn't have.
        retyped: stored integers that became texts.
    """

    versions: pa.Table
    first: bool
    empty: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()


def stored_schema(folder: Path) -> pa.Schema | None:
    """Return the schema of an entity's stored profiles; None when it has none."""
    file = next(iter(sorted(folder.glob("*.parquet"))), None)
    return pq.read_schema(file) if file is not None else None


def add_profile(
    commit: Commit,
    folder: Path,
    incoming: pa.Table,
    *,
    entity: Entity,
    delivered: datetime,
    since: pa.Table | None,
    texts: Collection[str] = (),
) -> AddedProfile:
    """Stage an entity's new profile versions.

    A feature that the store lacks is added, with nulls in earlier versions. One that the delivery lacks is
    null in the new versions. Stored integers become texts if ``texts`` names their column.

    Raises:
        DataError: no feature has any value, or values don't fit the stored type.
        ContractError: types differ from the stored ones.
    """
    key = ENTITY_KEYS[entity]
    files = sorted(folder.glob("*.parquet"))
    stored = pa.concat_tables([pq.ParquetFile(file).read() for file in files]) if files else None
    known = set(stored.column_names) if stored is not None else set()
    empty = [f.name for f in incoming.schema if pt.is_null(f.type) and f.name not in known]
    incoming = incoming.drop_columns(empty)
    if set(incoming.column_names) <= {key, EVENT_TIMESTAMP}:
        raise DataError(f"{entity} profiles", f"no column except {key} has any values")
    if stored is None:
        versions = new_profiles(incoming, None, key=key, delivered=delivered, since=since)
        commit.add_table(f"profiles/{entity}", versions)
        return AddedProfile(versions, True, tuple(empty))
    retyped = [name for name in texts if name in known and pt.is_integer(stored.schema.field(name).type)]
    for name in retyped:
        place = stored.column_names.index(name)
        stored = stored.set_column(place, name, stored.column(name).cast(pa.string()))
    lacking = [name for name in _features(stored, key) if name not in incoming.column_names]
    incoming = _fit(incoming, stored, entity)
    gained = [f for f in incoming.schema if f.name not in known and f.name != EVENT_TIMESTAMP]
    for f in gained:
        stored = stored.append_column(f, pa.nulls(stored.num_rows, f.type))
    versions = new_profiles(incoming, stored, key=key, delivered=delivered, since=None)
    if gained or retyped:
        commit.add_table(f"profiles/{entity}", stored)
        for file in files:
            commit.remove(file)
    if versions.num_rows:
        commit.add_table(f"profiles/{entity}", versions)
    names = tuple(f.name for f in gained)
    return AddedProfile(versions, False, tuple(empty), names, tuple(lacking), tuple(retyped))


def _features(table: pa.Table, key: str) -> list[str]:
    return [name for name in table.column_names if name not in (key, EVENT_TIMESTAMP, CREATED_TIMESTAMP)]


def _fit(incoming: pa.Table, stored: pa.Table, entity: Entity) -> pa.Table:
    """Return the incoming features in the stored order and types, gained ones last."""
    key = ENTITY_KEYS[entity]
    features = _features(stored, key)
    faults = FaultList(incoming, (key,))
    wrong = []
    columns = {
        name: incoming.column(name) for name in (key, EVENT_TIMESTAMP) if name in incoming.column_names
    }
    for name in features:
        kind = stored.schema.field(name).type
        if name not in incoming.column_names:
            columns[name] = pa.nulls(incoming.num_rows, kind)
            continue
        column = incoming.column(name)
        if pt.is_timestamp(column.type) and pt.is_floating(kind):
            column = _days(column)  # because older stores have dates instead of timestamps
        if pt.is_floating(column.type) and pt.is_integer(kind):
            columns[name] = _whole(column, name, faults)
        elif _castable(column, stored.column(name)):
            columns[name] = column.cast(kind, safe=False)
        else:
            width, stored_width = _width(column), _width(stored.column(name))
            wrong.append(f"{name} is {column.type}{width}, but stored as {kind}{stored_width}")
    faults.raise_if_any(f"{entity} profiles")
    if wrong:
        message = f"{entity} profiles differ from the stored ones: {'; '.join(wrong)}; convert them"
        raise ContractError(message, expected=features, found=incoming.column_names)
    return pa.table({**columns, **{n: incoming.column(n) for n in incoming.column_names if n not in columns}})


def _whole(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray:
    """Return floats as integers: 25.0 is written like this if other rows are missing."""
    exact = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), float(2**53)))
    faults.add_rows(
        "not an integer below 2**53, but the stored values are integers; convert it",
        name,
        pc.invert(exact),
    )
    return pc.if_else(exact, column, pa.scalar(None, column.type)).cast(pa.int64())


def _days(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the days since 1970."""
    return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), 86_400e6)


def _castable(incoming: pa.ChunkedArray, stored: pa.ChunkedArray) -> bool:
    """Return whether at most precision is lost: numbers may become floats, empty columns anything."""
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
