"""Store a training set's features before encoding, for the next training set of the same rows.

A training set with another split, seed or ``min_count`` reads the same features, and retrieving them takes
most of the time. Only the files used last are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlora.errors import TransientError
from mmlora.files import ASIDE, locked, replacing

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

KEPT = 2
"""Number of files kept in a workspace, each about the size of its training set."""


def open_retrieved(
    folder: Path, name: str, read: Callable[[], Iterator[pa.Table]], dictionaries: list[str]
) -> pq.ParquetFile:
    """Open the stored features of a name, or read and store them first.

    If several processes need the same features, one reads them and the others wait.

    Args:
        folder: folder of the files.
        name: a name that identifies the features.
        read: yields the features; each table becomes a row group.
        dictionaries: columns to return as dictionaries.

    Returns:
        The open file, which can be read completely even if another process removes it.
    """
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    with locked(_lock(path)):
        if path.exists():
            logger.info("features: reusing those of an earlier training set of these rows")
            path.touch()
        else:
            _write(path, read, dictionaries)
        opened = pq.ParquetFile(path, read_dictionary=dictionaries)
    _remove_old(folder)
    return opened


def _lock(path: Path) -> Path:
    name = path.name.removesuffix(ASIDE).removesuffix(".parquet").lstrip(".")
    return path.with_name(f".{name}.lock")


def _write(path: Path, read: Callable[[], Iterator[pa.Table]], dictionaries: list[str]) -> None:
    import pyarrow.parquet as pq

    tables = read()
    first = next(tables)
    options: dict[str, Any] = {"compression": "lz4", "use_dictionary": dictionaries}
    with replacing(path, alone=True) as aside, pq.ParquetWriter(aside, first.schema, **options) as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _remove_old(folder: Path) -> None:
    """Remove all files but those used last, and leftovers of killed writers, except files in use."""
    whole = sorted(folder.glob("*.parquet"), key=_last_used, reverse=True)
    for path in [*whole[KEPT:], *folder.glob(f"*{ASIDE}")]:
        with suppress(TransientError), locked(_lock(path), wait=0):
            path.unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    with suppress(FileNotFoundError):  # removed by another process meanwhile
        return path.stat().st_mtime
    return 0.0
