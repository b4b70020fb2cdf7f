"""One database by URL: connections, transactions, locks; the one place where its errors get their meaning."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from mmlora.errors import AccessError, ContractError, DataError, MmloraError, TransientError, UsageError
from mmlora.files import locked
from mmlora.redaction import redact

LOCK_WAIT_SECONDS = 30
Kind = Literal["sqlite", "postgresql"]

_WRITES = "mmlora_writes"
_UNCHECKED = "mmlora_unchecked"
_UNSYNCED = "mmlora_unsynced"
_VALID = "valid are sqlite:///path/to/file.db and postgresql://user:password@host/database"
# SQLSTATE: connection, transaction rollback, resources, operator, system; lock_timeout, read-only.
_TRANSIENT_CLASSES = ("08", "40", "53", "57", "58", "55P03", "25006")
_REFUSED_CLASSES = ("28", "3D000", "42501")  # who we are, which database, what we may do
# libpq gives no SQLSTATE of a connection that failed, so the server's words decide.
_REFUSALS = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|permission denied"
    r"|(database|role|user) \S+ (does not exist|is not permitted)|invalid connection option"
    r"|is not currently accepting connections"
)
_UNFIT_CLASSES = ("22021", "54000")  # a NUL in a text, a row too long for the index
_NO_TABLE = re.compile(r'no such table: (?:main\.)?(\w+)|relation "(\w+)" does not exist')
_SQLITE_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}


@dataclass(frozen=True)
class Database:
    """An engine and what kind of database it speaks to."""

    engine: sa.Engine
    kind: Kind

    @classmethod
    def at(cls, url: str) -> Database:
        """Prepare connections to ``url``; none is made yet.

        Raises:
            UsageError: the URL names no database that mmlora can use.
        """
        parsed = parse_url(url)
        if parsed.get_backend_name() == "sqlite":
            return cls(_sqlite_engine(parsed), "sqlite")
        return cls(_postgresql_engine(parsed), "postgresql")

    @property
    def where(self) -> str:
        """The URL without its passwords, for messages."""
        return redact(self.engine.url.render_as_string(hide_password=True))

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Give the database's errors their meaning; faults of the program pass unchanged."""
        try:
            yield
        except MmloraError:
            raise
        except Exception as error:
            meaning = _meaning(error, self.where)
            if meaning is None:
                raise
            raise meaning from error

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database (SQLite) or of each statement (PostgreSQL)."""
        with self.faults(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[sa.Connection]:
        """A transaction that writes: all of it happens, or nothing.

        Args:
            synced: False for rows that count only once a later transaction says so. SQLite then doesn't wait
                for the disk: the later one follows in the same log, so what makes it last makes both last.
        """
        options = {_WRITES: True, _UNSYNCED: not synced}
        with self.faults(), self.engine.execution_options(**options).begin() as connection:
            yield connection

    @contextmanager
    def altering(self) -> Iterator[sa.Connection]:
        """A writing transaction that may alter tables.

        SQLite alters a table by copying and dropping it, which its foreign keys forbid, and they can only be
        switched off before a transaction begins: so they are checked at the end instead.
        """
        engine = self.engine.execution_options(**{_WRITES: True, _UNCHECKED: True})
        try:
            with self.faults(), engine.begin() as connection:
                yield connection
                if self.kind == "sqlite":
                    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                    if broken:
                        raise RuntimeError(f"the migration broke foreign keys: {broken[:5]}")
        finally:
            self.engine.dispose()  # the next connection checks foreign keys again

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a named lock over several transactions, and wait for it as long as another process lives."""
        path = sqlite_file(self.engine.url)
        if path is not None:
            lock = path.with_name(f"{path.name}.{name}.lock")
            with locked(lock):
                yield
            lock.unlink(missing_ok=True)  # not after a failure: another may be waiting to try
            return
        by_itself = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        with self.faults(), by_itself.connect() as connection:
            connection.detach()  # the session ends with this, and with it the lock and its own lock_timeout
            connection.exec_driver_sql("SET lock_timeout = 0")
            key = sa.func.hashtextextended(f"mmlora:{name}", 0)
            connection.execute(sa.select(sa.func.pg_advisory_lock(key)))
            yield

    def driver_url(self) -> str:
        """Return what SQLAlchemy connects with as libpq's own string, which ADBC takes.

        libpq reads a URL otherwise than SQLAlchemy: a plus sign, for one, is no space to it.
        """
        from psycopg.conninfo import make_conninfo

        _, options = self.engine.dialect.create_connect_args(self.engine.url)
        return make_conninfo(**{name: value for name, value in options.items() if name != "context"})

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def parse_url(url: str) -> sa.URL:
    """Parse and check a warehouse URL.

    Raises:
        UsageError: it isn't one.
    """
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, ValueError):
        raise UsageError(
            f"the warehouse URL is no database URL (not shown: it may hold a password); {_VALID}"
        ) from None
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    shown = redact(parsed.render_as_string(hide_password=True))
    raise UsageError(
        f"no warehouse at {shown!r}: it must be a file of SQLite's or a PostgreSQL server; {_VALID}"
    )


