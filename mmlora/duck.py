"""DuckDB in memory, in UTC: the one way to open it.

Opening an instance takes some 13 ms, which is as long as a query of a small domain; a connection to one that
is open takes 0.1 ms. Within :func:`kept_open`, which a command with many domains enters, connections share
the instances.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "60%"


@contextmanager
def in_memory(
    spill: Path | None = None, *, ordered: bool = True, memory_limit: str | None = None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection whose temporary tables and views are its own, and which is closed on exit.

    Args:
        spill: a folder in which to spill what doesn't fit into memory; None leaves DuckDB its own, ``.tmp``.
        ordered: whether queries keep the order of files and tables, which takes more memory.
        memory_limit: of an instance of its own, as DuckDB writes it, e.g. ``1 GiB``; None for 60% of memory.
    """
    if memory_limit is None and (shared := _KEPT.get((spill, ordered))) is not None:
        with shared.cursor() as connection:
            _in_utc(connection)
            yield connection
    else:
        with _instance(spill, ordered, memory_limit or MEMORY_LIMIT) as connection:
            yield connection


@contextmanager
def kept_open() -> Iterator[None]:
    """Share the instances between the connections that are opened before the exit, in any thread."""
    with _KEPT.entered():
        yield


@contextmanager
def _instance(spill: Path | None, ordered: bool, memory_limit: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an instance with its own folder under ``spill``; both are removed on exit."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": memory_limit,
        "preserve_insertion_order": str(ordered).lower(),
    }
    folder: str | None = None
    if spill is not None:
        spill.mkdir(parents=True, exist_ok=True)
        folder = config["temp_directory"] = mkdtemp(prefix="duckdb-", dir=spill)
    connection = duckdb.connect(config=config)
    try:
        _in_utc(connection)
        yield connection
    finally:
        connection.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _in_utc(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")


class _Kept:
    """The instances that connections share, by spill folder and order, while somebody keeps them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keepers = 0
        self._stack = ExitStack()
        self._instances: dict[tuple[Path | None, bool], duckdb.DuckDBPyConnection] = {}

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                if not self._keepers:
                    self._instances.clear()
                    self._stack.close()

    def get(self, key: tuple[Path | None, bool]) -> duckdb.DuckDBPyConnection | None:
        """Return the instance, opened if it isn't yet; None if nobody keeps any."""
        with self._lock:
            if not self._keepers:
                return None
            if key not in self._instances:
                spill, ordered = key
                instance = self._stack.enter_context(_instance(spill, ordered, MEMORY_LIMIT))
                self._instances[key] = instance
            return self._instances[key]


_KEPT = _Kept()
