"""Freeing rows: of loads that nobody goes back to, and of whole nights when their time is over.

Two steps, so that readers are right at each moment, and whatever is killed in between, freeing again
completes it::

    mark    one transaction a night: readers stop following it, and nobody may restore its loads
    delete  rows that no pointer leads to: a month at once where the database can, else in batches

Loads that are running or staged are left alone, and so is what readers have, but for nights that are too old.
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
"""Rows deleted in a transaction, about: a user's are deleted together."""
_PAUSE_SECONDS = 0.05
"""Between transactions where one writes at a time: others get their turn."""
_DROP_TRIES = 20
_DROP_PAUSE_SECONDS = 0.5
_COUNTED_AT_ONCE = 500


@dataclass(frozen=True)
class FreeLoad:
    """A load whose rows can go.

    Attributes:
        night: whether its whole night goes, and not just what a later load replaced.
        rows: those in the warehouse.
        bytes: what they take, about, with their share of the index.
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
    """Which loads can go.

    Attributes:
        keep_loads: earlier published loads that are kept for each domain and date.
        before: nights before this date go; None keeps all.
        why: the reason for the ledger.
        loads: those to free, oldest night first.
    """

    keep_loads: int
    before: date | None
    why: str
    loads: tuple[FreeLoad, ...]


def plan(database: Database, tables: Tables, *, keep_days: int | None, keep_loads: int) -> Freeing:
    """Say which loads can go.

    Args:
        database: where.
        tables: its tables.
        keep_days: nights of more than so many days before the newest published one go; None keeps all.
        keep_loads: so many loads that readers had before are kept for each domain and date.
    """
    with database.reading() as connection:
        newest = connection.execute(sa.select(sa.func.max(tables.publications.c.score_date))).scalar()
        before = newest - timedelta(days=keep_days) if newest and keep_days is not None else None
        why = f"retention: more than {keep_days} days before the newest night, {newest}"
        candidates = _unneeded(connection, tables, before, keep_loads)
        rows = _counts(connection, tables, [load.load_key for load in candidates])
        a_row = _bytes_a_row(database, connection, tables) if rows else 0.0
    counted = (
        replace(load, rows=rows.get(load.load_key, 0), bytes=round(a_row * rows.get(load.load_key, 0)))
        for load in candidates
    )
    return Freeing(keep_loads, before, why, tuple(counted))


def free(database: Database, tables: Tables, planned: Freeing, *, who: str) -> Iterator[FreeLoad]:
    """Free what was planned and is still free to go, and what a killed call left; yields each load when done.

    Raises:
        TransientError: the database is gone, or locked for too long; freeing again goes on from there.
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
    """Return the model versions of all loads whose rows count, but for some loads."""
    column, gone = tables.score_loads.c, {load.load_key for load in without}
    query = sa.select(column.load_key, column.model_version).where(
        column.rows_freed_at.is_(None), column.state.not_in(("failed", "rejected"))
    )
    with database.reading() as connection:
        return {version for key, version in connection.execute(query) if key not in gone}


def _unneeded(
    connection: sa.Connection, tables: Tables, before: date | None, keep_loads: int, night: date | None = None
) -> list[FreeLoad]:
    """Return the loads that can go, oldest night first; with ``night`` those of this date only."""
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
    """Return which loads of a domain and date nobody has and nobody is to go back to."""
    others = [load for load in group if load.state != "published"]
    earlier = [load for load in others if load.state == "superseded" and load.rows_freed_at is None]
    had = sorted((load.finished_at, load.load_key) for load in earlier if load.finished_at is not None)
    kept = {key for _, key in had[max(len(had) - keep, 0) :]}
    return [load for load in others if load.load_key not in kept]


def _mark(connection: sa.Connection, tables: Tables, night: date, planned: Freeing, who: str) -> None:
    """Free a night's loads, as they are now, and all of them or none."""
    column = tables.score_loads.c
    domains = connection.execute(sa.select(column.domain_id).where(column.score_date == night).distinct())
    for domain in sorted(domains.scalars(), key=str):
        hold(connection, "load", domain, night)  # as whoever publishes or restores one
    unneeded = _unneeded(connection, tables, planned.before, planned.keep_loads, night)
    for load in (load for load in unneeded if load.state == "published"):
        current = loads.find(connection, tables, load.load_key)
        ledger.record(connection, tables, current, "unpublish", before=current, who=who, why=planned.why)
    keys = [load.load_key for load in unneeded if load.rows_freed_at is None]
    connection.execute(sa.delete(tables.publications).where(tables.publications.c.load_key.in_(keys)))
    ours = column.load_key.in_(keys)
    connection.execute(
        sa.update(tables.score_loads)
        .where(ours, column.state == "published")
        .values(state="superseded", reason=planned.why)
    )
    connection.execute(sa.update(tables.score_loads).where(ours).values(rows_freed_at=clock(connection)))
    if planned.before is not None and night < planned.before:
        failures = tables.night_failures
        connection.execute(sa.delete(failures).where(failures.c.score_date == night))


def _delete(
    database: Database, tables: Tables, marked: Collection[FreeLoad]
) -> Iterator[tuple[FreeLoad, int | None]]:
    """Delete the rows of loads that are marked, and yield each load with how many; None: all, uncounted."""
    months = (
        sorted({load.score_date.replace(day=1) for load in marked}) if database.backend.drops_months else []
    )
    dropped = {month for month in months if _drop_month(database, tables, month)}
    for load in marked:
        if load.score_date.replace(day=1) in dropped:
            yield load, None
            continue
        rows, done = 0, False
        with database.alone(f"publish-{load.load_key}"):  # a publisher thought dead may still write
            while not done:
                deleted, done = _delete_batch(database, tables, load)
                rows += deleted
                if deleted:
                    _pause(database)
        yield load, rows


def _drop_month(database: Database, tables: Tables, month: date) -> bool:
    """Drop a month of which no load counts; False where one does, or readers never let go of it."""
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
    hold(connection, "partition")  # nobody makes or looks for one before this is decided
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
    """Delete some rows of a load; returns how many, and whether they were the last."""
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
    """Return the rows in the warehouse of each load that has any."""
    column, found = tables.scores.c, dict[int, int]()
    for start in range(0, len(keys), _COUNTED_AT_ONCE):
        some = column.load_key.in_(keys[start : start + _COUNTED_AT_ONCE])
        query = sa.select(column.load_key, sa.func.count()).where(some).group_by(column.load_key)
        found.update((key, count) for key, count in connection.execute(query))
    return found


def _bytes_a_row(database: Database, connection: sa.Connection, tables: Tables) -> float:
    """Return what a row takes, about: the table's size over the rows that its loads say they have."""
    column = tables.score_loads.c
    had = sa.select(sa.func.sum(column.rows)).where(
        column.rows_deleted_at.is_(None), column.state.in_(("published", "superseded"))
    )
    rows = connection.execute(had).scalar() or 0
    return database.backend.scores_bytes(connection) / int(rows) if rows else 0.0
