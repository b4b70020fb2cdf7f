"""Converts a column of times to UTC microseconds, from year 1 to 9999; pure."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.columns import plain
from mmlora.data.faults import FaultList
from mmlora.data.options import TIME_UNITS
from mmlora.duck import in_memory
from mmlora.schema import TIMESTAMP

_FIRST = -62_135_596_800  # seconds: 0001-01-01
_LAST = 253_402_300_799  # 9999-12-31
_LOOKS_LIKE_DATE = (19_000_101, 21_001_231)
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_PLAUSIBLE = (946_684_800, 4_102_444_800)  # the years 2000 to 2100, in seconds
_INTEGER = "^-?[0-9]{1,18}$|^-?[0-8][0-9]{18}$"

ISO_TIME = (
    r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"([ T][0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]*)?)?( ?(Z|z|UTC|GMT)|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
)
"""A date, or a date and time with or without an offset."""

# DuckDB parses dates, spaces or T, fractions and offsets in one vectorised cast; the pattern excludes what it
# would also accept ("epoch", "infinity", years before Christ), and its year 0.
_PARSE = """
SELECT CASE WHEN regexp_full_match(text, $pattern) AND text NOT LIKE '0000%'
    THEN TRY_CAST(replace(replace(upper(text), ' UTC', 'Z'), ' GMT', 'Z') AS TIMESTAMPTZ) END AS parsed
FROM texts
"""


def to_times(
    column: pa.ChunkedArray,
    name: str,
    faults: FaultList,
    *,
    latest: datetime | None = None,
    nulls: bool = False,
    unit: str = "s",
) -> pa.ChunkedArray | None:
    """Return a time column as UTC microseconds.

    Takes timestamps of any unit (naive ones are UTC), dates, ISO texts and whole epoch numbers. Null,
    unparsable and too late times are faults.

    Args:
        column: the column as delivered.
        name: its name, for messages.
        faults: faults are added to this list.
        latest: the last valid time; None means no limit.
        nulls: whether null is valid.
        unit: the unit of epoch numbers.
    """
    column = plain(column)
    if not nulls:
        faults.add_rows(f"null in {name}", name, pc.is_null(column))
    times = _convert(column, name, faults, unit)
    if times is None:
        return None
    unparsed = pc.and_(pc.is_null(times), pc.is_valid(column))
    hint = _unit_hint(pc.filter(column, unparsed), unit)
    valid = f"valid are ISO texts and epoch numbers ({unit}) of the years 1 to 9999"
    faults.add_rows(f"not a timestamp: {valid}{hint}", name, unparsed)
    if latest is not None:
        late = pc.greater(times, pa.scalar(latest, TIMESTAMP))
        hint = _unit_hint(pc.filter(column, pc.fill_null(late, False)), unit)
        what = f"in the future (later than {latest:%Y-%m-%dT%H:%M:%SZ}; epoch numbers count {unit}){hint}"
        faults.add_rows(what, name, late)
    if unit != "s" and (hint := _unit_hint(column, unit)):
        faults.add(f"not epoch numbers in {unit}{hint}", name)
    return times


def _convert(column: pa.ChunkedArray, name: str, faults: FaultList, unit: str) -> pa.ChunkedArray | None:
    kind = column.type
    if pt.is_timestamp(kind):
        return _from_epoch(column.cast(pa.int64()), kind.unit)
    if pt.is_date32(kind):
        return _from_epoch(pc.multiply(column.cast(pa.int32()).cast(pa.int64()), 86_400), "s")
    if pt.is_date64(kind):
        return _from_epoch(column.cast(pa.int64()), "ms")
    if pt.is_decimal(kind) and kind.scale <= 0:
        column = column.cast(pa.int64())
        kind = column.type
    if pt.is_integer(kind):
        _refuse_date_numbers(column, name, faults)
        return _from_epoch(column.cast(pa.int64()), unit)
    if pt.is_string(kind):
        texts = pc.utf8_trim_whitespace(column)
        _refuse_date_numbers(_integers(texts, "^[0-9]{8}$"), name, faults)
        return pc.coalesce(parse_times(texts), _from_epoch(_integers(texts, _INTEGER), unit))
    if pt.is_null(kind):
        return column.cast(TIMESTAMP)
    faults.add(
        f"type {kind} is not a time; valid are timestamps, dates, ISO texts and whole epoch numbers", name
    )
    return None


def _from_epoch(numbers: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    """Return whole numbers of a unit since 1970 as times; null outside the years 1 to 9999."""
    a_second = _PER_SECOND[unit]
    # In seconds, because the last year in nanoseconds exceeds 64 bits; rounded down, also before 1970.
    valid = ~np.asarray(pc.is_null(numbers))
    values = np.asarray(pc.fill_null(numbers, 0).cast(pa.int64()))
    valid &= (values // a_second >= _FIRST) & (values // a_second <= _LAST)
    values = np.where(valid, values, 0)
    micros = values * TIME_UNITS[unit] if TIME_UNITS[unit] else values // 1_000
    return pa.chunked_array([pa.array(micros, pa.int64(), mask=~valid).cast(TIMESTAMP)])


def parse_times(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ISO texts as times; null for all others and outside the years 1 to 9999."""
    with in_memory() as con:
        con.register("texts", pa.table({"text": texts}))
        found = con.sql(_PARSE, params={"pattern": ISO_TIME.strip("^$")}).to_arrow_table().column("parsed")
    parsed: pa.ChunkedArray = _from_epoch(found.cast(TIMESTAMP).cast(pa.int64()), "us")
    return parsed


