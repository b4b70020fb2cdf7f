"""Converts a column to its canonical type: ids and labels (for times see :mod:`mmlora.data.times`).

Every function takes the whole column, notes faults in a :class:`~mmlora.data.faults.FaultList` and
returns the converted column, with null if a value can't be converted (or None if the type itself
is wrong).
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.faults import FaultList
from mmlora.schema import MAX_ID_BYTES

_INTEGER_TEXT = r"^(0|-?[1-9][0-9]{0,18})$"
_LAST, _FIRST = str(2**63 - 1), str(-(2**63))
_SPOILT = r"^-?[0-9]+\.0+$|^-?[0-9]\.[0-9]+[eE][+-]?[0-9]+$"


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Undo encodings without meaning: dictionaries, large and view strings."""
    if pt.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pt.is_large_string(column.type) or pt.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def is_integer_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return where a text is a 64-bit integer as programs write it (``007`` would lose its zeros)."""
    fits = pc.match_substring_regex(column, _INTEGER_TEXT)
    limit = pc.if_else(pc.starts_with(column, "-"), _FIRST, _LAST)
    shorter = pc.less(pc.binary_length(column), pc.binary_length(limit))
    # Numbers of the same length sort by their digits.
    return pc.and_(fits, pc.or_(shorter, pc.less_equal(column, limit)))


def to_id(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    """Return an id column as int64 or string; null ids are faults."""
    column = plain(column)
    faults.add_rows(f"null in {name}", name, pc.is_null(column))
    if pt.is_string(column.type):
        faults.add_rows(f"empty text in {name}", name, pc.equal(column, ""))
        strange = pc.match_substring_regex(column, r"[\x00\r\n]")
        faults.add_rows("a NUL character or line break in an id", name, strange)
        long = pc.greater(pc.binary_length(column), MAX_ID_BYTES)
        faults.add_rows(
            f"an id of more than {MAX_ID_BYTES:,} bytes, which is too long for an index", name, long
        )
        return column
    if pt.is_decimal(column.type) and column.type.scale <= 0:
        return _decimals(column, name, faults)
    if pt.is_integer(column.type):
        return _to_int64(column, name, faults)
    if pt.is_floating(column.type):
        what = f"type {column.type} can't be an id: it keeps only 15 digits; export integers or strings"
        faults.add(what, name)
    elif not pt.is_null(column.type):
        faults.add(f"type {column.type} can't be an id; valid are integers and strings", name)
    return None


def refuse_spoilt_ids(column: pa.ChunkedArray, name: str, faults: FaultList) -> None:
    """Note ids in a CSV that passed through floating point: all like ``5.0``, or any like ``1.6e+18``."""
    spoilt = pc.fill_null(pc.match_substring_regex(column, _SPOILT), False)
    exponents = pc.and_(spoilt, pc.match_substring(pc.utf8_lower(column), "e"))
    texts = pc.and_(pc.is_valid(column), pc.invert(spoilt))
    if pc.any(exponents).as_py() or not pc.any(texts).as_py():
        what = (
            "an id that passed through floating point, which keeps only 15 digits; export integers or strings"
        )
        faults.add_rows(what, name, spoilt)


def _decimals(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        faults.add("larger than a 64-bit signed integer; export it as a string", name)
        return None


def _to_int64(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        limit = pa.scalar(2**63 - 1, pa.uint64())
        faults.add_rows("larger than a 64-bit signed integer", name, pc.greater(column, limit))
        return None


def to_label(column: pa.ChunkedArray, name: str, faults: FaultList) -> pa.ChunkedArray | None:
    """Return a label column as int8; anything except 0, 1, true and false is a fault."""
    column = plain(column)
    if pt.is_null(column.type):
        faults.add_rows(f"null in {name}", name, pc.is_null(column))
        return None
    if pt.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pt.is_string(column.type):
        kept = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        one = pc.is_in(kept, pa.array(["1", "1.0", "true"]))
        zero = pc.is_in(kept, pa.array(["0", "0.0", "false"]))
    elif pt.is_boolean(column.type):
        one, zero = column, pc.invert(column)
    elif pt.is_integer(column.type) or pt.is_floating(column.type):
        one, zero = pc.equal(column, 1), pc.equal(column, 0)
    else:
        faults.add(f"type {column.type} can't be a label; valid are 0 and 1", name)
        return None
    valid = pc.fill_null(pc.or_(one, zero), False)
    faults.add_rows(f"null in {name}", name, pc.is_null(column))
    faults.add_rows("not 0 or 1", name, pc.and_(pc.invert(valid), pc.is_valid(column)))
    return pc.if_else(valid, one, pa.scalar(None, pa.bool_())).cast(pa.int8())
