"""Writing Parquet for the ASOF store: saved datasets, and rows added to a source."""

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
    """Write batches to a file or folder; what was there stays until all are written.

    Raises:
        feast.errors.SavedDatasetLocationAlreadyExists: something is there, and it may not be overwritten.
        UsageError: the path is a pattern.
    """
    from feast.errors import SavedDatasetLocationAlreadyExists

    if target.is_glob:
        raise UsageError(f"{target.path} is a pattern: name a file or a folder to save a dataset")
    filesystem, there = target.filesystem, target.inside.rstrip("/")
    if filesystem.exists(there) and not overwrite:
        raise SavedDatasetLocationAlreadyExists(location=target.path)
    if there.endswith(".parquet"):
        _write(target, there, batches)
        return
    old = target.files if filesystem.exists(there) else []
    filesystem.makedirs(there, exist_ok=True)
    name = f"{there}/part-{uuid4().hex}.parquet"
    _write(target, name, batches)
    if old:
        filesystem.rm(old)


def append_rows(target: ParquetSource, rows: pa.Table, *, like: pa.Schema) -> None:
    """Add rows to a source: a folder gets another file, a file is written anew and then put in place.

    Args:
        target: the source.
        rows: its columns, in any order.
        like: the columns that the source has, and their types; the rows are cast to them.

    Raises:
        UsageError: the source is a pattern, or its folders name columns, so that no place is the right one.
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
    """Write a file aside and move it into place: a reader sees the old one or the new one."""
    filesystem = target.filesystem
    path = PurePosixPath(name)
    # An object store shows an object when all of it is there; a rename would copy it once more.
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
