"""What the summary of an import says about each column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.files import RawTable
from mmlora.data.lists import BAG, VECTOR
from mmlora.data.texts import Reading
from mmlora.data.times import time_note
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, KNOWN_AT, LABEL, USER_ID


@dataclass(frozen=True)
class ColumnNote:
    """One delivered column.

    Attributes:
        table: ``interactions``, ``users``, ``items`` or ``domains``.
        column: its name.
        type: Parquet's type, or the type inferred from a CSV's texts.
        becomes: what is stored.
        missing: number of missing values.
        note: how it was read, if that isn't obvious; usually empty.
    """

    table: str
    column: str
    type: str
    becomes: str
    missing: int = 0
    note: str = ""


def describe_interactions(raw: RawTable, table: pa.Table) -> list[ColumnNote]:
    """Describe the columns of the interactions as they came (``raw``) and as they are (``table``)."""
    found = []
    for name in raw.table.column_names:
        column = raw.table.column(name)
        kind = "text" if name in raw.texts else str(column.type)
        becomes, note = "not used", ""
        if name in (USER_ID, ITEM_ID, DOMAIN_ID):
            becomes, note = f"id ({_stored(table.column(name).type)})", _padding_note(table.column(name))
        elif name in (EVENT_TIMESTAMP, KNOWN_AT):
            becomes, note = "time (UTC)", time_note(column)
        elif name == LABEL:
            becomes = "label (0 or 1)"
        found.append(ColumnNote("interactions", name, kind, becomes, column.null_count, note))
    return found


def describe_profile(
    raw: RawTable, table: str, profile: pa.Table, readings: Mapping[str, Reading], schema: pa.Schema | None
) -> list[ColumnNote]:
    """Describe a profile table's columns: ``raw`` with types, ``profile`` checked, ``schema`` as stored."""
    found = []
    for name in profile.column_names:
        column, stored = raw.table.column(name), profile.column(name)
        reading = readings.get(name)
        kind = reading.kind if reading else "text" if name in raw.texts else str(column.type)
        note = reading.note if reading else ""
        if profile.column_names.index(name) == 0:
            becomes, note = f"id ({_stored(stored.type)})", _padding_note(stored)
        elif name == EVENT_TIMESTAMP:
            becomes, note = "valid from (UTC)", time_note(column)
        elif pt.is_timestamp(column.type) or pt.is_date(column.type):
            becomes, note = "date or time (UTC)", note or time_note(column)
        else:
            becomes = _feature(stored)
            if schema is not None and name in schema.names and schema.field(name).type != stored.type:
                becomes = f"{_feature(pa.chunked_array([], schema.field(name).type))}, as it is stored"
        found.append(ColumnNote(table, name, kind, becomes, stored.null_count, note))
    return found


def _padding_note(ids: pa.ChunkedArray) -> str:
    padded = pt.is_string(ids.type) and pc.any(pc.match_substring_regex(ids, r"^\s|\s$")).as_py()
    return "some begin or end with a space, which is kept" if padded else ""


def _stored(kind: pa.DataType) -> str:
    return "text" if pt.is_string(kind) else "integer"


def _feature(column: pa.ChunkedArray) -> str:
    kind = column.type
    if pt.is_null(kind):
        return "not stored: no value"
    if kind == BAG:
        return "list of texts"
    if kind == VECTOR:
        width = pc.max(pc.list_value_length(column)).as_py()
        return "vector" if width is None else f"vector of {width} numbers"
    return "number" if pt.is_floating(kind) else _stored(kind)
