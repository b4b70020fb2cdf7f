"""Joins the parts of one column from several files if their types differ harmlessly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
import pyarrow.types as pt

from mmlora.schema import TIMESTAMP


def unify(parts: Sequence[pa.Array | pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return the parts as one column; integers, floats and times of several widths get the widest.

    Raises:
        pa.ArrowInvalid: a value can't be kept exactly in the common type.
        ValueError: the types have nothing in common.
    """
    kinds = list(dict.fromkeys(part.type for part in parts if not pt.is_null(part.type)))
    kind = _common(kinds) if kinds else pa.null()
    chunks = [chunk for part in parts for chunk in _cast(part, kind)]
    return pa.chunked_array(chunks, kind)


def _cast(part: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> list[pa.Array]:
    if pt.is_null(part.type):
        return [pa.nulls(len(part), kind)]
    if pt.is_timestamp(kind) and pt.is_timestamp(part.type) and part.type.tz is None:
        part = part.cast(pa.timestamp("us"))
    cast = part.cast(kind)
    return list(cast.chunks) if isinstance(cast, pa.ChunkedArray) else [cast]


def _common(kinds: Sequence[pa.DataType]) -> pa.DataType:
    if len(kinds) == 1:
        return kinds[0]
    if all(pt.is_integer(kind) for kind in kinds):
        return pa.int64()
    if all(pt.is_integer(kind) or pt.is_floating(kind) for kind in kinds):
        return pa.float64()
    if all(pt.is_timestamp(kind) or pt.is_date(kind) for kind in kinds):
        return TIMESTAMP
    if all(pt.is_decimal(kind) or pt.is_integer(kind) for kind in kinds):
        return pa.decimal256(76, max(kind.scale for kind in kinds if pt.is_decimal(kind)))
    values = [kind.value_type for kind in kinds if _is_list(kind)]
    if len(values) == len(kinds):
        known = [value for value in dict.fromkeys(values) if not pt.is_null(value)]
        return pa.list_(_common(known)) if known else kinds[0]
    raise ValueError(", ".join(f"{a} and {b}" for a, b in pairwise(kinds)))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))
