"""Champion and challenger of each domain with their figures, as the page in Airflow's UI lists them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from mmlora.schema import Id
from mmlora.warehouse.database import Database
from mmlora.warehouse.tables import Tables

ALL_DOMAINS = "all domains"


@dataclass(frozen=True)
class DomainModels:
    """A domain's champion and challenger.

    Attributes:
        domain: the domain; ``all domains`` for the decisions that hold wherever a domain has none of its own.
        champion: the model version that scores its next night.
        who: who decided about it.
        why: the reason.
        since: when.
        measured_on: its newest night that later clicks measured; None if there is none yet, like the figures.
        auc: AUC of that night's published scores.
        calibration: their sum over the clicks.
        challenger: the version that may replace the champion; None for none.
        compared: auc, champion_auc, difference, low, high and standing of the challenger, by the last
            comparison; empty without one.
    """

    domain: str
    champion: str
    who: str
    why: str
    since: datetime
    measured_on: date | None = None
    auc: float | None = None
    calibration: float | None = None
    challenger: str | None = None
    compared: Mapping[str, Any] | None = None


def standing_models(database: Database, tables: Tables, domains: Iterable[str]) -> list[DomainModels]:
    """Return the models of all domains, then of each of ``domains``; empty before the first model."""
    with database.reading() as connection:
        champions = _in_force(connection, tables, "champion")
        challengers = _in_force(connection, tables, "challenger")
        challenger = challengers[ALL_DOMAINS].model_version if ALL_DOMAINS in challengers else None
        compared = _comparison(connection, tables, challenger)
        measured = _measured(connection, tables)
    models = []
    for domain in (ALL_DOMAINS, *domains):
        decision = champions.get(domain, champions.get(ALL_DOMAINS))
        if decision is None:
            continue
        night = measured.get(domain)
        version = decision.model_version
        models.append(
            DomainModels(
                domain,
                version,
                decision.who,
                decision.why,
                decision.promoted_at,
                night.score_date if night else None,
                night.auc if night else None,
                night.calibration if night else None,
                challenger if challenger != version else None,
                compared.get(domain) if challenger != version else None,
            )
        )
    return models


def _in_force(connection: sa.Connection, tables: Tables, alias: str) -> dict[str, Any]:
    """Return the decisions in force, of all domains and of those that have their own since."""
    table = tables.promotions.c
    query = sa.select(table.domain_id, table.model_version, table.who, table.why, table.promoted_at)
    decisions: dict[str, Any] = {}
    for row in connection.execute(query.where(table.alias == alias).order_by(table.id)):
        if row.domain_id is None:  # it replaces the domains' own
            decisions.clear()
        decisions[_name(row.domain_id)] = row
    return decisions


def _comparison(connection: sa.Connection, tables: Tables, version: str | None) -> dict[str, Any]:
    """Return the newest comparison of a version with the champions, by domain."""
    table = tables.promotions.c
    query = sa.select(table.evidence).where(table.model_version == version, table.evidence.is_not(None))
    evidence = connection.execute(query.order_by(table.id.desc()).limit(1)).scalar()
    rows = (evidence["pooled"], *evidence["domains"]) if evidence else ()
    return {row["domain"]: row for row in rows}


def _measured(connection: sa.Connection, tables: Tables) -> dict[str, Any]:
    """Return the newest measured night of each domain."""
    night = tables.night_quality.c
    newest = (
        sa.select(night.domain_id, sa.func.max(night.score_date).label("day"))
        .where(night.auc.is_not(None))
        .group_by(night.domain_id)
        .subquery()
    )
    query = sa.select(night.domain_id, night.score_date, night.auc, night.calibration).join(
        newest, (newest.c.domain_id == night.domain_id) & (newest.c.day == night.score_date)
    )
    return {_name(row.domain_id): row for row in connection.execute(query)}


def _name(domain: Id | None) -> str:
    return ALL_DOMAINS if domain is None else str(domain)
