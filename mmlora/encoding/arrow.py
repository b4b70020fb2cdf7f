"""Arrow columns in the form that the encoders read: plain types, and the elements of lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmlora.errors import ContractError


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return one array of int64, float64, string, a list of those, or null; NaN becomes null."""
    array = whole(column)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pa.types.is_null(kind) or kind in (pa.int64(), pa.string()):
        return array
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pc.cast(array, pa.int64())
    if pa.types.is_floating(kind):
        wide = pc.cast(array, pa.float64())
        return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide)
    return array if is_list(kind) else pc.cast(array, pa.string())


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def is_list(kind: pa.DataType) -> bool:
    """Return whether values of this type are lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def elements_of(name: str, column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return a list column's elements, including nulls, and the number in each row, ``[N]``."""
    array = plain(column)
    if pa.types.is_null(array.type):
        return pa.nulls(0), np.zeros(len(array), np.int64)
    if not is_list(array.type):
        raise ContractError(
            f"field {name!r} has type {array.type} but is encoded from lists",
            expected="list",
            found=str(array.type),
        )
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    return pc.list_flatten(array), counts.astype(np.int64)


def without(counts: NDArray[np.int64], dropped: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number of elements in each row without the dropped ones."""
    row = np.repeat(np.arange(len(counts)), counts)
    return counts - np.bincount(row[dropped], minlength=len(counts))


def without_null_elements(
    name: str, column: pa.Array | pa.ChunkedArray, bag: pa.Array | pa.ChunkedArray
) -> pa.Array | pa.ChunkedArray:
    """Return a column of lists without the elements that belong to null elements of a bag.

    Args:
        name: the column's name.
        column: lists with one element for each element of the bag, ``[N]``.
        bag: the bag's lists, ``[N]``.
    """
    others, others_counts = elements_of(name, bag)
    if not (missing := np.asarray(plain(others).is_null())).any():
        return column
    elements, counts = elements_of(name, column)
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = (np.cumsum(others_counts) - others_counts)[row]
    dropped = place < others_counts[row]
    dropped[dropped] = missing[(first + place)[dropped]]
    offsets = np.concatenate([[0], np.cumsum(without(counts, dropped))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), elements.filter(pa.array(~dropped)))
