"""Open DuckDB in UTC, with a memory limit and a folder to spill into."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import duckdb

MEMORY_LIMIT = "60%"


@contextmanager
def database(spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory DuckDB with its own spill folder under ``spill``; both are removed on exit."""
    spill.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix="duckdb-", dir=spill))
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(folder),
            "preserve_insertion_order": "false",
        }
    )
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    try:
        yield connection
    finally:
        connection.close()
        shutil.rmtree(folder, ignore_errors=True)
