"""Shadow loads: nights scored by another model beside the published ones, never published themselves.

Their rows stay in staged files; the table ``shadow_loads`` records what they are. Nothing that publishes,
reads or plans nights looks there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa

from mmlora.errors import UsageError
from mmlora.load_checks import LoadChecks
from mmlora.schema import Id
from mmlora.warehouse.database import Database, clock
from mmlora.warehouse.tables import Tables

PREFIX = "shadow-"
"""How the names of shadow loads begin, and of no other's."""


@dataclass(frozen=True)
class ShadowLoad:
    """A shadow load.

    Attributes:
        load_id: its name, and that of its folder under ``staging/``.
        rows: number of its rows.
        content_hash: hash of its rows.
        checks: its size, candidates and audit.
        scored_at: when it was complete.
        rows_freed_at: when its rows were removed; None while they are there.
    """

    load_key: int
    load_id: str
    domain_id: Id
    score_date: date
    model_version: str
    rows: int
    content_hash: str
    checks: LoadChecks
    scored_at: datetime
    rows_freed_at: datetime | None


def is_shadow(load_id: str) -> bool:
    """Return whether a name is that of a shadow load."""
    return load_id.startswith(PREFIX)


def refuse_shadow(load_id: str) -> None:
    """Refuse to publish a shadow load (``UsageError``)."""
    if is_shadow(load_id):
        raise UsageError(
            f"{load_id} is a shadow load, which is never published: promote its model (mmlora promote "
            "VERSION), then score the date"
        )


def record_shadow(
    database: Database,
    tables: Tables,
    *,
    load_id: str,
    domain: Id,
    score_date: date,
    model_version: str,
    rows: int,
    content_hash: str,
    checks: LoadChecks,
) -> None:
    """Record a shadow load whose files are complete and passed the audit."""
    with database.writing() as connection:
        connection.execute(
            sa.insert(tables.shadow_loads).values(
                load_id=load_id,
                domain_id=domain,
                score_date=score_date,
                model_version=model_version,
                rows=rows,
                content_hash=content_hash,
                checks=checks.to_json(),
                scored_at=clock(connection),
            )
        )


def shadows(
    database: Database,
    tables: Tables,
    *,
    domain: Id | None = None,
    score_date: date | None = None,
    load_id: str | None = None,
    limit: int | None = None,
) -> list[ShadowLoad]:
    """Return the shadow loads whose rows are there, newest first."""
    column = tables.shadow_loads.c
    query = sa.select(tables.shadow_loads).where(column.rows_freed_at.is_(None))
    wanted = ((column.domain_id, domain), (column.score_date, score_date), (column.load_id, load_id))
    for name, value in wanted:
        if value is not None:
            query = query.where(name == value)
    with database.reading() as connection:
        rows = connection.execute(query.order_by(column.load_key.desc()).limit(limit))
        return [ShadowLoad(**{**row._mapping, "checks": LoadChecks.from_json(row.checks)}) for row in rows]


def shadow(database: Database, tables: Tables, load_id: str) -> ShadowLoad:
    """Return a shadow load by its name; raise ``UsageError`` if there is none, or its rows are gone."""
    found = shadows(database, tables, load_id=load_id)
    if not found:
        raise UsageError(f"there is no shadow load {load_id!r}, or its rows were removed by `mmlora gc`")
    return found[0]


def free_shadows(database: Database, tables: Tables, *, load_ids: list[str]) -> None:
    """Record that the rows of shadow loads are about to be removed."""
    column = tables.shadow_loads.c
    with database.writing() as connection:
        for load_id in load_ids:
            connection.execute(
                sa.update(tables.shadow_loads)
                .where(column.load_id == load_id, column.rows_freed_at.is_(None))
                .values(rows_freed_at=clock(connection))
            )
