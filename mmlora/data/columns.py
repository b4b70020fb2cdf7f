"""Turns one column as it came into its canonical type: ids, times and labels.

Every function takes the whole column, notes what is wrong in a :class:`~mmlora.data.faults.FaultList` and
returns the converted column, with null where a value couldn't be converted (or None where the type itself
is wrong).
"""

from __future__ import annotations

from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.faults import FaultList
from mmlora.schema import TIMESTAMP

# 9999-12-31: a later second is no date that anything downstream could hold.
_LAST_SECOND = 253_402_300_799
_LOOKS_LIKE_DATE = (19_000_101, 21_001_231)
_INTEGER_TEXT = r"^(0|-?[1-9][0-9]{0,17})$"

# Texts are parsed by DuckDB because it takes dates, spaces or T, fractions and offsets in one vectorised
# cast; the pattern keeps out the words that it would take as well ("epoch", "infinity").
_PARSE_TIMES = r"""
SELECT CASE
    WHEN regexp_matches(text, '^-?[0-9]{1,12}$') THEN
        CASE WHEN abs(CAST(text AS BIGINT)) <= 253402300799 THEN to_timestamp(CAST(text AS BIGINT)) END
    WHEN regexp_matches(text, '^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}') THEN TRY_CAST(text AS TIMESTAMPTZ)
END AS parsed
FROM texts
"""


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Undo encodings that carry no meaning: dictionaries, large and view strings."""
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pt.is_large_string(column.type) or pt.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def is_integer_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return where a text is an integer as programs write it (``007`` isn't: it would lose its zeros)."""
    return pc.match_substring_regex(column, _INTEGER_TEXT)


def to_id(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    """Return an id column as int64 or string; null ids are faults."""
    column = plain(column)
    faults.add_rows(f"null in {name}", name, pc.is_null(column))
    if pt.is_string(column.type):
        faults.add_rows(f"empty text in {name}", name, pc.equal(column, ""))
        return column
    if pt.is_integer(column.type):
        return _to_int64(column, name, faults)
    if not pt.is_null(column.type):
        faults.add(f"type {column.type} is no id; valid are integers and strings", name)
    return None


def _to_int64(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        limit = pa.scalar(2**63 - 1, pa.uint64())
        faults.add_rows("larger than a 64-bit signed integer", name, pc.greater(column, limit))
        return None


def to_times(
    column: pa.ChunkedArray, name: str, faults: FaultList, *, now: datetime
) -> pa.ChunkedArray | None:
    """Return a time column as UTC microseconds.

    Takes timestamps of any unit (naive ones are UTC), dates, ISO texts and whole epoch seconds. Null,
    unparsable and future times are faults.
    """
    column = plain(column)
    faults.add_rows(f"null in {name}", name, pc.is_null(column))
    times = _convert_times(column, name, faults)
    if times is None:
        return None
    unparsed = pc.and_(pc.is_null(times), pc.is_valid(column))
    faults.add_rows("no timestamp: valid are ISO texts and epoch seconds", name, unparsed)
    future = pc.greater(times, pa.scalar(now, TIMESTAMP))
    faults.add_rows(
        f"in the future (later than {now:%Y-%m-%dT%H:%M:%SZ}; epoch times are in seconds)", name, future
    )
    return times


def _convert_times(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    kind = column.type
    if pt.is_timestamp(kind):
        naive = kind.tz is None
        column = column.cast(pa.timestamp("us", tz=None if naive else kind.tz), safe=False)
        return pc.assume_timezone(column, "UTC") if naive else column.cast(TIMESTAMP)
    if pt.is_date(kind):
        return pc.assume_timezone(column.cast(pa.timestamp("us")), "UTC")
    if pt.is_integer(kind):
        _refuse_date_numbers(column, name, faults)
        return _parse_times(column.cast(pa.string()))
    if pt.is_string(kind):
        _refuse_date_numbers(_numbers(column), name, faults)
        return _parse_times(column)
    if not pt.is_null(kind):
        faults.add(f"type {kind} is no time; valid are timestamps, dates, ISO texts and epoch seconds", name)
    return None


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return texts of 8 digits as integers, others as null."""
    eight = pc.match_substring_regex(column, "^[0-9]{8}$")
    return pc.if_else(eight, column, pa.scalar(None, pa.string())).cast(pa.int64())


def _refuse_date_numbers(column: pa.ChunkedArray, name: str, faults: FaultList) -> None:
    """20001231 as epoch seconds would be a day of August 1970: surely not what was meant."""
    first, last = (pa.scalar(bound) for bound in _LOOKS_LIKE_DATE)
    if pt.is_integer(column.type) and column.type.bit_width < 32:
        return
    looks = pc.and_(pc.greater_equal(column, first), pc.less_equal(column, last))
    faults.add_rows("a date written as a number; write 2000-12-31 or epoch seconds", name, looks)


def _parse_times(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    with duckdb.connect() as con:
        con.execute("SET TimeZone='UTC'")
        con.register("texts", pa.table({"text": texts}))
        parsed = con.sql(_PARSE_TIMES).to_arrow_table().column("parsed").cast(TIMESTAMP)
    return parsed


def to_label(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    """Return a label column as int8; anything but 0, 1, true and false is a fault."""
    column = plain(column)
    if pt.is_null(column.type):
        faults.add_rows(f"null in {name}", name, pc.is_null(column))
        return None
    if pt.is_string(column.type):
        kept = pc.utf8_lower(column)
        one = pc.is_in(kept, pa.array(["1", "1.0", "true"]))
        zero = pc.is_in(kept, pa.array(["0", "0.0", "false"]))
    elif pt.is_boolean(column.type):
        one, zero = column, pc.invert(column)
    elif pt.is_integer(column.type) or pt.is_floating(column.type):
        one, zero = pc.equal(column, 1), pc.equal(column, 0)
    else:
        faults.add(f"type {column.type} is no label; valid are 0 and 1", name)
        return None
    valid = pc.fill_null(pc.or_(one, zero), False)
    faults.add_rows(f"null in {name}", name, pc.is_null(column))
    faults.add_rows("not 0 or 1", name, pc.and_(pc.invert(valid), pc.is_valid(column)))
    return pc.if_else(valid, one, pa.scalar(None, pa.bool_())).cast(pa.int8())
