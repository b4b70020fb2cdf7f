"""Write staged rows to disk, and compute their content hash (:mod:`mmlora.content_hash`).

Parts are written under a temporary name and renamed when complete.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.content_hash import ContentHash
from mmlora.errors import UsageError
from mmlora.files import replacing
from mmlora.schema import IdTypes, scores_schema

ROWS_PER_PART = 5_000_000
ROWS_PER_GROUP = 250_000


def part_files(folder: Path) -> list[Path]:
    """Return a load's parts, in order."""
    return sorted(folder.glob("part-*.parquet"))


class StagedWriter:
    """A context manager that writes a load's rows in parts of bounded size.

    Args:
        folder: the load's own folder; created if it does not exist.
        ids: the id types.

    Raises:
        UsageError: the folder already has rows.
    """

    def __init__(self, folder: Path, *, ids: IdTypes) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} already has staged rows: every attempt needs a folder of its own")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._schema = scores_schema(ids)
        self._hash = ContentHash(self._schema)
        self._writer: pq.ParquetWriter | None = None
        self._path, self._part = folder, ExitStack()  # the part being written
        self._pending: list[pa.Table] = []
        self._rows_in_part = 0
        self.files: list[Path] = []
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        self._hash.update(table)
        self._pending.append(table)
        self.rows += table.num_rows
        if sum(pending.num_rows for pending in self._pending) >= ROWS_PER_GROUP:
            self._flush()

    @property
    def content_hash(self) -> str:
        """The hash of the rows written so far."""
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
            self._part.__exit__(kind, error, trace)

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending)
        self._pending = []
        self._open().write_table(table, row_group_size=ROWS_PER_GROUP)
        self._rows_in_part += table.num_rows
        if self._rows_in_part >= ROWS_PER_PART:
            self._finish_part()

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._path = self._folder / f"part-{len(self.files):05d}.parquet"
            temporary = self._part.enter_context(replacing(self._path, alone=True))
            self._writer = pq.ParquetWriter(temporary, self._schema, compression="zstd")
        return self._writer

    def _finish_part(self) -> None:
        """Close the part and rename it; a load without rows still has one part."""
        self._open().close()
        self._part.close()
        self.files.append(self._path)
        self._writer, self._rows_in_part = None, 0
