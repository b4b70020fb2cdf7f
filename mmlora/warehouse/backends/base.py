"""What a database must be able to do to hold a warehouse, and what most of them do alike."""

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
"""How long a transaction waits for another's lock before it is a ``TransientError``."""

BATCH_ROWS = 65_536

# Execution options of an engine, for what a backend does when a transaction begins.
WRITES = "mmlora_writes"
UNCHECKED = "mmlora_unchecked"
UNSYNCED = "mmlora_unsynced"

FaultKind = Literal["transient", "refused", "unfit", "no_database", "corrupt"]
"""What a driver's error means: worth a retry; who we are or what we may do; a value that the database can't
hold; a file of another kind; a damaged file."""


class RowWriter(Protocol):
    """Writes the rows of one load; what a killed call left behind is the caller's to delete."""

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> None:
        """Write batches of ``scores_schema`` rows under the load's key."""


class Backend(ABC):
    """One kind of database.

    Attributes:
        title: its name, for messages.
        example: what its URLs look like.
        one_writer: whether one transaction writes at a time, so that a night's loads are published in turn;
            else they are published while the next domains are scored.
        drops_months: whether :meth:`drop_month` can drop any.
        no_table: finds the name, as a group, in the message about a table or view that doesn't exist.
    """

    title: ClassVar[str]
    example: ClassVar[str]
    one_writer: ClassVar[bool] = True
    drops_months: ClassVar[bool] = False
    no_table: ClassVar[re.Pattern[str]]

    # Reaching it

    @abstractmethod
    def accept(self, url: sa.URL) -> sa.URL | None:
        """Return the URL with the driver to connect by; None where it names no database that lasts."""

    @abstractmethod
    def engine(self, url: sa.URL) -> sa.Engine:
        """Prepare connections; none is made yet."""

    def file(self, url: sa.URL) -> Path | None:
        """Return the file behind the URL; None for a server."""
        return None

    # Transactions

    @abstractmethod
    def alone(self, engine: sa.Engine, name: str) -> AbstractContextManager[None]:
        """Hold a named lock over several transactions, and wait for it as long as another process lives."""

    def reads_in_a_row(self, engine: sa.Engine) -> AbstractContextManager[Any]:
        """Keep open, for several reading transactions, what each would open anew."""
        return nullcontext()

    def hold(self, connection: sa.Connection, name: str) -> None:  # noqa: B027
        """Hold a named lock until the transaction ends; needless where a writing transaction is alone."""

    def clock(self, connection: sa.Connection) -> datetime:
        """Return the time by which loads are ordered: the server's own, where there is one."""
        return datetime.now(UTC)

    @abstractmethod
    def upsert(self, table: sa.Table, changed: Sequence[str]) -> sa.Insert:
        """Return an insert that changes the named columns where a row with the same primary key exists."""

    # Column types

    def timestamp(self) -> TypeEngine[Any]:
        """Return the type of moments; naive values that it returns count as UTC."""
        return sa.DateTime(timezone=True)

    def text_id(self) -> TypeEngine[Any]:
        """Return the type of ids that are text; they must sort by bytes."""
        return sa.Text()

    def json(self) -> TypeEngine[Any]:
        """Return the type of JSON values."""
        return sa.JSON(none_as_null=True)

    def generated_key(self) -> TypeEngine[Any]:
        """Return the type of integer keys that the database generates."""
        return sa.BigInteger()

    # Migrations

    def before_migrations(self, connection: sa.Connection, views: Iterable[str]) -> None:  # noqa: B027
        """Prepare for altering tables; where views stand in the way, drop them: they are made again."""

    def after_migrations(self, connection: sa.Connection) -> None:  # noqa: B027
        """Check what :data:`UNCHECKED` left unchecked, before the transaction ends."""

    def days_since(self, column: str) -> str:
        """Return SQL for the whole days from a date to today in UTC."""
        return f"(CAST(now() AT TIME ZONE 'UTC' AS DATE) - {column})"

    def grant_reader(self, connection: sa.Connection, role: str, views: Iterable[str]) -> None:
        """Make a role, where there is none, that may read the views and nothing else.

        Raises:
            UsageError: the database has no roles.
        """
        raise UsageError(
            f"--reader-role {role}: {self.title} has no roles, whoever may read the file reads all of it; "
            "limit who may read the file, or use PostgreSQL"
        )

    def create_view(self, connection: sa.Connection, name: str, query: str) -> None:
        """Make a view, or replace it: grants on it, and what others built on it, stay."""
        connection.exec_driver_sql(f"CREATE OR REPLACE VIEW {name} AS {query}")

    @abstractmethod
    def add_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """Add a CHECK to a table whose primary key is ``pk_<table>``; rows that are there aren't scanned."""

    @abstractmethod
    def drop_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """Take back what :meth:`add_check` added."""

    # Rows

    @abstractmethod
    def writer(self, database: Database) -> RowWriter:
        """Return the bulk writer."""

    @abstractmethod
    def batches(
        self, database: Database, query: sa.Select[Any], schema: pa.Schema, *, few: bool
    ) -> Iterator[pa.RecordBatch]:
        """Yield a query's rows in batches, in its order.

        Args:
            database: where.
            query: what to read.
            schema: has a type for each column of the query, which a batch's column can be cast to.
            few: whether the rows are few, so that setting up a bulk read isn't worth it.
        """

    @abstractmethod
    def scores_bytes(self, connection: sa.Connection) -> int:
        """Return about how many bytes ``scores`` and its index take, without free space inside."""

    def drop_month(self, connection: sa.Connection, month: date) -> bool:
        """Drop all rows of a month's dates; False where they don't lie apart, and must be deleted.

        A lock that readers hold is waited for in fractions of a second, since other readers wait behind:
        then it is an error that passes.
        """
        return False

    # Errors

    @abstractmethod
    def fault(self, error: Exception, text: str) -> FaultKind | None:
        """Return what a driver's error means; None for a fault of the program.

        Args:
            error: the driver's error, out of SQLAlchemy's wrapping.
            text: its message on one line.
        """

    @abstractmethod
    def is_duplicate_key(self, error: BaseException) -> bool:
        """Whether a driver says that a row with the same key is there already."""


@contextmanager
def alone_by_file(file: Path, name: str) -> Iterator[None]:
    """Hold a lock in a file beside a database's; see :meth:`Backend.alone`."""
    lock = file.with_name(f"{file.name}.{name}.lock")
    with locked(lock):
        yield
    lock.unlink(missing_ok=True)  # not after a failure: another may be waiting to try


def excluded(insert: Any, changed: Sequence[str]) -> Mapping[str, Any]:
    """Return the columns to change on a conflict, with the values that the insert would have written."""
    return {name: insert.excluded[name] for name in changed}


def rows_as_batches(database: Database, query: sa.Select[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield a query's rows as SQLAlchemy reads them, in batches."""
    with database.reading() as connection:
        result = connection.execute(query)
        names = tuple(result.keys())
        for rows in result.partitions(BATCH_ROWS):
            columns = zip(names, zip(*rows, strict=True), strict=True)
            yield pa.RecordBatch.from_pydict(
                {name: pa.array(c, schema.field(name).type) for name, c in columns}
            )