def hold(connection: sa.Connection, *names: object) -> None:
    """Hold a named lock until the transaction ends (SQLite: a writing transaction is alone anyway)."""
    if connection.dialect.name == "postgresql":
        name = "mmlora:" + ":".join(str(part) for part in names)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))


def clock(connection: sa.Connection) -> datetime:
    """Return the database's own time: workers' clocks may differ."""
    if connection.dialect.name == "postgresql":
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)
    return datetime.now(UTC)


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(url, connect_args={"timeout": LOCK_WAIT_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # sqlite3 begins no transactions of its own: _begin does
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 10000")  # pages; the default is one batch of scores
        connection.execute("PRAGMA foreign_keys = ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that reads first and writes later fails at once when another has written between.
        options = connection.get_execution_options()
        if options.get(_UNCHECKED, False):
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        writes = options.get(_WRITES, False)
        if writes:
            synchronous = "NORMAL" if options.get(_UNSYNCED, False) else "FULL"
            connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url, pool_pre_ping=True, connect_args={"connect_timeout": 10, "application_name": "mmlora"}
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.execute(f"SET lock_timeout = '{LOCK_WAIT_SECONDS}s'")
        connection.commit()

    return engine


def _meaning(error: Exception, where: str) -> MmloraError | None:
    """Return what a driver's error means to the caller, or None when it is a fault of the program."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    text = _one_line(cause)
    if isinstance(cause, json.JSONDecodeError):
        return ContractError(f"warehouse {where}: a JSON value is broken ({text}); restore it from a backup")
    if str(getattr(cause, "sqlstate", "")).startswith(_UNFIT_CLASSES) or "cannot contain NUL" in text:
        return DataError(f"warehouse {where}", f"{text}: import ids without NUL, of 1,000 bytes at most")
    if (table := _missing_table(text)) is not None:
        return ContractError(
            f"warehouse {where}: its {table} is gone; restore the warehouse from a backup, or name another "
            "by warehouse_url and score again",
            expected=table,
        )
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        if code == sqlite3.SQLITE_NOTADB:
            return UsageError(
                f"warehouse {where}: the file is no SQLite database; name another by warehouse_url"
            )
        if code == sqlite3.SQLITE_CORRUPT:
            return ContractError(f"warehouse {where}: {text}; restore it from a backup")
        transient = code in _SQLITE_TRANSIENT
    elif _is_refused_by_server(cause, text):
        return AccessError(f"warehouse {where}: {text}; mend warehouse_url, or the server's users and rights")
    elif isinstance(error, DBAPIError) and error.connection_invalidated:
        transient = True
    else:
        transient = _is_transient_on_server(cause)
    return TransientError(f"warehouse {where}: {text}; try again later") if transient else None


def _one_line(cause: BaseException | None) -> str:
    """Return a driver's message on one line; libpq repeats it for each address that it tried."""
    return "; ".join(dict.fromkeys(line.strip() for line in str(cause).splitlines() if line.strip()))


def _missing_table(text: str) -> str | None:
    """Return which of the warehouse's own tables or views a message says is missing."""
    from mmlora.schema import IdTypes
    from mmlora.warehouse.tables import tables, views

    match = _NO_TABLE.search(text)
    name = match and (match[1] or match[2])
    return f"table {name}" if name in {*tables(IdTypes()).metadata.tables, *views()} else None


def _is_refused_by_server(cause: BaseException | None, text: str) -> bool:
    if not _of_server_driver(cause):
        return False
    state = getattr(cause, "sqlstate", None)
    return str(state).startswith(_REFUSED_CLASSES) if state else bool(_REFUSALS.search(text))


def _of_server_driver(cause: BaseException | None) -> bool:
    return type(cause).__module__.split(".")[0] in ("psycopg", "adbc_driver_manager")


def _is_transient_on_server(cause: BaseException | None) -> bool:
    if not _of_server_driver(cause):
        return False
    state = getattr(cause, "sqlstate", None)
    if state:
        return str(state).startswith(_TRANSIENT_CLASSES)
    return type(cause).__name__ == "OperationalError"  # no answer from the server at all


def is_duplicate_key(error: BaseException) -> bool:
    """Whether a driver says that a row with the same key is there already."""
    primary_key = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
    return primary_key or getattr(error, "sqlstate", None) == "23505"


def sqlite_file(url: sa.URL) -> Path | None:
    """Return the file of an SQLite URL, or None for a server."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None