def _count_cut(column: pa.ChunkedArray) -> int:
    """Return how many times have more digits than microseconds; these are cut."""
    column = plain(column)
    if pt.is_timestamp(column.type) and column.type.unit == "ns":
        return int(np.count_nonzero(np.asarray(column.drop_null().cast(pa.int64())) % 1000))
    if pt.is_string(column.type):
        return int(pc.sum(pc.match_substring_regex(column, r":[0-9.]+\.[0-9]{6,}[1-9]")).as_py() or 0)
    return 0


def _without_zone(column: pa.ChunkedArray) -> bool:
    """Return whether there are times (not just dates) without an offset from UTC."""
    column = plain(column)
    if pt.is_timestamp(column.type):
        return column.type.tz is None
    naive = r"[0-9][ T][0-9]{1,2}:[0-9:.]+$"
    return pt.is_string(column.type) and bool(pc.any(pc.match_substring_regex(column, naive)).as_py())


def time_note(column: pa.ChunkedArray) -> str:
    """Return a note on how times were read; usually empty."""
    notes = []
    if cut := _count_cut(column):
        notes.append(f"{cut:,} times cut to microseconds")
    if _without_zone(column):
        notes.append("times without an offset are read as UTC")
    return "; ".join(notes)


def _integers(texts: pa.ChunkedArray, pattern: str) -> pa.ChunkedArray:
    """Return the texts that match as integers, others as null."""
    matches = pc.match_substring_regex(texts, pattern)
    return pc.if_else(matches, texts, pa.scalar(None, pa.string())).cast(pa.int64())


def _refuse_date_numbers(column: pa.ChunkedArray, name: str, faults: FaultList) -> None:
    """Refuse numbers such as 20001231, which as epoch seconds would be a day in August 1970."""
    first, last = (pa.scalar(bound) for bound in _LOOKS_LIKE_DATE)
    if pt.is_integer(column.type) and column.type.bit_width < 32:
        return
    looks = pc.and_(pc.greater_equal(column, first), pc.less_equal(column, last))
    faults.add_rows("a date written as a number; write 2000-12-31 or epoch seconds", name, looks)


def _unit_hint(column: pa.ChunkedArray, unit: str) -> str:
    """Return a hint if all numbers would be times of the years 2000 to 2100 in another unit."""
    if pt.is_string(column.type):
        column = _integers(column, _INTEGER)
    if not pt.is_integer(column.type):
        return ""
    bounds = pc.min_max(column).as_py()
    for other, a_second in _PER_SECOND.items():
        first, last = (bound * a_second for bound in _PLAUSIBLE)
        if bounds["min"] is not None and other != unit and first <= bounds["min"] <= bounds["max"] <= last:
            moment = datetime.fromtimestamp(bounds["min"] // a_second, UTC)
            return f"; {bounds['min']} in {other} is {moment:%Y-%m-%dT%H:%M:%SZ}: give --time-unit {other}"
    return ""
