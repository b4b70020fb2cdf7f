"""Store a training set's features before encoding, for the next training set of the same rows.

A training set with another split, seed or ``min_count``, or of all rows, reads the same features, and
retrieving them takes most of the time. They are read several times and then thrown away, so they are Arrow
files: half the time to write and a fifth to read of Parquet, for twice the space. Only the files used last
are kept.
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

logger = logging.getLogger(__name__)

KEPT = 2
"""Number of files kept in a workspace, each about the size of its training set."""
_SUFFIX = ".arrow"


def open_retrieved(
    folder: Path, name: str, read: Callable[[], Iterator[pa.Table]], dictionaries: list[str]
) -> Callable[[], Iterator[pa.Table]]:
    """Open the stored features of a name, or read and store them first.

    If several processes need the same features, one reads them and the others wait.

    Args:
        folder: folder of the files.
        name: a name that identifies the features.
        read: yields the features in tables.
        dictionaries: columns to return as dictionaries.

    Returns:
        A function that yields the same tables each time, even if another process removes the file.
    """
    import pyarrow as pa

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}{_SUFFIX}"
    with locked(_lock(path)):
        if path.exists():
            logger.info("features: reusing those of an earlier training set of these rows")
            path.touch()
        else:
            _write(path, read)
        opened = pa.ipc.open_file(pa.memory_map(str(path)))
    _remove_old(folder)

    def tables() -> Iterator[pa.Table]:
        for number in range(opened.num_record_batches):
            yield _encoded(pa.Table.from_batches([opened.get_batch(number)]), dictionaries)

    return tables


def _encoded(table: pa.Table, dictionaries: list[str]) -> pa.Table:
    """Return some columns as dictionaries: the encoder then looks each of their values up once."""
    for name in dictionaries:
        table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
    return table


def _lock(path: Path) -> Path:
    name = path.name.removesuffix(ASIDE).lstrip(".")
    return path.with_name(f".{name.split('.')[0]}.lock")


def _write(path: Path, read: Callable[[], Iterator[pa.Table]]) -> None:
    import pyarrow as pa

    tables = read()
    first = next(tables)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with (
        replacing(path, alone=True) as aside,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, first.schema, options=options) as writer,
    ):
        for table in chain([first], tables):
            writer.write_table(table.combine_chunks())


def _remove_old(folder: Path) -> None:
    """Remove all files but those used last, and leftovers of killed writers, except files in use."""
    whole = sorted(folder.glob(f"*{_SUFFIX}"), key=_last_used, reverse=True)
    earlier = folder.glob("*.parquet")  # as they were stored up to 0.1.0
    for path in [*whole[KEPT:], *earlier, *folder.glob(f"*{ASIDE}")]:
        with suppress(TransientError), locked(_lock(path), wait=0):
            path.unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    with suppress(FileNotFoundError):  # removed by another process meanwhile
        return path.stat().st_mtime
    return 0.0
