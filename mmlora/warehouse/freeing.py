"""Free the rows of loads that are no longer needed, and of whole nights past their retention.

It takes two steps, so that readers are correct at each moment and a killed run is completed by the next::

    mark    one transaction per night: readers stop following it, and its loads can't be restored
    delete  rows without a pointer: a whole month at once where the database can, else in batches

Running and staged loads are left alone, and so are published loads, except those of nights that are too old.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mmlora.errors import TransientError
from mmlora.schema import Id, LoadState
from mmlora.warehouse import ledger, loads
from mmlora.warehouse.database import Database, clock, hold
from mmlora.warehouse.loads import OPEN
from mmlora.warehouse.tables import Tables

BATCH_ROWS = 100_000
"""Approximate number of rows deleted per transaction; the rows of a user are deleted together."""
_PAUSE_SECONDS = 0.05
"""Pause between transactions where only one can write at a time, to let others in."""
_DROP_TRIES = 20
_DROP_PAUSE_SECONDS = 0.5
_KEYS_PER_COUNT = 500


@dataclass(frozen=True)
class FreeLoad:
    """A load whose rows can be freed.

    Attributes:
        night: whether its whole night is freed, instead of only replaced loads.
        rows: its rows in the warehouse.
        bytes: approximate size of its rows, with their share of the index.
    """

    load_key: int
    load_id: str
    domain_id: Id
    score_date: date
    state: LoadState
    finished_at: datetime | None
    rows_freed_at: datetime | None
    night: bool = False
    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Freeing:
    """The loads to free.

    Attributes:
        keep_loads: number of formerly published loads kept per domain and date.
        before: nights before this date are freed; None keeps all.
        why: the reason for the ledger.
        loads: the loads to free, oldest night first.
    """

    keep_loads: int
    before: date | None
    why: str
    loads: tuple[FreeLoad, ...]


def plan(database: Database, tables: Tables, *, keep_days: int | None, keep_loads: int) -> Freeing:
    """Return the loads that can be freed.

    Args:
        database: the warehouse's database.
        tables: its tables.
        keep_days: nights more than this many days before the newest published one are freed; None keeps all.
        keep_loads: number of formerly published loads to keep per domain and date.
    """
    with database.reading() as connection:
        newest = connection.execute(sa.select(sa.func.max(tables.publications.c.score_date))).scalar()
        before = newest - timedelta(days=keep_days) if newest and keep_days is not None else None
        why = f"retention: more than {keep_days} days before the newest night, {newest}"
        candidates = _unneeded(connection, tables, before, keep_loads)
        rows = _counts(connection, tables, [load.load_key for load in candidates])
        row_bytes = _bytes_per_row(database, connection, tables) if rows else 0.0
    counted = (
        replace(load, rows=rows.get(load.load_key, 0), bytes=round(row_bytes * rows.get(load.load_key, 0)))
        for load in candidates
    )
    return Freeing(keep_loads, before, why, tuple(counted))


def free(database: Database, tables: Tables, planned: Freeing, *, who: str) -> Iterator[FreeLoad]:
    """Free the planned loads that still can be, and those left by a killed call; yield each load when done.

    Raises:
        TransientError: the database is unavailable, or locked for too long; freeing again continues from
            there.
    """
    for night in sorted({load.score_date for load in planned.loads if load.rows_freed_at is None}):
        with database.writing() as connection:
            _mark(connection, tables, night, planned, who)
        _pause(database)
    known = {load.load_key: load for load in planned.loads}
    with database.reading() as connection:
        marked = _loads(connection, tables, _freed(tables))
    for load, rows in _delete(database, tables, marked):
        expected = known.get(load.load_key, load)
        yield expected if rows is None else replace(expected, rows=rows)


def versions_in_use(database: Database, tables: Tables, without: Collection[FreeLoad] = ()) -> set[str]:
    """Return the model versions of the loads whose rows count, except those of ``without``."""
    column, ignored = tables.score_loads.c, {load.load_key for load in without}
    query = sa.select(column.load_key, column.model_version).where(
        column.rows_freed_at.is_(None), column.state.not_in(("failed", "rejected"))
    )
    with database.reading() as connection:
        return {version for key, version in connection.execute(query) if key not in ignored}


def _unneeded(
    connection: sa.Connection, tables: Tables, before: date | None, keep_loads: int, night: date | None = None
) -> list[FreeLoad]:
    """Return the loads that can be freed, oldest night first; with ``night``, those of this date only."""
    column = tables.score_loads.c
    closed: list[sa.ColumnElement[bool]] = [column.state.not_in(OPEN), column.rows_deleted_at.is_(None)]
    if night is not None:
        closed.append(column.score_date == night)
    groups: dict[tuple[date, Id], list[FreeLoad]] = {}
    for load in _loads(connection, tables, sa.and_(*closed)):
        groups.setdefault((load.score_date, load.domain_id), []).append(load)
    unneeded: list[FreeLoad] = []
    for (on, _), group in groups.items():
        old = before is not None and on < before
        unneeded += [replace(load, night=True) for load in group] if old else _replaced(group, keep_loads)
    return unneeded


def _replaced(group: Iterable[FreeLoad], keep: int) -> list[FreeLoad]:
    """Return the unpublished loads of a domain and date, except the ``keep`` newest superseded ones."""
    unpublished = [load for load in group if load.state != "published"]
    former = [load for load in unpublished if load.state == "superseded" and load.rows_freed_at is None]
    by_age = sorted((load.finished_at, load.load_key) for load in former if load.finished_at is not None)
    restorable = {key for _, key in by_age[max(len(by_age) - keep, 0) :]}
    return [load for load in unpublished if load.load_key not in restorable]


def _mark(connection: sa.Connection, tables: Tables, night: date, planned: Freeing, who: str) -> None:
    """Mark a night's unneeded loads as freed, in their present state, all or none."""
    column = tables.score_loads.c
    domains = connection.execute(sa.select(column.domain_id).where(column.score_date == night).distinct())
    for domain in sorted(domains.scalars(), key=str):
        hold(connection, "load", domain, night)  # the lock of publishing and restoring
    unneeded = _unneeded(connection, tables, planned.before, planned.keep_loads, night)
    for load in (load for load in unneeded if load.state == "published"):
        current = loads.find(connection, tables, load.load_key)
        ledger.record(connection, tables, current, "unpublish", before=current, who=who, why=planned.why)
    keys = [load.load_key for load in unneeded if load.rows_freed_at is None]
    connection.execute(sa.delete(tables.publications).where(tables.publications.c.load_key.in_(keys)))
    selected = column.load_key.in_(keys)
    connection.execute(
        sa.update(tables.score_loads)
        .where(selected, column.state == "published")
        .values(state="superseded", reason=planned.why)
    )
    connection.execute(sa.update(tables.score_loads).where(selected).values(rows_freed_at=clock(connection)))
    if planned.before is not None and night < planned.before:
        failures = tables.night_failures
        connection.execute(sa.delete(failures).where(failures.c.score_date == night))


