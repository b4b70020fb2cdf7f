"""Nights: whether all domains of a date are published, or why not (the view ``nights``).

The functions run inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa

from mmlora.redaction import redact
from mmlora.schema import Id
from mmlora.warehouse.database import clock, upsert
from mmlora.warehouse.tables import Tables, UtcTimestamp

_VIEW = sa.table(
    "nights",
    sa.column("score_date", sa.Date),
    sa.column("domains", sa.Integer),
    sa.column("published", sa.Integer),
    sa.column("complete", sa.Boolean),
    sa.column("completed_at", UtcTimestamp),
    sa.column("missing", sa.Text),
)


@dataclass(frozen=True)
class Night:
    """The publication of one date.

    Attributes:
        score_date: the date.
        domains: number of domains to publish.
        published: number of domains published.
        complete: whether all domains are published.
        completed_at: when the last domain was published; None until complete.
        missing: the unpublished domains, each with the reason; None when complete.
    """

    score_date: date
    domains: int
    published: int
    complete: bool
    completed_at: datetime | None
    missing: str | None


def nights(connection: sa.Connection, *, on: date | None = None, limit: int | None = None) -> list[Night]:
    """Return the nights, newest first; with ``on`` only that night, if it has loads or failures."""
    query = sa.select(_VIEW).order_by(_VIEW.c.score_date.desc()).limit(limit)
    if on is not None:
        query = query.where(_VIEW.c.score_date == on)
    return [Night(**row._mapping) for row in connection.execute(query)]


def failures(connection: sa.Connection, tables: Tables, on: date) -> dict[Id, str]:
    """Return why domains aren't published for a date, as recorded."""
    table = tables.night_failures
    query = sa.select(table.c.domain_id, table.c.reason).where(table.c.score_date == on)
    return {row.domain_id: row.reason for row in connection.execute(query)}


def record_failure(
    connection: sa.Connection, tables: Tables, *, domain: Id, score_date: date, reason: str
) -> None:
    """Record why a domain isn't published for a date; a later reason replaces the earlier one."""
    row = {
        "domain_id": domain,
        "score_date": score_date,
        "reason": redact(reason),
        "recorded_at": clock(connection),
    }
    upsert(connection, tables.night_failures, [row])
