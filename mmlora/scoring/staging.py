"""Stage a load's rows as Parquet parts, and compute their content hash (:mod:`mmlora.content_hash`).

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

ROWS_PER_GROUP = 250_000


def part_files(folder: Path) -> list[Path]:
    """Return a load's parts, in order."""
    return sorted(folder.glob("part-*.parquet"))


class StagedWriter:
    """A context manager that writes a load's rows in parts, at least one.

    Args:
        folder: the load's own folder; created if it does not exist.
        ids: the id types.

    Raises:
        UsageError: the folder already has rows.
    """

    def __init__(self, folder: Path, *, ids: IdTypes) -> None:
        if part_files(folder):
            raise UsageError(f"{folder} already has staged rows: every attempt needs a folder of its own")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._schema = scores_schema(ids)
        self._hash = ContentHash(self._schema)
        self._writer: pq.ParquetWriter | None = None
        self._part = ExitStack()  # the part being written
        self._pending: list[pa.Table] = []
        self.files: list[Path] = []
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows to the present part."""
        self._hash.update(table)
        self._pending.append(table)
        self.rows += table.num_rows
        if sum(pending.num_rows for pending in self._pending) >= ROWS_PER_GROUP:
            self._flush()

    def end_part(self) -> Path:
        """Complete the present part, even one without rows, and return its file."""
        self._flush()
        self._open().close()
        self._part.close()
        self._writer = None
        self.files.append(self._next)
        return self.files[-1]

    def take_part(self, path: Path) -> Path:
        """Move a complete file here as the next part, and return its new path."""
        target = path.replace(self._next)
        with pq.ParquetFile(target) as file:
            for batch in file.iter_batches(ROWS_PER_GROUP):
                self._hash.update(pa.Table.from_batches([batch]))
                self.rows += batch.num_rows
        self.files.append(target)
        return target

    @property
    def content_hash(self) -> str:
        """The hash of the rows so far."""
        return self._hash.hexdigest()

    def __enter__(self) -> StagedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            if not self.files or self._pending or self._writer is not None:
                self.end_part()
        elif self._writer is not None:
            self._writer.close()
            self._part.__exit__(kind, error, trace)

    @property
    def _next(self) -> Path:
        return self._folder / f"part-{len(self.files):05d}.parquet"

    def _flush(self) -> None:
        if self._pending:
            table = pa.concat_tables(self._pending)
            self._pending = []
            self._open().write_table(table, row_group_size=ROWS_PER_GROUP)

    def _open(self) -> pq.ParquetWriter:
        if self._writer is None:
            temporary = self._part.enter_context(replacing(self._next, alone=True))
            self._writer = pq.ParquetWriter(temporary, self._schema, compression="zstd")
        return self._writer
