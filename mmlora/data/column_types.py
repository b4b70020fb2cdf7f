"""Types the feature columns of a profile table: a CSV's texts by inference, Parquet's only if lists."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.columns import plain
from mmlora.data.faults import FaultList
from mmlora.data.files import RawTable
from mmlora.data.lists import find_lists, mapped, split_lists
from mmlora.data.options import ReadOptions
from mmlora.data.texts import Reading, is_marker, is_number, read_texts
from mmlora.data.times import parse_times
from mmlora.errors import DataError, Fault
from mmlora.schema import ENTITY_KEYS, EVENT_TIMESTAMP, Entity


def type_profile(
    source: RawTable, table: str, entity: Entity, options: ReadOptions, stored: pa.Schema | None
) -> dict[str, Reading]:
    """Give the feature columns their types, in place, and return how each text column was read.

    Args:
        source: the profile table.
        table: its name in options.
        entity: the entity.
        options: the user's options for the columns.
        stored: the stored columns; text and list columns keep their type.

    Raises:
        DataError: a column isn't what the user's options say, or doesn't have the stored numeric type.
    """
    readings: dict[str, Reading] = {}
    for place, name in enumerate(source.table.column_names):
        column = plain(source.table.column(place))
        if name in (ENTITY_KEYS[entity], EVENT_TIMESTAMP) or not pt.is_string(column.type):
            continue
        wanted = stored.field(name).type if stored is not None and name in stored.names else None
        try:
            typed, reading = _read(column, f"{table}.{name}", name in source.texts, wanted, options)
        except ValueError as error:
            raise DataError(source.source, [Fault(str(error), name)]) from None
        if (
            wanted is not None
            and not pt.is_string(wanted)
            and name in source.texts
            and f"{table}.{name}" not in options.texts
        ):
            _refuse_texts(source, f"{table}.{name}", ENTITY_KEYS[entity], typed, wanted)
        readings[name] = reading
        source.table = source.table.set_column(place, name, typed)
    return readings


def _refuse_texts(source: RawTable, full: str, key: str, typed: pa.ChunkedArray, wanted: pa.DataType) -> None:
    """Refuse texts in a column that is stored as numbers or times, quoting the first ones."""
    if not pt.is_string(typed.type):
        return
    name = full.partition(".")[2]
    faults = FaultList(source.table, (key,), source.row)
    if pt.is_timestamp(wanted):
        fits = pc.or_(pc.is_valid(parse_times(typed)), is_marker(typed))
        faults.add_rows(
            "not a time, but the stored values are times; correct it",
            name,
            pc.and_(pc.is_valid(typed), pc.invert(fits)),
        )
    else:
        what = (
            "not a number, but the stored values are numbers (leading zeros and plus signs count); correct "
            f"it, or give --text {full} to make the column text, including the stored values"
        )
        faults.add_rows(what, name, pc.and_(pc.is_valid(typed), pc.invert(is_number(typed))))
    faults.raise_if_any(source.source)


def _read(
    column: pa.ChunkedArray, full: str, from_csv: bool, wanted: pa.DataType | None, options: ReadOptions
) -> tuple[pa.ChunkedArray, Reading]:
    found: list[Reading] = []

    def change(texts: pa.Array) -> pa.Array:
        separator = options.lists.get(full)
        keep = full in options.texts
        if from_csv:
            reading = read_texts(
                texts,
                wanted=wanted,
                keep=keep,
                separator=separator,
                missing=options.missing,
                decimal=options.decimal,
            )
        else:
            reading = _parquet(texts, wanted, separator, keep)
        found.append(reading)
        return reading.values

    return mapped(column, change), found[0]


def _parquet(texts: pa.Array, wanted: pa.DataType | None, separator: str | None, keep: bool) -> Reading:
    """Read texts from Parquet, which are text unless they are lists."""
    if separator is not None:
        return Reading(split_lists(texts, separator, wanted), "list", f"separated by {separator!r}")
    if not keep and wanted != pa.string() and (lists := find_lists(texts, wanted)) is not None:
        return Reading(lists[0], "list", lists[1])
    return Reading(texts, "string")
