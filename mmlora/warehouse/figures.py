"""The metrics of the warehouse: nights, loads, checks and champions, in a few quick queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from mmlora.schema import Id, midnight
from mmlora.telemetry import figures
from mmlora.telemetry.figures import Figure, Metric
from mmlora.warehouse.database import Database
from mmlora.warehouse.night_states import EXPECT_NOTHING, night_states
from mmlora.warehouse.standing_models import ALL_DOMAINS, standing_models
from mmlora.warehouse.tables import Tables

NIGHTS = 7
"""Nights whose loads are counted; each is a value of a label, so not for ever."""
_DAY = timedelta(days=1).total_seconds()


def warehouse_figures(
    database: Database, tables: Tables, *, now: datetime, silence: timedelta
) -> list[Figure]:
    """Return the figures of all metrics that the warehouse knows of.

    Args:
        database: the warehouse's database.
        tables: its tables.
        now: the present moment.
        silence: the age of a heartbeat from which on a load's process counts as dead.
    """
    today = now.astimezone(UTC).date()
    nights = night_states(database, tables, days=NIGHTS, today=today, silence=silence)
    with database.reading() as connection:
        found = [
            *_newest_nights(connection, tables, now),
            *_loads(connection, tables, nights.start),
            *_load_seconds(connection, tables),
            *_checks(connection, tables),
        ]
    for domain, letters in nights.domains.items():
        letter = letters.rstrip(EXPECT_NOTHING)[-1:]
        states = figures.STATES if letter else ()
        found += [Figure(figures.STATE, float(name[0] == letter), (domain, name)) for name in states]
    for model in standing_models(database, tables, nights.domains):
        if model.domain != ALL_DOMAINS:
            found.append(Figure(figures.CHAMPION, 1, (model.domain, model.champion)))
            found.append(Figure(figures.CHAMPION_SINCE, model.since.timestamp(), (model.domain,)))
            measured = {figures.AUC: model.auc, figures.CALIBRATION: model.calibration}
            found += _known(measured, model.domain)
    return found


def _newest_nights(connection: sa.Connection, tables: Tables, now: datetime) -> Iterator[Figure]:
    """Yield what readers have of each domain."""
    pointer, load, promise = tables.publications.c, tables.score_loads.c, tables.promises.c
    newest = _newest(pointer.domain_id, pointer.score_date)
    query = (
        sa.select(
            *(pointer.domain_id, pointer.score_date, pointer.published_at),
            *(load.rows, load.checks, promise.max_age_days),
        )
        .join(newest, (newest.c.domain_id == pointer.domain_id) & (newest.c.newest == pointer.score_date))
        .join(tables.score_loads, load.load_key == pointer.load_key)
        .outerjoin(tables.promises, promise.domain_id == pointer.domain_id)
    )
    for row in connection.execute(query):
        begins, size = midnight(row.score_date), row.checks or {}
        age = (now - begins).total_seconds()
        promised = None if row.max_age_days is None else (row.max_age_days + 1) * _DAY
        pairs, seconds = size.get("pairs"), size.get("seconds")
        values = {
            figures.NIGHT: begins.timestamp(),
            figures.NIGHT_AGE: age,
            figures.PROMISED_AGE: promised,
            figures.STALE: None if promised is None else float(age >= promised),
            figures.PUBLISHED: row.published_at.timestamp(),
            figures.ROWS: row.rows,
            figures.USERS: size.get("users"),
            figures.PAIRS: pairs,
            figures.PAIRS_PER_SECOND: pairs / seconds if pairs and seconds else None,
        }
        yield from _known(values, str(row.domain_id))


def _loads(connection: sa.Connection, tables: Tables, first: date) -> Iterator[Figure]:
    """Yield the number of loads of each state, by night."""
    load = tables.score_loads.c
    query = sa.select(load.score_date, load.state, sa.func.count()).where(load.score_date >= first)
    for day, state, count in connection.execute(query.group_by(load.score_date, load.state)):
        yield Figure(figures.LOADS, count, (str(day), state))


def _load_seconds(connection: sa.Connection, tables: Tables) -> Iterator[Figure]:
    """Yield how long each domain's newest ended load took."""
    load = tables.score_loads.c
    newest = _newest(load.domain_id, load.load_key, load.finished_at.is_not(None))
    query = sa.select(load.domain_id, load.started_at, load.finished_at)
    for domain, begun, ended in connection.execute(query.join(newest, newest.c.newest == load.load_key)):
        yield Figure(figures.LOAD_SECONDS, (ended - begun).total_seconds(), (str(domain),))


def _checks(connection: sa.Connection, tables: Tables) -> Iterator[Figure]:
    """Yield the outcomes of each domain's newest night: of its interactions, and of its newest load."""
    nights: dict[str, dict[date, list[Mapping[str, Any]]]] = {}
    for domain, day, outcomes in _newest_outcomes(connection, tables):
        if outcomes:  # versions of before they were kept have none
            nights.setdefault(str(domain), {}).setdefault(day, []).extend(outcomes)
    for domain, by_day in nights.items():
        by_name = {outcome["name"]: outcome for outcome in by_day[max(by_day)]}
        for name, outcome in by_name.items():
            labels = (domain, name, outcome.get("severity", "block"))
            yield Figure(figures.CHECK_FAILED, float(not outcome["passed"]), labels)
            if outcome.get("figure") is not None:
                yield Figure(figures.CHECK_FIGURE, outcome["figure"], (domain, name))


def _newest_outcomes(connection: sa.Connection, tables: Tables) -> Iterator[tuple[Id, date, Any]]:
    """Yield each domain's newest verdict and newest load: domain, date and outcomes."""
    load, verdict = tables.score_loads.c, tables.domain_verdicts.c
    newest = _newest(verdict.domain_id, verdict.as_of)
    same = (newest.c.domain_id == verdict.domain_id) & (newest.c.newest == verdict.as_of)
    for row in connection.execute(
        sa.select(verdict.domain_id, verdict.as_of, verdict.checks).join(newest, same)
    ):
        yield row.domain_id, row.as_of, row.checks
    order = (load.score_date.desc(), load.load_key.desc())
    place = sa.func.row_number().over(partition_by=load.domain_id, order_by=order).label("place")
    places = sa.select(load.load_key, place).subquery()
    first = (places.c.load_key == load.load_key) & (places.c.place == 1)
    for row in connection.execute(
        sa.select(load.domain_id, load.score_date, load.checks).join(places, first)
    ):
        yield row.domain_id, row.score_date, (row.checks or {}).get("audit")


def _known(values: Mapping[Metric, float | None], domain: str) -> list[Figure]:
    """Return a domain's figures of the metrics that have a value."""
    return [Figure(metric, value, (domain,)) for metric, value in values.items() if value is not None]


def _newest(domain: sa.Column[Any], of: sa.Column[Any], *where: sa.ColumnElement[bool]) -> sa.Subquery:
    query = sa.select(domain.label("domain_id"), sa.func.max(of).label("newest")).where(*where)
    return query.group_by(domain).subquery()
