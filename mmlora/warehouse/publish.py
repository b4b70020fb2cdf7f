"""Publish a load: write its rows, then move a pointer.

It takes three steps, each of which leaves readers with either the old load or the new one::

    prepare   check that the load is still staged, and delete what a killed attempt left
    write     write the audited rows under a key that no pointer names yet
    finish    check the row count, move the pointer, and mark the new load and the old one

If a step is killed, publishing the same load again completes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import monotonic

import pyarrow as pa
import sqlalchemy as sa

from mmlora.errors import CheckError, ContractError, DataError, UsageError
from mmlora.schema import Id, IdTypes
from mmlora.warehouse import loads
from mmlora.warehouse.backends.base import RowWriter
from mmlora.warehouse.database import Database, clock, hold, upsert
from mmlora.warehouse.loads import Load
from mmlora.warehouse.tables import Tables
from mmlora.warehouse.writers import prefetch, staged_batches

HEARTBEAT_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publication:
    """The published load of a domain and date.

    Attributes:
        max_age_days: of what age its scores are stale; None where no promise is known.
    """

    domain_id: Id
    score_date: date
    load_key: int
    load_id: str
    attempt: int
    model_version: str
    rows: int
    published_at: datetime
    max_age_days: int | None = None

    @classmethod
    def of(cls, load: Load) -> Publication:
        """Return what readers have, or had, of a load that was published."""
        return cls(
            domain_id=load.domain_id,
            score_date=load.score_date,
            load_key=load.load_key,
            load_id=load.load_id,
            attempt=load.attempt,
            model_version=load.model_version,
            rows=load.rows or 0,
            published_at=load.finished_at or load.started_at,
        )

    @property
    def age_days(self) -> int:
        """Whole days from the score date to today, in UTC."""
        return (datetime.now(UTC).date() - self.score_date).days

    @property
    def is_stale(self) -> bool | None:
        """Whether the scores are older than promised; None where no promise is known."""
        return None if self.max_age_days is None else self.age_days > self.max_age_days


def publish(
    database: Database, tables: Tables, ids: IdTypes, load: Load, files: Iterable[Path], writer: RowWriter
) -> Load:
    """Publish a staged load, and return its new state: ``published`` or ``superseded``."""
    current = _prepare(database, tables, load)
    if current.state != "staged":
        return current
    batches = _with_heartbeats(database, tables, current, prefetch(staged_batches(files, ids, current)))
    try:
        writer.write(current, batches)
    except (DataError, ContractError):
        _prepare(database, tables, load)  # some databases have already committed batches
        raise
    except Exception as error:
        if not database.is_duplicate_key(error):
            raise
        return _published_by_another(database, tables, current)
    return _finish(database, tables, current)


def publications(
    connection: sa.Connection,
    tables: Tables,
    *,
    domain: Id | None = None,
    start: date | None = None,
    end: date | None = None,
) -> list[Publication]:
    """Return the publications by domain, newest date first; ``start`` and ``end`` are inclusive."""
    pointer, load = tables.publications.c, tables.score_loads.c
    query = (
        sa.select(
            pointer.domain_id,
            pointer.score_date,
            pointer.load_key,
            load.load_id,
            load.attempt,
            load.model_version,
            load.rows,
            pointer.published_at,
            tables.promises.c.max_age_days,
        )
        .join_from(tables.publications, tables.score_loads, pointer.load_key == load.load_key)
        .outerjoin(tables.promises, tables.promises.c.domain_id == pointer.domain_id)
        .order_by(pointer.domain_id, pointer.score_date.desc())
    )
    if domain is not None:
        query = query.where(pointer.domain_id == domain)
    if start is not None:
        query = query.where(pointer.score_date >= start)
    if end is not None:
        query = query.where(pointer.score_date <= end)
    return [Publication(**row._mapping) for row in connection.execute(query)]


def _prepare(database: Database, tables: Tables, load: Load) -> Load:
    with database.writing() as connection:
        current = loads.find(connection, tables, load.load_key, lock=True)
        _refuse_closed(current)
        if current.state == "running":
            raise UsageError(f"load {load.load_id} is still running: stage and audit it before publishing")
        if current.state == "staged" and _newer(connection, tables, current):
            return _supersede(connection, tables, current)
        if current.state == "staged":
            loads.beat(connection, tables, current)
            connection.execute(sa.delete(tables.scores).where(*_rows_of(tables, current)))
        return current


def _refuse_closed(load: Load) -> None:
    """Reject a load that failed or was rejected; no retry can publish it."""
    if load.state in ("failed", "rejected"):
        raise CheckError(f"publication of load {load.load_id}", [loads.why_closed(load)])


def _published_by_another(database: Database, tables: Tables, load: Load) -> Load:
    """Return the load when its rows exist already because another process has published it meanwhile."""
    with database.reading() as connection:
        current = loads.find(connection, tables, load.load_key)
    if current.state == "staged":
        raise DataError(
            f"load {load.load_id}",
            "a user and item occur in two rows: nothing was published. Score the date again",
        )
    return current


def _finish(database: Database, tables: Tables, load: Load) -> Load:
    with database.writing() as connection:
        hold(connection, "load", load.domain_id, load.score_date)
        current = loads.find(connection, tables, load.load_key, lock=True)
        _refuse_closed(current)
        if current.state != "staged":  # another process published the same load meanwhile
            return current
        counted = count_rows(connection, tables, current)
        if counted != current.rows:
            raise DataError(
                f"load {load.load_id}",
                f"{counted:,} rows written, {current.rows:,} staged: its files are gone or incomplete; "
                "nothing was published. Score the date again",
            )
        if _newer(connection, tables, current):
            return _supersede(connection, tables, current)
        move_pointer(connection, tables, current)
        return loads.find(connection, tables, load.load_key)


def count_rows(connection: sa.Connection, tables: Tables, load: Load) -> int:
    """Return the number of a load's rows in the warehouse."""
    query = sa.select(sa.func.count()).select_from(tables.scores).where(*_rows_of(tables, load))
    return int(connection.execute(query).scalar_one())


