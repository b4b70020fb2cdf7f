"""Checks any profile table and gives its columns types that can be features; pure.

Integers become int64 and texts string (both categorical features), booleans the texts ``true`` and
``false``, floats stay (dense; NaN is null), dates and times become UTC timestamps (the model reads the days
since then), lists of text stay (bags), lists of floats of the same length become list<float> (vectors). Lists
of integers are vectors if all have the same length of 2 or more, otherwise bags.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.columns import plain, to_id
from mmlora.data.faults import FaultList
from mmlora.data.hints import missing
from mmlora.data.lists import BAG, VECTOR, is_vector
from mmlora.data.times import to_times
from mmlora.duck import in_memory
from mmlora.schema import (
    CREATED_TIMESTAMP,
    DOMAIN_ID,
    ENTITY_KEYS,
    EVENT_TIMESTAMP,
    ITEM_ID,
    KNOWN_AT,
    LABEL,
    USER_ID,
    Entity,
)

RESERVED = {USER_ID, ITEM_ID, DOMAIN_ID, EVENT_TIMESTAMP, CREATED_TIMESTAMP, KNOWN_AT, LABEL, "day"}


def canonical_profile(
    entity: Entity,
    table: pa.Table,
    *,
    source: str,
    locate: Callable[[int], str] | None = None,
    time_unit: str = "s",
) -> pa.Table:
    """Return the table with its id first, then ``event_timestamp`` if it has one, then its features.

    A column without any values keeps the null type; the store leaves it out and reports it.

    Args:
        entity: the entity.
        table: its id, ``event_timestamp`` (valid from; null if unknown) and features.
        source: the file or table, for messages.
        locate: names a row for messages.
        time_unit: unit of epoch numbers.

    Raises:
        DataError: lists every fault of the table.
    """
    key = ENTITY_KEYS[entity]
    faults = FaultList(table, (key, EVENT_TIMESTAMP), locate)
    features = _check_names(entity, table, faults)
    columns: dict[str, pa.ChunkedArray | None] = {}
    if table.column_names.count(key) == 1:
        columns[key] = to_id(table.column(key), key, faults)
    if table.column_names.count(EVENT_TIMESTAMP) == 1:
        valid_from = table.column(EVENT_TIMESTAMP)
        columns[EVENT_TIMESTAMP] = to_times(valid_from, EVENT_TIMESTAMP, faults, nulls=True, unit=time_unit)
    if columns and None not in columns.values():
        _check_unique(columns, faults)
    for name in features:
        columns[name] = to_feature(table.column(name), name, faults)
    faults.raise_if_any(source)
    return pa.table(columns)


def _check_names(entity: Entity, table: pa.Table, faults: FaultList) -> list[str]:
    """Note faults of the column names; return the feature columns."""
    key = ENTITY_KEYS[entity]
    names = table.column_names
    own = {key, EVENT_TIMESTAMP}
    if table.num_rows == 0:
        faults.add("no rows")
    if key not in names:
        faults.add(missing(key, names), key)
    features = [name for name in names if name not in own]
    if not features:
        faults.add(f"no feature columns besides {key}")
    lowered = [name.lower() for name in names]
    for name in dict.fromkeys(names):
        if lowered.count(name.lower()) > 1:  # DuckDB doesn't distinguish Age and age
            faults.add("more than one column of this name (ignoring case)", name)
        elif name in own:
            continue
        elif name.lower() in RESERVED:
            faults.add("a reserved name; rename the column", name)
        elif not name.isidentifier() or name.startswith("__"):
            faults.add("not a valid feature name; use letters, digits and underscores", name)
    return [name for name in features if lowered.count(name.lower()) == 1]


def _check_unique(columns: dict[str, pa.ChunkedArray | None], faults: FaultList) -> None:
    names = ", ".join(columns)
    rows = pa.table(columns)
    rows = rows.append_column("row", pa.array(np.arange(rows.num_rows)))
    with in_memory() as con:
        con.register("rows", rows)
        con.execute(f"CREATE TEMP VIEW keyed AS FROM rows WHERE {next(iter(columns))} IS NOT NULL")
        query = f"SELECT row FROM keyed QUALIFY count(*) OVER (PARTITION BY {names}) > 1"
        twice = con.sql(query).to_arrow_table().column("row")
    if len(twice):
        mask = pc.is_in(rows.column("row"), twice.combine_chunks())
        faults.add_rows(f"the same {' and '.join(columns)} more than once", names.split(",")[0], mask)


def to_feature(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    """Return a profile column in the type its feature has; other types are faults."""
    column = plain(column)
    kind = column.type
    if pt.is_null(kind) or pt.is_string(kind):
        return column
    if pt.is_boolean(kind):
        return column.cast(pa.string())
    if pt.is_integer(kind) or (pt.is_decimal(kind) and kind.scale <= 0):
        return _integers(column, name, faults)
    if pt.is_floating(kind) or pt.is_decimal(kind):
        return _floats(column, name, faults)
    if pt.is_date(kind) or pt.is_timestamp(kind):
        return to_times(column, name, faults, nulls=True)
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        return _lists(column, name, faults)
    faults.add(f"type {kind} can't be a feature; {_VALID}", name)
    return None


_VALID = "valid are integers, floats, texts, booleans, dates, lists of text and lists of floats"


def _integers(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        faults.add("larger than a 64-bit signed integer; convert it to text", name)
        return None


def _floats(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray:
    if column.type != pa.float32():
        column = column.cast(pa.float64() if not pt.is_float16(column.type) else pa.float32())
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    faults.add_rows("infinite", name, pc.is_inf(column))
    return column


def _lists(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    value = column.type.value_type
    if pt.is_dictionary(value):
        value = value.value_type
    text = any(of(value) for of in (pt.is_string, pt.is_large_string, pt.is_string_view, pt.is_null))
    if pt.is_integer(value):
        text = not is_vector(column)
    elif not text and not pt.is_floating(value):
        hint = "cast it to a list of text (a bag) or of floats (a vector)"
        faults.add(f"type {column.type} can't be a feature; {hint}", name)
        return None
    # One chunk, because the parents of a chunk's elements are counted within the chunk.
    column = pa.chunked_array([column.cast(BAG if text else VECTOR, safe=False).combine_chunks()])
    _check_elements(column, name, faults, vector=not text)
    return column


def _check_elements(column: pa.ChunkedArray, name: str, faults: FaultList, *, vector: bool) -> None:
    elements = pc.list_flatten(column)
    bad = pc.is_null(elements)
    if vector:
        bad = pc.or_(bad, pc.invert(pc.fill_null(pc.is_finite(elements), True)))
        lengths = pc.list_value_length(column)
        widths = pc.drop_null(pc.unique(lengths))
        if len(widths) > 1:
            usual = pc.mode(lengths)[0].as_py()["mode"]
            others = pc.not_equal(lengths, usual)
            faults.add_rows(f"not the width {usual} of the others", name, others)
    rows = pc.filter(pc.list_parent_indices(column), bad).combine_chunks()
    mask = np.zeros(len(column), dtype=bool)
    mask[rows.to_numpy()] = True
    faults.add_rows("a null or infinite element" if vector else "a null element", name, pa.array(mask))
