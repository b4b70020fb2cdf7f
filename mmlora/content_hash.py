"""The content hash of a load, which the audit, the publication and `mmlora verify` compare.

It is computed over the values in order, by user and then position, so it doesn't depend on the division into
batches, row groups or files, or on where they are stored.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa


class ContentHash:
    """SHA-256 over the columns of a table that is added in pieces.

    Each column has hashes of its values, of the lengths of its texts and of its null mask; the result is the
    hash of names, types, number of rows and the columns' hashes.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows = 0
        self._columns = [(hashlib.sha256(), hashlib.sha256(), hashlib.sha256()) for _ in schema]

    def update(self, table: pa.Table) -> None:
        """Add rows with the schema's columns."""
        self._rows += table.num_rows
        for column, (values, lengths, nulls) in zip(table.columns, self._columns, strict=True):
            for piece in column.chunks:
                _hash_piece(piece, values, lengths, nulls)

    def hexdigest(self) -> str:
        """Return the hash as 64 hex digits."""
        whole = hashlib.sha256(f"rows={self._rows}".encode())
        for field, hashes in zip(self._schema, self._columns, strict=True):
            parts = ":".join(part.hexdigest() for part in hashes)
            whole.update(f"\n{field.name}:{field.type}:{parts}".encode())
        return whole.hexdigest()


def _hash_piece(piece: pa.Array, values: Any, lengths: Any, nulls: Any) -> None:
    nulls.update(np.asarray(piece.is_null()).astype(np.uint8).tobytes())
    if pa.types.is_string(piece.type):
        texts = piece.fill_null("")
        offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
        lengths.update(np.diff(offsets).tobytes())
        if len(texts) and texts.buffers()[2] is not None:
            values.update(memoryview(texts.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
        return
    plain = piece.cast(pa.int32()) if pa.types.is_date32(piece.type) else piece
    numbers = plain.fill_null(0).to_numpy(zero_copy_only=False)
    values.update(np.ascontiguousarray(numbers).data)
