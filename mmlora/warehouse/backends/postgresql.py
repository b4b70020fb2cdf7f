"""PostgreSQL: a server with many writers. Rows are written and read in bulk with ADBC (binary COPY)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from mmlora.errors import UsageError
from mmlora.schema import LOAD_KEY
from mmlora.warehouse.backends import base
from mmlora.warehouse.backends.base import Backend, FaultKind, RowWriter, excluded, rows_as_batches

if TYPE_CHECKING:
    from mmlora.warehouse.database import Database
    from mmlora.warehouse.loads import Load

_PARTITIONS = "partition"  # the lock for creating or dropping a partition
_DROP_WAIT_MS = 200
# SQLSTATE classes: connection, transaction rollback, resources, operator, system; lock_timeout, read-only.
_TRANSIENT_CLASSES = ("08", "40", "53", "57", "58", "55P03", "25006")
_REFUSED_CLASSES = ("28", "3D000", "42501")  # authentication, unknown database, privileges
_UNFIT_CLASSES = ("22021", "54000")  # a NUL in a text, a row too long for the index
# libpq gives no SQLSTATE for a failed connection, so the server's message is matched.
_REFUSALS = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|permission denied"
    r"|(database|role|user) \S+ (does not exist|is not permitted)|invalid connection option"
    r"|is not currently accepting connections"
)


class PostgresqlBackend(Backend):
    """A PostgreSQL server, reached by psycopg and, for rows in bulk, by ADBC."""

    title = "PostgreSQL"
    example = "postgresql://user:password@host/database"
    one_writer = False
    drops_months = True
    no_table = re.compile(r'relation "(\w+)" does not exist')

    def accept(self, url: sa.URL) -> sa.URL | None:
        """See :class:`Backend`."""
        return url.set(drivername="postgresql+psycopg")

    def engine(self, url: sa.URL) -> sa.Engine:
        """See :class:`Backend`."""
        engine = sa.create_engine(
            url, pool_pre_ping=True, connect_args={"connect_timeout": 10, "application_name": "mmlora"}
        )
        sa.event.listen(engine, "connect", _prepare)
        return engine

    @contextmanager
    def alone(self, engine: sa.Engine, name: str) -> Iterator[None]:
        """See :class:`Backend`."""
        with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.detach()  # the session ends with the context, and with it the lock and lock_timeout
            connection.exec_driver_sql("SET lock_timeout = 0")
            connection.execute(sa.select(sa.func.pg_advisory_lock(_key(name))))
            yield

    def hold(self, connection: sa.Connection, name: str) -> None:
        """See :class:`Backend`."""
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_key(name))))

    def clock(self, connection: sa.Connection) -> datetime:
        """Return the server's time, because workers' clocks may differ."""
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    def upsert(self, table: sa.Table, changed: Sequence[str]) -> sa.Insert:
        """See :class:`Backend`."""
        insert = postgresql.insert(table)
        return insert.on_conflict_do_update(
            index_elements=list(table.primary_key), set_=excluded(insert, changed)
        )

    def text_id(self) -> TypeEngine[Any]:
        """Return text that sorts by bytes, so that the order doesn't depend on the server's locale."""
        return postgresql.TEXT(collation="C")

    def json(self) -> TypeEngine[Any]:
        """See :class:`Backend`."""
        return postgresql.JSONB(none_as_null=True)

    def grant_reader(self, connection: sa.Connection, role: str, views: Iterable[str]) -> None:
        """See :class:`Backend`; a role that exists loses its other grants on the schema's tables."""
        quote = connection.dialect.identifier_preparer.quote
        name, schema = (
            quote(role),
            quote(str(connection.exec_driver_sql("SELECT current_schema").scalar_one())),
        )
        known = sa.text("SELECT rolsuper FROM pg_roles WHERE rolname = :role")
        superuser = connection.execute(known, {"role": role}).scalar_one_or_none()
        if superuser:
            raise UsageError(
                f"--reader-role {role}: this role is a superuser, who may do everything: name another"
            )
        if superuser is None:
            connection.exec_driver_sql(f"CREATE ROLE {name} NOLOGIN")
        connection.exec_driver_sql(f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {name}")
        connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO {name}")
        connection.exec_driver_sql(f"GRANT SELECT ON {', '.join(views)} TO {name}")

    def add_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """See :class:`Backend`."""
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")

    def drop_check(self, connection: sa.Connection, table: str, name: str, condition: str) -> None:
        """See :class:`Backend`."""
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")

    def writer(self, database: Database) -> RowWriter:
        """See :class:`Backend`."""
        return PostgresWriter(database)

    def batches(
        self, database: Database, query: sa.Select[Any], schema: pa.Schema, *, few: bool
    ) -> Iterator[pa.RecordBatch]:
        """Read through ADBC, which needs its own connection; read a few rows through SQLAlchemy instead."""
        return rows_as_batches(database, query, schema) if few else _by_adbc(database, query)

    def scores_bytes(self, connection: sa.Connection) -> int:
        """See :class:`Backend`."""
        return int(
            connection.exec_driver_sql(
                "SELECT coalesce(sum(pg_total_relation_size(inhrelid)), 0) FROM pg_inherits "
                "WHERE inhparent = 'scores'::regclass"
            ).scalar_one()
        )

    def drop_month(self, connection: sa.Connection, month: date) -> bool:
        """Drop a month's partition, unless readers lock it or ``scores`` for longer than 200 ms."""
        self.hold(connection, _PARTITIONS)
        if not _is_partition(connection, name := partition_name(month)):
            return False
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_DROP_WAIT_MS}ms'")
        connection.exec_driver_sql(f"DROP TABLE {name}")
        return True

    def fault(self, error: Exception, text: str) -> FaultKind | None:
        """See :class:`Backend`."""
        state = str(getattr(error, "sqlstate", None) or "")
        if state.startswith(_UNFIT_CLASSES) or "cannot contain NUL" in text:
            return "unfit"
        if type(error).__module__.split(".")[0] not in ("psycopg", "adbc_driver_manager"):
            return None
        if state.startswith(_REFUSED_CLASSES) if state else _REFUSALS.search(text):
            return "refused"
        if state:
            return "transient" if state.startswith(_TRANSIENT_CLASSES) else None
        return (
            "transient" if type(error).__name__ == "OperationalError" else None
        )  # the server didn't respond

    def is_duplicate_key(self, error: BaseException) -> bool:
        """See :class:`Backend`."""
        return getattr(error, "sqlstate", None) == "23505"


