"""Write Parquet for the ASOF store: saved datasets, and rows appended to a source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.errors import UsageError
from mmlora.features.asof.source import ParquetSource


def write_dataset(target: ParquetSource, batches: Iterator[pa.RecordBatch], *, overwrite: bool) -> None:
    """Write batches to a file or folder; existing data stays until all batches are written.

    Raises:
        feast.errors.SavedDatasetLocationAlreadyExists: the path exists and may not be overwritten.
        UsageError: the path is a pattern.
    """
    from feast.errors import SavedDatasetLocationAlreadyExists

    if target.is_glob:
        raise UsageError(f"{target.path} is a pattern: name a file or a folder to save a dataset")
    filesystem, path = target.filesystem, target.inside.rstrip("/")
    if filesystem.exists(path) and not overwrite:
        raise SavedDatasetLocationAlreadyExists(location=target.path)
    if path.endswith(".parquet"):
        _write(target, path, batches)
        return
    old = target.files if filesystem.exists(path) else []
    filesystem.makedirs(path, exist_ok=True)
    name = f"{path}/part-{uuid4().hex}.parquet"
    _write(target, name, batches)
    if old:
        filesystem.rm(old)


def append_rows(target: ParquetSource, rows: pa.Table, *, like: pa.Schema) -> None:
    """Append rows to a source: a folder gets another file, a single file is rewritten and replaced.

    Args:
        target: the source.
        rows: the rows to append, with the source's columns in any order.
        like: the source's schema, to which the rows are cast.

    Raises:
        UsageError: the source is a pattern or partitioned by folders.
    """
    if target.is_glob or target.is_partitioned:
        kind = "a pattern" if target.is_glob else "partitioned"
        raise UsageError(f"{target.path} is {kind}: rows can only be added to a file or a plain folder")
    added = rows.select(like.names).cast(like)
    if target.is_folder:
        name = f"{target.inside.rstrip('/')}/part-{uuid4().hex}.parquet"
        _write(target, name, added.to_batches(), schema=like)
        return
    with target.filesystem.open(target.inside, "rb") as stream:
        old = (batch.cast(like) for batch in pq.ParquetFile(stream).iter_batches(columns=like.names))
        _write(target, target.inside, chain(old, added.to_batches()), schema=like)


def _write(
    target: ParquetSource, name: str, batches: Iterable[pa.RecordBatch], *, schema: pa.Schema | None = None
) -> None:
    """Write a temporary file and rename it, so that readers see the old file or the new one."""
    filesystem = target.filesystem
    path = PurePosixPath(name)
    # An object store shows only complete objects, and a rename would copy the object.
    aside = str(path.with_name(f".{path.name}.{uuid4().hex}")) if target.is_local else name
    filesystem.makedirs(str(path.parent), exist_ok=True)
    remaining = iter(batches)
    first = next(remaining, None)
    if schema is None:
        if first is None:
            raise UsageError(f"there is nothing to write to {target.path}: the retrieval returned no batches")
        schema = first.schema
    try:
        with filesystem.open(aside, "wb") as stream, pq.ParquetWriter(stream, schema) as writer:
            for batch in chain([first] if first is not None else [], remaining):
                writer.write_batch(batch)
        if aside != name:
            filesystem.mv(aside, name)
    finally:
        if aside != name and filesystem.exists(aside):
            filesystem.rm(aside)
