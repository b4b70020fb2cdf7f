"""A DuckDB file, shared by the threads of a process.

A file is open only during a transaction, and read-only for reading, so that several processes can read at
once. While a process has it open for writing, no other can open it, so opening is retried for a while.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import duckdb

from mmlora.errors import TransientError
from mmlora.warehouse.backends import base

_HELD = re.compile(r"Conflicting lock is held in (.+?) \(PID (\d+)\)|different configuration")
_RETRY_SECONDS = 0.02


class DuckdbFile:
    """A file shared by the threads of this process: DuckDB opens it once per process, to read or to write."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.turn = threading.Lock()  # held by a transaction that may conflict with others
        self._lock = threading.Lock()
        self._open = 0
        self._writable = False

    @staticmethod
    def at(path: str | None) -> DuckdbFile:
        """Return the only instance for a path."""
        return _file(str(Path(path or "").resolve()))

    @contextmanager
    def opened(self, *, writes: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file for a transaction, which is rolled back unless it is committed."""
        connection = self.open(writes=writes)
        try:
            yield connection
        finally:
            self.close(connection)

    def open(self, *, writes: bool) -> duckdb.DuckDBPyConnection:
        """Begin a transaction when other processes have closed the file.

        Raises:
            TransientError: they didn't close it in time.
        """
        until = time.monotonic() + base.LOCK_WAIT_SECONDS
        while True:
            connection, holder = self._try(writes)
            if connection is not None:
                return connection
            if time.monotonic() > until:
                raise TransientError(
                    f"warehouse duckdb:///{self.path}: {holder} still has the file open after "
                    f"{base.LOCK_WAIT_SECONDS} seconds, and DuckDB lets either one process write a file or "
                    "several read it: close it there, or try again later"
                )
            time.sleep(_RETRY_SECONDS)

    def _try(self, writes: bool) -> tuple[duckdb.DuckDBPyConnection | None, str]:
        """Return a connection in a transaction, or a description of who has the file open."""
        with self._lock:
            if self._open and writes and not self._writable:
                return None, "a reader in this process"
            writable = self._writable if self._open else writes or not Path(self.path).exists()
            try:
                connection = duckdb.connect(self.path, read_only=not writable)
                connection.execute("SET TimeZone = 'UTC'; BEGIN")
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                if (held := _HELD.search(str(error))) is None:
                    raise
                return None, f"process {held[2]} ({held[1]})" if held[2] else "this process"
            self._open, self._writable = self._open + 1, writable
        return connection, ""

    def close(self, connection: duckdb.DuckDBPyConnection) -> None:
        """End the transaction and close the file."""
        with self._lock:
            connection.close()
            self._open -= 1


@cache
def _file(path: str) -> DuckdbFile:
    return DuckdbFile(path)