def _delete(
    database: Database, tables: Tables, marked: Collection[FreeLoad]
) -> Iterator[tuple[FreeLoad, int | None]]:
    """Delete the rows of marked loads; yield each load with the number of rows, or None if not counted."""
    months = (
        sorted({load.score_date.replace(day=1) for load in marked}) if database.backend.drops_months else []
    )
    dropped = {month for month in months if _drop_month(database, tables, month)}
    for load in marked:
        if load.score_date.replace(day=1) in dropped:
            yield load, None
            continue
        rows, done = 0, False
        with database.alone(f"publish-{load.load_key}"):  # a publisher presumed dead may still write
            while not done:
                deleted, done = _delete_batch(database, tables, load)
                rows += deleted
                if deleted:
                    _pause(database)
        yield load, rows


def _drop_month(database: Database, tables: Tables, month: date) -> bool:
    """Drop a month without counting loads; return False if it has one, or if readers keep it locked."""
    for attempt in range(_DROP_TRIES):
        time.sleep(_DROP_PAUSE_SECONDS if attempt else 0)
        try:
            with database.writing() as connection:
                return _drop_unneeded(database, connection, tables, month)
        except TransientError:  # readers hold it
            continue
    return False


def _drop_unneeded(database: Database, connection: sa.Connection, tables: Tables, month: date) -> bool:
    column = tables.score_loads.c
    following = (month + timedelta(days=31)).replace(day=1)
    inside = sa.and_(column.score_date >= month, column.score_date < following)
    hold(connection, "partition")  # nobody may create or look up a partition before this is decided
    needed = sa.select(sa.func.count()).where(inside, column.rows_freed_at.is_(None))
    if connection.execute(needed).scalar_one() or not database.backend.drop_month(connection, month):
        return False
    connection.execute(
        sa.update(tables.score_loads)
        .where(inside, column.rows_deleted_at.is_(None))
        .values(rows_deleted_at=clock(connection))
    )
    return True


