"""Staged rows on disk, and the hash of what they hold.

Parts are written under another name and renamed when whole. The hash is of the values in order, so it doesn't
depend on how rows were cut into batches, row groups or files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.errors import UsageError
from mmlora.schema import IdTypes, scores_schema

ROWS_PER_PART = 5_000_000
_ROWS_PER_GROUP = 250_000


class ContentHash:
    """SHA-256 over the columns of a table that comes in pieces.

    Each column has a hash of its values (bytes of texts beside their lengths) and of where it is null; the
    whole is the hash of names, types, rows and the columns' hashes.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows = 0
        self._columns = [(hashlib.sha256(), hashlib.sha256(), hashlib.sha256()) for _ in schema]

    def update(self, table: pa.Table) -> None:
        """Add rows; the columns must be the schema's."""
        self._rows += table.num_rows
        for column, (values, lengths, nulls) in zip(table.columns, self._columns, strict=True):
            for piece in column.chunks:
                _hash_piece(piece, values, lengths, nulls)

    def hexdigest(self) -> str:
        """Return 64 hex digits."""
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


def part_files(folder: Path) -> list[Path]:
    """Return a load's parts, in order."""
    return sorted(folder.glob("part-*.parquet"))


class StagedWriter:
    """Writes a load's rows as they come, in parts of bounded size; used in a ``with``.

    Args:
        folder: the load's own folder; made when absent.
        ids: the id types.

    Raises:
        UsageError: the folder holds rows already.
    """

    def __init__(self, folder: Path, *, ids: IdTypes) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds staged rows already: every try stages into a folder of its own")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._schema = scores_schema(ids)
        self._hash = ContentHash(self._schema)
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._rows_in_part = 0
        self.files: list[Path] = []
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._hash.update(table)
        self._waiting.append(table)
        self.rows += table.num_rows
        if sum(waiting.num_rows for waiting in self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    @property
    def content_hash(self) -> str:
        """The hash of all rows so far."""
        return self._hash.hexdigest()

    def __enter__(self) -> StagedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
            if not self.files or self._writer is not None:
                self._finish_part()
        elif self._writer is not None:
            self._writer.close()
            self._partial().unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        self._open().write_table(table, row_group_size=_ROWS_PER_GROUP)
        self._rows_in_part += table.num_rows
        if self._rows_in_part >= ROWS_PER_PART:
            self._finish_part()

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._partial(), self._schema, compression="zstd")
        return self._writer

    def _finish_part(self) -> None:
        """Close the part and give it its name; a load without rows still has one part."""
        self._open().close()
        path = self._folder / f"part-{len(self.files):05d}.parquet"
        self._partial().replace(path)
        self.files.append(path)
        self._writer, self._rows_in_part = None, 0

    def _partial(self) -> Path:
        return self._folder / f"part-{len(self.files):05d}.parquet.partial"
