"""Convert retrieved columns to the encoder's inputs: dates to ages, texts to hashed words.

A field's tag ``transform`` names the conversion, which is the same for training and for scoring:

* ``days_since``: the days from the column's moment to the row's time, null where the moment is later;
  the tag ``format`` is the date format of a text or integer column (ISO when absent);
* ``words``: a bag of the hashed words of a text.

The other transforms (``log``, ``log1p``) are done by the encoder.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from mmlora.duck import in_memory
from mmlora.features.dates import ISO, parse_sql
from mmlora.schema import TIMESTAMP, FeatureField

WORDS, BUCKETS = 32, 1024
"""Words kept per text, and the number of buckets that they are hashed into."""
_DAY = 86_400_000_000
_WORD = re.compile(r"\w+")


def to_input(field: FeatureField, column: pa.ChunkedArray, times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a retrieved column as the encoder expects it.

    Args:
        field: the column's field.
        column: the column as Feast returned it, ``[N]``.
        times: the rows' times, ``[N]``.
    """
    transform = field.tag("transform")
    if transform == "days_since":
        return days_since(column, times, field.tag("format", ISO))
    return words_of(column) if transform == "words" else column


def days_since(column: pa.ChunkedArray, times: pa.ChunkedArray, written: str = ISO) -> pa.ChunkedArray:
    """Return the days (float32) from each moment to its row's time; null where unknown or later."""
    began = _moments(column, written).cast(pa.int64())
    now = times.cast(TIMESTAMP, safe=False).cast(pa.int64())
    age = pc.divide(pc.subtract(now, began).cast(pa.float64()), float(_DAY))
    known = pc.fill_null(pc.greater_equal(age, 0.0), False)
    return pc.if_else(known, age, pa.scalar(None, pa.float64())).cast(pa.float32())


def words_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the distinct buckets of each text's first words, as texts ``0`` to ``1023``."""
    return _by_value(column, lambda texts: pa.array(map(_buckets, texts.to_pylist()), pa.list_(pa.string())))


def _buckets(text: str | None) -> list[str] | None:
    if text is None:
        return None
    # CRC-32 is the same in every process and version, unlike Python's own hash.
    buckets = dict.fromkeys(str(zlib.crc32(word.encode()) % BUCKETS) for word in _WORD.findall(text.lower()))
    return list(buckets)[:WORDS]


def _moments(column: pa.ChunkedArray, written: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)), safe=False)
    return _by_value(column, lambda values: _parsed(values, written))


def _parsed(values: pa.Array, written: str) -> pa.Array:
    with in_memory() as connection:
        connection.register("texts", pa.table({"value": values, "n": pa.array(range(len(values)))}))
        query = f"SELECT {parse_sql('value', written)} AS parsed FROM texts ORDER BY n"
        return connection.sql(query).to_arrow_table()["parsed"].cast(TIMESTAMP).combine_chunks()


def _by_value(column: pa.ChunkedArray, compute: Callable[[pa.Array], pa.Array]) -> pa.ChunkedArray:
    """Compute once per distinct value, because an entity's value is repeated on each of its rows."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    return pa.chunked_array([compute(array.dictionary).take(array.indices)])
