"""The state of each domain's nights, as one letter per night: what the page in Airflow's UI draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import sqlalchemy as sa

from mmlora.records import Record
from mmlora.schema import Id
from mmlora.warehouse.database import Database, clock
from mmlora.warehouse.loads import OPEN
from mmlora.warehouse.tables import Tables

EXPECT_NOTHING = "."
"""Letter of a night for which no load is expected."""
Night = tuple[Id, date]


@dataclass(frozen=True)
class NightStates(Record):
    """The state of each domain and night of a period.

    Attributes:
        start: the first night.
        days: number of nights.
        domains: by domain, in order, the initial of each night's state, or ``.`` where no load is expected:
            before the domain's first night, with the verdict ``absent``, after ``mmlora gc`` freed it.
    """

    start: date
    days: int
    domains: Mapping[str, str]


def night_states(
    database: Database, tables: Tables, *, days: int, today: date, silence: timedelta
) -> NightStates:
    """Return the state of every domain's last nights.

    A night is ``running`` while a load of it is scored or staged, ``published`` by the domain's champion, or
    ``stale``: published by another model, or the domain's newest night and older than its promise.
    ``blocked`` is a night whose last load failed, was rejected or taken back, or whose domain is broken;
    ``missing`` is one of the past without any load.

    Args:
        database: the warehouse's database.
        tables: its tables.
        days: number of nights, up to today, or up to the newest one if that is longer ago.
        today: the date in UTC.
        silence: the age of a heartbeat from which on a load's process counts as dead.
    """
    with database.reading() as connection:
        first, newest = _span(connection, tables, today, days)
        facts = _Facts.read(connection, tables, first, newest)
        loads = _load_states(connection, tables, first, newest, silence, today)
    period = [first + timedelta(days=n) for n in range(days)]
    states = {
        str(domain): "".join(facts.letter(domain, day, loads, today) for day in period)
        for domain in sorted(facts.began, key=lambda domain: (str(type(domain)), domain))
    }
    return NightStates(first, days, states)


def _span(connection: sa.Connection, tables: Tables, today: date, days: int) -> tuple[date, date]:
    """Return the first and last night of the period."""
    newest = connection.execute(sa.select(sa.func.max(tables.score_loads.c.score_date))).scalar() or today
    last = max(newest, today) if newest > today - timedelta(days=days) else newest
    return last - timedelta(days=days - 1), last


@dataclass(frozen=True)
class _Facts:
    """What decides about the nights of a period that have no load.

    Attributes:
        began: each domain's first night.
        blocked: nights that were kept from being scored or from readers.
        absent: nights with nobody to score.
    """

    began: Mapping[Id, date]
    blocked: frozenset[Night]
    absent: frozenset[Night]

    @classmethod
    def read(cls, connection: sa.Connection, tables: Tables, first: date, last: date) -> _Facts:
        verdict, failure = tables.domain_verdicts.c, tables.night_failures.c
        nights = {"broken": set[Night](), "absent": set[Night]()}
        query = sa.select(verdict.domain_id, verdict.as_of, verdict.verdict)
        in_period = verdict.as_of.between(first, last) & verdict.verdict.in_(nights)
        for domain, day, name in connection.execute(query.where(in_period)):
            nights[name].add((domain, day))
        failed = sa.select(failure.domain_id, failure.score_date)
        for domain, day in connection.execute(failed.where(failure.score_date.between(first, last))):
            nights["broken"].add((domain, day))
        return cls(_began(connection, tables), frozenset(nights["broken"]), frozenset(nights["absent"]))

    def letter(self, domain: Id, day: date, loads: Mapping[Night, str], today: date) -> str:
        """Return the letter of a night; ``loads`` has the states of those with a load."""
        night = (domain, day)
        state = loads.get(night, "missing")
        if state != "missing":
            return state[0]
        if night in self.blocked:
            return "blocked"[0]
        expected = night in loads or (self.began[domain] <= day < today and night not in self.absent)
        return state[0] if expected else EXPECT_NOTHING


def _began(connection: sa.Connection, tables: Tables) -> dict[Id, date]:
    """Return the first night of each domain with a load, a verdict or a failure."""
    began: dict[Id, date] = {}
    dated = (
        (tables.score_loads, "score_date"),
        (tables.domain_verdicts, "as_of"),
        (tables.night_failures, "score_date"),
    )
    for table, name in dated:
        query = sa.select(table.c.domain_id, sa.func.min(table.c[name])).group_by(table.c.domain_id)
        for domain, day in connection.execute(query):
            began[domain] = min(day, began.get(domain, day))
    return began


def _load_states(
    connection: sa.Connection, tables: Tables, first: date, last: date, silence: timedelta, today: date
) -> dict[Night, str]:
    """Return the state of each night by its loads: of the live or published one, else of the newest."""
    load = tables.score_loads.c
    freed = load.rows_freed_at.is_not(None)
    query = (
        sa.select(load.domain_id, load.score_date, load.state, load.model_version, freed)
        .where(load.score_date.between(first, last))
        .order_by(load.load_key.desc())
    )
    dead, champions = _silent(connection, tables, silence), _champions(connection, tables)
    outdated = _outdated(connection, tables, today)
    states: dict[Night, str] = {}
    for domain, day, state, version, is_freed in connection.execute(query).all():
        night = (domain, day)
        if state == "published":
            current = version == champions.get(domain, champions.get(None)) and night not in outdated
            if states.get(night) != "running":
                states[night] = "published" if current else "stale"
        elif night not in states:
            states[night] = _unpublished(state, silent=night in dead, freed=is_freed)
    return states


def _unpublished(state: str, *, silent: bool, freed: bool) -> str:
    """Return the state of a night whose newest load isn't published."""
    if state in OPEN:
        return "blocked" if silent else "running"
    if state == "superseded":
        return EXPECT_NOTHING if freed else "missing"
    return "blocked"


def _silent(connection: sa.Connection, tables: Tables, silence: timedelta) -> set[Night]:
    """Return the nights with a running load whose process is dead; a staged load has no process."""
    load = tables.score_loads.c
    query = sa.select(load.domain_id, load.score_date).where(
        load.state == "running", load.heartbeat_at < clock(connection) - silence
    )
    return {(domain, day) for domain, day in connection.execute(query)}


def _champions(connection: sa.Connection, tables: Tables) -> dict[Any, str]:
    """Return the champion of all domains (None), and of those that have their own since."""
    decision = tables.promotions.c
    query = sa.select(decision.domain_id, decision.model_version).where(decision.alias == "champion")
    champions: dict[Any, str] = {}
    for domain, version in connection.execute(query.order_by(decision.id)):
        if domain is None:  # it replaces the domains' own
            champions.clear()
        champions[domain] = version
    return champions


def _outdated(connection: sa.Connection, tables: Tables, today: date) -> set[Night]:
    """Return each domain's newest published night if it is older than promised."""
    pointer, promise = tables.publications.c, tables.promises.c
    newest = sa.func.max(pointer.score_date)
    query = (
        sa.select(pointer.domain_id, newest, promise.max_age_days)
        .join(tables.promises, promise.domain_id == pointer.domain_id)
        .group_by(pointer.domain_id, promise.max_age_days)
    )
    return {
        (domain, day)
        for domain, day, max_age_days in connection.execute(query)
        if (today - day).days > max_age_days
    }
