"""How good published nights turned out to be: the table ``night_quality``, written by ``mmlora evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date

import sqlalchemy as sa

from mmlora.records import Record
from mmlora.schema import Id
from mmlora.warehouse.database import Database, clock, upsert
from mmlora.warehouse.tables import Tables


@dataclass(frozen=True)
class NightQuality(Record):
    """What readers had of a domain and date, measured by what users clicked on that date.

    Attributes:
        load_id: the load that was published when this was measured.
        impressions: the domain's interactions of that date.
        scored: how many of them are of a published pair; the figures below are of these.
        clicks: how many of these were clicked.
        auc: area under the ROC curve; None without both labels.
        logloss: mean log loss; None without rows.
        calibration: sum of the scores per click; None without clicks.
        against: the model version that the gain is over; None if there is no such figure.
        auc_gain: auc minus that of the other model on the same rows, with its 95% interval.
    """

    domain_id: Id
    score_date: date
    load_id: str
    model_version: str
    impressions: int
    scored: int
    clicks: int
    auc: float | None = None
    logloss: float | None = None
    calibration: float | None = None
    against: str | None = None
    auc_gain: float | None = None
    auc_gain_low: float | None = None
    auc_gain_high: float | None = None


_COLUMNS = [field.name for field in fields(NightQuality)]


def record_quality(database: Database, tables: Tables, nights: Sequence[NightQuality]) -> None:
    """Keep nights' figures; they replace earlier figures of the same domain and date."""
    if not nights:
        return
    with database.writing() as connection:
        now = clock(connection)
        rows = [
            {**{name: getattr(night, name) for name in _COLUMNS}, "evaluated_at": now} for night in nights
        ]
        upsert(connection, tables.night_quality, rows)


def qualities(
    database: Database,
    tables: Tables,
    domain: Id | None = None,
    *,
    start: date | None = None,
    end: date | None = None,
    limit: int | None = None,
) -> list[NightQuality]:
    """Return the kept figures of a domain, or of all, newest date first; ``start`` and ``end`` inclusive."""
    table = tables.night_quality
    query = sa.select(*(table.c[name] for name in _COLUMNS)).order_by(table.c.score_date.desc()).limit(limit)
    if domain is not None:
        query = query.where(table.c.domain_id == domain)
    if start is not None:
        query = query.where(table.c.score_date >= start)
    if end is not None:
        query = query.where(table.c.score_date <= end)
    with database.reading() as connection:
        return [NightQuality(**row._mapping) for row in connection.execute(query)]
