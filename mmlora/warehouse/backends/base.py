"""The interface of a database that can hold a warehouse, with defaults shared by most of them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from mmlora.errors import UsageError
from mmlora.files import locked

if TYPE_CHECKING:
    from mmlora.warehouse.database import Database
    from mmlora.warehouse.loads import Load

LOCK_WAIT_SECONDS = 30
"""How long a transaction waits for a lock before it raises ``TransientError``."""

BATCH_ROWS = 65_536

# Execution options of an engine that control how a backend begins a transaction.
WRITES = "mmlora_writes"
UNCHECKED = "mmlora_unchecked"
UNSYNCED = "mmlora_unsynced"

FaultKind = Literal["transient", "refused", "unfit", "no_database", "corrupt"]
"""The meaning of a driver's error: worth a retry; authentication or privileges; a value that the database
can't store; a file of another kind; a damaged file."""


class RowWriter(Protocol):
    """A writer of the rows of one load; the caller deletes what a killed call left."""

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> None:
        """Write batches of ``scores_schema`` rows under the load's key."""


class Backend(ABC):
    """One kind of database.

    Attributes:
        title: its name, for messages.
        example: an example URL.
        one_writer: whether only one transaction writes at a time, so that a night's loads are published in
            turn; else they are published while the next domains are scored.
        drops_months: whether :meth:`drop_month` is supported.
        no_table: pattern of the error about a missing table or view, with its name as a group.
    """

    title: ClassVar[str]
    example: ClassVar[str]
    one_writer: ClassVar[bool] = True
    drops_months: ClassVar[bool] = False
    no_table: ClassVar[re.Pattern[str]]

    # Connections

    @abstractmethod
    def accept(self, url: sa.URL) -> sa.URL | None:
        """Return the URL with the driver to connect with; None if it doesn't name a persistent database."""

    @abstractmethod
    def engine(self, url: sa.URL) -> sa.Engine:
        """Prepare connections without opening one."""

    def file(self, url: sa.URL) -> Path | None:
        """Return the file behind the URL; None for a server."""
        return None

    # Transactions

    @abstractmethod
    def alone(self, engine: sa.Engine, name: str) -> AbstractContextManager[None]:
        """Hold a named lock over several transactions; wait while another live process holds it."""

    def reads_in_a_row(self, engine: sa.Engine) -> AbstractContextManager[Any]:
        """Keep the database open for several reading transactions."""
        return nullcontext()

    def hold(self, connection: sa.Connection, name: str) -> None:  # noqa: B027
        """Hold a named lock until the transaction ends; a no-op where only one transaction can write."""

    def clock(self, connection: sa.Connection) -> datetime:
        """Return the time by which loads are ordered: the server's time, where there is a server."""
        return datetime.now(UTC)

    @abstractmethod
    def upsert(self, table: sa.Table, changed: Sequence[str]) -> sa.Insert:
        """Return an insert that changes the named columns where a row with the same primary key exists."""

    # Column types

    def timestamp(self) -> TypeEngine[Any]:
        """Return the type of moments; naive values read from the database count as UTC."""
        return sa.DateTime(timezone=True)

    def text_id(self) -> TypeEngine[Any]:
        """Return the type of text ids, which must sort by bytes."""
        return sa.Text()

    def json(self) -> TypeEngine[Any]:
        """Return the type of JSON values."""
        return sa.JSON(none_as_null=True)

    def generated_key(self) -> TypeEngine[Any]:
        """Return the type of integer keys that the database generates."""
        return sa.BigInteger()

    # Migrations

    def before_migrations(self, connection: sa.Connection, views: Iterable[str]) -> None:  # noqa: B027
        """Prepare for altering tables; drop views that would prevent it, because they are recreated later."""

    def after_migrations(self, connection: sa.Connection) -> None:  # noqa: B027
        """Check the constraints that :data:`UNCHECKED` switched off, before the transaction ends."""

    def days_since(self, column: str) -> str:
        """Return SQL for the whole days from a date to today in UTC."""
        return f"(CAST(now() AT TIME ZONE 'UTC' AS DATE) - {column})"

    def grant_reader(self, connection: sa.Connection, role: str, views: Iterable[str]) -> None:
        """Make a role, where there is none, that may read the views and nothing else.

        Raises:
            UsageError: the database has no roles.
        """
        raise UsageError(
            f"--reader-role {role}: {self.title} has no roles: whoever can read the file can read all "
            "of it; restrict who can read the file, or use PostgreSQL"
        )

    def create_view(self, connection: sa.Connection, name: str, query: str) -> None:
        """Create or replace a view; grants on it and objects that depend on it stay."""
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {name} AS {query}")

    @abstractmethod
    def add_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """Add a CHECK to a table whose primary key is ``pk_<table>``, without scanning existing rows."""

    @abstractmethod
    def drop_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """Remove a CHECK that :meth:`add_check` added."""

    # Rows

    def overwrite_deleted(self, connection: sa.Connection) -> None:  # noqa: B027
        """Have what this transaction deletes be overwritten in the file, where the database can."""

    @abstractmethod
    def writer(self, database: Database) -> RowWriter:
        """Return the bulk writer."""

    @abstractmethod
    def batches(
        self, database: Database, query: sa.Select[Any], schema: pa.Schema, *, few: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield a query's rows in batches, in its order.

        Args:
            database: the database.
            query: the query.
            schema: a type for each column of the query, to which a batch's column can be cast.
            few: whether few rows are expected, so that setting up a bulk read isn't worth it.
        """

    @abstractmethod
    def scores_bytes(self, connection: sa.Connection) -> int:
        """Return the approximate size of ``scores`` and its index in bytes, without free space."""

    def drop_month(self, connection: sa.Connection, month: date) -> bool:
        """Drop all rows of a month's dates; return False if they aren't stored apart and must be deleted.

        It waits only a fraction of a second for readers' locks, because other readers queue behind it, and
        then raises a transient error.
        """
        return False

    # Errors

    @abstractmethod
    def fault(self, error: Exception, text: str) -> FaultKind | None:
        """Return the meaning of a driver's error; None for a programming error.

        Args:
            error: the driver's error, without SQLAlchemy's wrapper.
            text: its message on one line.
        """

    @abstractmethod
    def is_duplicate_key(self, error: BaseException) -> bool:
        """Whether a driver's error means that a row with the same key already exists."""


@contextmanager
def alone_by_file(file: Path, name: str) -> Iterator[None]:
    """Hold a lock in a file beside the database file; see :meth:`Backend.alone`."""
    lock = file.with_name(f"{file.name}.{name}.lock")
    with locked(lock):
        yield
        # While it is held: whoever waits for it sees that it is gone, and makes another.
        lock.unlink(missing_ok=True)


def excluded(insert: Any, changed: Sequence[str]) -> Mapping[str, Any]:
    """Return the columns to change on a conflict, with the values that the insert would have written."""
    return {name: insert.excluded[name] for name in changed}


def rows_as_batches(database: Database, query: sa.Select[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield a query's rows in batches, read through SQLAlchemy."""
    with database.reading() as connection:
        result = connection.execute(query)
        names = tuple(result.keys())
        for rows in result.partitions(BATCH_ROWS):
            columns = zip(names, zip(*rows, strict=True), strict=True)
            yield pa.RecordBatch.from_pydict(
                {name: pa.array(c, schema.field(name).type) for name, c in columns}
            )