def move_pointer(connection: sa.Connection, tables: Tables, load: Load) -> None:
    """Make a load the published one of its domain and date; the load published before is superseded."""
    now = _after_the_last(connection, tables, load)
    column = tables.score_loads.c
    connection.execute(
        sa.update(tables.score_loads)
        .where(
            column.domain_id == load.domain_id,
            column.score_date == load.score_date,
            # An earlier attempt that was staged but never published is superseded as well.
            sa.or_(
                column.state == "published",
                sa.and_(column.state == "staged", column.attempt < load.attempt),
            ),
        )
        .values(state="superseded")
    )
    connection.execute(
        sa.update(tables.score_loads)
        .where(column.load_key == load.load_key)
        .values(state="published", finished_at=now)
    )
    pointer = {
        "domain_id": load.domain_id,
        "score_date": load.score_date,
        "load_key": load.load_key,
        "published_at": now,
    }
    upsert(connection, tables.publications, [pointer])


def _after_the_last(connection: sa.Connection, tables: Tables, load: Load) -> datetime:
    """Return the time; later than any publication of the domain and date, even if the clock went back."""
    column, now = tables.score_loads.c, clock(connection)
    last = connection.execute(
        sa.select(sa.func.max(column.finished_at)).where(
            column.domain_id == load.domain_id, column.score_date == load.score_date
        )
    ).scalar()
    return now if last is None else max(now, last + timedelta(microseconds=1))


def _newer(connection: sa.Connection, tables: Tables, load: Load) -> bool:
    """Whether a later attempt is published already, which an older load never replaces."""
    published = publications(
        connection, tables, domain=load.domain_id, start=load.score_date, end=load.score_date
    )
    return bool(published) and published[0].attempt > load.attempt


def _supersede(connection: sa.Connection, tables: Tables, load: Load) -> Load:
    # Without `finished_at`: what readers never had doesn't count as a load that can be restored.
    _log.warning("load %s is older than the published one, so it was not published", load.load_id)
    connection.execute(
        sa.update(tables.score_loads)
        .where(tables.score_loads.c.load_key == load.load_key)
        .values(state="superseded")
    )
    return loads.find(connection, tables, load.load_key)


def _rows_of(tables: Tables, load: Load) -> tuple[sa.ColumnElement[bool], ...]:
    # The date lets PostgreSQL prune all partitions but one.
    return tables.scores.c.load_key == load.load_key, tables.scores.c.score_date == load.score_date


def _with_heartbeats(
    database: Database, tables: Tables, load: Load, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    last = monotonic()
    for batch in batches:
        if monotonic() - last > HEARTBEAT_SECONDS:
            with database.writing() as connection:
                loads.beat(connection, tables, load)
            last = monotonic()
        yield batch
