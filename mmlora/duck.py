"""DuckDB in memory, in UTC: the one way to open it.

Opening an instance takes some 13 ms, which is as long as a query of a small domain; a connection to one that
is open takes 0.1 ms. Within :func:`kept_open`, which a command with many domains enters, connections share
the instances, and what is small and the same for all domains is read once (:func:`kept`).
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "60%"
T = TypeVar("T")


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
            yield connection
    else:
        with _instance(spill, ordered, memory_limit or MEMORY_LIMIT) as connection:
            yield connection


@contextmanager
def kept_open() -> Iterator[None]:
    """Share the instances between the connections that are opened before the exit, in any thread."""
    with _KEPT.entered():
        yield


def kept(key: Hashable, make: Callable[[], T]) -> T:
    """Return what ``make`` returns, which is called once per key before the exit of :func:`kept_open`."""
    return _KEPT.value(key, make)


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
        connection.execute("SET GLOBAL TimeZone = 'UTC'; SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class _Kept:
    """The instances that connections share, by spill folder and order, and the values that are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keepers = 0
        self._stack = ExitStack()
        self._instances: dict[tuple[Path | None, bool], duckdb.DuckDBPyConnection] = {}
        self._values: dict[Hashable, Any] = {}

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
                    self._values.clear()
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

    def value(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the key's value, made if it isn't yet; nothing is kept if nobody keeps anything."""
        if key in self._values:
            found: T = self._values[key]
            return found
        made = make()
        with self._lock:
            if self._keepers:
                self._values[key] = made
        return made


_KEPT = _Kept()