class PostgresWriter:
    """Write with ADBC's ingestion (binary COPY) into the month's partition, in one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def write(self, load: Load, batches: Iterable[pa.RecordBatch]) -> None:
        """See :class:`RowWriter`."""
        from adbc_driver_postgresql import dbapi

        table = ensure_partition(self.database, load.score_date)
        with (
            self.database.faults(),
            dbapi.connect(driver_url(self.database.engine)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(f"SET lock_timeout = '{base.LOCK_WAIT_SECONDS}s'")
            for batch in batches:
                key = pa.repeat(pa.scalar(load.load_key, pa.int64()), batch.num_rows)
                cursor.adbc_ingest(table, batch.append_column(LOAD_KEY, key), mode="append")
            connection.commit()


def driver_url(engine: sa.Engine) -> str:
    """Return SQLAlchemy's connection options as a libpq connection string, for ADBC.

    libpq parses URLs differently from SQLAlchemy: a plus sign, for example, isn't a space.
    """
    from psycopg.conninfo import make_conninfo

    _, options = engine.dialect.create_connect_args(engine.url)
    return make_conninfo(**{name: value for name, value in options.items() if name != "context"})


def partition_name(score_date: date) -> str:
    """Return the name of the partition of ``scores`` that holds a date."""
    return f"scores_{score_date:%Y_%m}"


def ensure_partition(database: Database, score_date: date) -> str:
    """Create the partition of a date's month if it doesn't exist, and return its name.

    It is created as a separate table and attached, which doesn't wait for readers or writers; ``CREATE TABLE
    ... PARTITION OF`` would wait for all of them.
    """
    name = partition_name(score_date)
    start = score_date.replace(day=1)
    end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    with database.writing() as connection:
        BACKEND.hold(connection, _PARTITIONS)  # before the check: the partition may be about to be dropped
        if not _is_partition(connection, name):
            connection.exec_driver_sql(
                f"CREATE TABLE {name} (LIKE scores INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
            )
            connection.exec_driver_sql(
                f"ALTER TABLE scores ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')"
            )
    return name


def _is_partition(connection: sa.Connection, name: str) -> bool:
    # Query the catalogue, because to_regclass uses a cache that may miss another session's commit.
    query = sa.text(
        "SELECT count(*) > 0 FROM pg_inherits JOIN pg_class ON pg_class.oid = pg_inherits.inhrelid "
        "WHERE pg_inherits.inhparent = 'scores'::regclass AND pg_class.relname = :name"
    )
    return bool(connection.execute(query, {"name": name}).scalar_one())


def _by_adbc(database: Database, query: sa.Select[Any]) -> Iterator[pa.RecordBatch]:
    from adbc_driver_postgresql import dbapi
    from psycopg import ClientCursor

    with database.reading() as connection:
        # ADBC streams (binary COPY) only queries without parameters, so psycopg quotes them into the text.
        compiled = query.compile(connection)
        raw: Any = connection.connection.dbapi_connection
        text = ClientCursor(raw).mogrify(str(compiled), compiled.params)
    url = driver_url(database.engine)
    with database.faults(), dbapi.connect(url) as source, source.cursor() as cursor:
        cursor.execute(text)
        yield from cursor.fetch_record_batch()


def _prepare(connection: Any, _record: object) -> None:
    connection.execute(f"SET lock_timeout = '{base.LOCK_WAIT_SECONDS}s'")
    connection.commit()


def _key(name: str) -> sa.Function[Any]:
    return sa.func.hashtextextended(f"mmlora:{name}", 0)


BACKEND = PostgresqlBackend()