def _delete_batch(database: Database, tables: Tables, load: FreeLoad) -> tuple[int, bool]:
    """Delete a batch of a load's rows; return their number and whether they were the last."""
    column, facts = tables.scores.c, tables.score_loads
    rows = [column.load_key == load.load_key, column.score_date == load.score_date]
    ahead = sa.select(column.user_id).where(*rows).order_by(column.user_id).offset(BATCH_ROWS).limit(1)
    with database.writing(synced=False) as connection:
        last = connection.execute(ahead).scalar()
        if last is not None:
            rows.append(column.user_id <= last)
        deleted = connection.execute(sa.delete(tables.scores).where(*rows)).rowcount
        if last is None:
            connection.execute(
                sa.update(facts)
                .where(facts.c.load_key == load.load_key)
                .values(rows_deleted_at=clock(connection))
            )
    return deleted, last is None


def _pause(database: Database) -> None:
    if database.backend.one_writer:
        time.sleep(_PAUSE_SECONDS)


def _freed(tables: Tables) -> sa.ColumnElement[bool]:
    column = tables.score_loads.c
    return sa.and_(column.rows_freed_at.is_not(None), column.rows_deleted_at.is_(None))


def _loads(connection: sa.Connection, tables: Tables, condition: sa.ColumnElement[bool]) -> list[FreeLoad]:
    column = tables.score_loads.c
    names = ("load_key", "load_id", "domain_id", "score_date", "state", "finished_at", "rows_freed_at")
    query = sa.select(*(column[name] for name in names)).where(condition)
    rows: Any = connection.execute(query.order_by(column.score_date, column.load_key))
    return [FreeLoad(**row._mapping) for row in rows]


def _counts(connection: sa.Connection, tables: Tables, keys: list[int]) -> dict[int, int]:
    """Return the number of rows in the warehouse per load, for loads that have any."""
    column, counts = tables.scores.c, dict[int, int]()
    for start in range(0, len(keys), _KEYS_PER_COUNT):
        selected = column.load_key.in_(keys[start : start + _KEYS_PER_COUNT])
        query = sa.select(column.load_key, sa.func.count()).where(selected).group_by(column.load_key)
        counts.update((key, count) for key, count in connection.execute(query))
    return counts


def _bytes_per_row(database: Database, connection: sa.Connection, tables: Tables) -> float:
    """Return the approximate size of a row: the table's size over the sum of its loads' row counts."""
    column = tables.score_loads.c
    total = sa.select(sa.func.sum(column.rows)).where(
        column.rows_deleted_at.is_(None), column.state.in_(("published", "superseded"))
    )
    rows = connection.execute(total).scalar() or 0
    return database.backend.scores_bytes(connection) / int(rows) if rows else 0.0
