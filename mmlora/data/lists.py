"""Lists in text cells: JSON arrays, and values with a separator between them.

A text column becomes a list column

- if every nonempty cell is a JSON array of texts or numbers (Python's way of writing a list is accepted
  too), or
- if the user names its separator, or
- if the separator ``|`` or ``;`` is unmistakable: cells have different numbers of parts, some part
  occurs in several different cells, and no part is empty or begins or ends with a space.

Lists of numbers of the same length (2 or more) are vectors; all others are bags of texts.
A stored list column keeps its kind.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

VECTOR = pa.list_(pa.float32())
BAG = pa.list_(pa.string())
JSON = "json"
"""The value of ``--list`` for JSON arrays instead of a separator."""
SEPARATORS = ("|", ";")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*|[0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BRACKETS = r"(?s)^\s*\[.*\]\s*$"

Cells = Sequence[str | None]
Lists = list[list[Any] | None]


def find_lists(cells: pa.Array, wanted: pa.DataType | None = None) -> tuple[pa.Array, str] | None:
    """Return text cells as lists and how they are written, or None unless they are unmistakably lists.

    Args:
        cells: distinct texts of one column; null means no list.
        wanted: the stored type, if the column is already stored as lists.
    """
    if not len(cells) - cells.null_count:
        return None
    if pc.all(pc.match_substring_regex(cells, _BRACKETS)).as_py():
        found = _parse_all(cells.to_pylist(), _read_array)
        if found is not None:
            return _typed(found, wanted), "JSON arrays"
    for separator in SEPARATORS:
        texts = [text for text in cells.to_pylist() if text]
        if wanted is not None and any(separator in text for text in texts):
            return split_lists(cells, separator, wanted), f"separated by {separator}"
        if wanted is None and _unmistakable(texts, separator):
            return split_lists(cells, separator), f"separated by {separator}"
    return (split_lists(cells, SEPARATORS[0], wanted), "single values") if wanted is not None else None


def split_lists(cells: pa.Array, separator: str, wanted: pa.DataType | None = None) -> pa.Array:
    """Return cells as lists by the separator that the user names; a null cell stays null.

    Raises:
        ValueError: the separator is ``json`` and a cell is not an array of texts or numbers.
    """
    if separator != JSON:
        parts = [None if text is None else _split(text, separator) for text in cells.to_pylist()]
        return _typed(_as_numbers(parts), wanted)
    found: Lists = []
    for text in cells.to_pylist():
        array = None if text is None else _read_array(text)
        if text is not None and array is None:
            raise ValueError(text)
        found.append(array)
    return _typed(found, wanted)


def _split(text: str, separator: str) -> list[str]:
    parts = text.split() if separator.isspace() else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _unmistakable(texts: Sequence[str], separator: str) -> bool:
    split = [text.split(separator) for text in texts]
    if len({len(parts) for parts in split}) < 2:
        return False
    if any(not part or part != part.strip() for parts in split for part in parts):
        return False
    return max(Counter(part for parts in split for part in set(parts)).values()) > 1


def _parse_all(cells: Cells, read: Callable[[str], list[Any] | None]) -> Lists | None:
    found: Lists = []
    for text in cells:
        array = None if text is None else read(text)
        if text is not None and array is None:
            return None
        found.append(array)
    return found


def _read_array(text: str) -> list[Any] | None:
    """Return a JSON or Python list of texts and numbers; None for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        try:
            found = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    except RecursionError:
        return None
    flat = isinstance(found, list) and all(
        isinstance(part, str | int | float) and not isinstance(part, bool) for part in found
    )
    return found if flat else None


def _as_numbers(lists: list[list[str] | None]) -> Lists:
    """Return the parts as numbers where all of them are."""
    if not all(_NUMBER.fullmatch(part) for parts in lists if parts for part in parts):
        return list(lists)
    return [None if parts is None else [json_number(part) for part in parts] for parts in lists]


def json_number(text: str) -> int | float:
    """Return a whole number as int, so that it keeps its digits, and any other as float."""
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)


def _typed(lists: Lists, wanted: pa.DataType | None) -> pa.Array:
    parts = [part for found in lists if found for part in found]
    widths = {len(found) for found in lists if found is not None}
    numbers = bool(parts) and not any(isinstance(part, str) for part in parts)
    whole = all(isinstance(part, int) for part in parts)
    vector = numbers and (not whole or (len(widths) == 1 and max(widths) > 1))
    if wanted == VECTOR and (numbers or not parts):
        vector = True
    if vector and wanted != BAG:
        floats = [found and [float(part) for part in found] for found in lists]
        return pa.array(floats, pa.list_(pa.float64())).cast(VECTOR, safe=False)
    texts = [
        found and [part if isinstance(part, str) else json.dumps(part) for part in found] for found in lists
    ]
    return pa.array(texts, BAG)


def is_vector(column: pa.ChunkedArray) -> bool:
    """Return whether lists of integers are vectors: all have one width of 2 or more."""
    widths = pc.drop_null(pc.unique(pc.list_value_length(column))).to_pylist()
    return len(widths) == 1 and widths[0] > 1


def mapped(column: pa.ChunkedArray, change: Callable[[pa.Array], pa.Array]) -> pa.ChunkedArray:
    """Apply a function of distinct values to a column."""
    encoded = column.dictionary_encode().unify_dictionaries()
    if not encoded.num_chunks:
        return pa.chunked_array([change(pa.array([], column.type))])
    changed = change(encoded.chunk(0).dictionary)
    return pa.chunked_array([changed.take(chunk.indices) for chunk in encoded.chunks], changed.type)
