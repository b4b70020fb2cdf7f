"""A training set's features before they are encoded: one file, kept for the next set of the same rows.

A set of other splits, another seed or another ``min_count`` reads the same features, and retrieving them is
what takes long. Only the files used last are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import TransientError
from mmlora.files import ASIDE, locked, replacing

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

logger = logging.getLogger(__name__)

KEPT = 2
"""Files kept in a workspace, each about the size of its training set."""


def open_retrieved(
    folder: Path, name: str, read: Callable[[], Iterator[pa.Table]], dictionaries: list[str]
) -> pq.ParquetFile:
    """Open the features of this name; read them first where they aren't there.

    Of processes that want the same at once, one reads and the others wait.

    Args:
        folder: where they are kept.
        name: follows from everything that decides them.
        read: yields them; each table becomes a row group.
        dictionaries: columns to return as dictionaries.

    Returns:
        The open file, which can be read to its end even when another process removes it.
    """
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    with locked(_lock(path)):
        if path.exists():
            logger.info("features: those of an earlier training set of these rows")
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
    with (
        replacing(path, alone=True) as aside,
        pq.ParquetWriter(aside, first.schema, compression="lz4", use_dictionary=dictionaries) as writer,
    ):
        for table in chain([first], tables):
            writer.write_table(table)


def _remove_old(folder: Path) -> None:
    """Remove all but the files used last, and what killed writers left, but for those in use."""
    whole = sorted(folder.glob("*.parquet"), key=_last_used, reverse=True)
    for path in [*whole[KEPT:], *folder.glob(f"*{ASIDE}")]:
        with suppress(TransientError), locked(_lock(path), wait=0):
            path.unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    with suppress(FileNotFoundError):  # removed by another process meanwhile
        return path.stat().st_mtime
    return 0.0
