"""Decisions of people and checks: promotions of model versions, and the domains' verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from mmlora.check_rules import AuditCheck
from mmlora.schema import DomainVerdict, Id
from mmlora.warehouse.database import clock, hold, upsert
from mmlora.warehouse.tables import Tables


@dataclass(frozen=True)
class Promotion:
    """A decision to promote a model version.

    Attributes:
        domain_id: the domain; None for all domains.
        goes_back_to: for a rollback, the id of the earlier decision that is in force again; else None.
        evidence: the comparison that it was based on, as :class:`mmlora.judging.promotion.Evidence` in JSON;
            None without one.
    """

    id: int
    domain_id: Id | None
    model_version: str
    alias: str
    who: str
    why: str
    metrics: Mapping[str, float | None]
    promoted_at: datetime
    goes_back_to: int | None
    evidence: Mapping[str, Any] | None = None


def promote(
    connection: sa.Connection,
    tables: Tables,
    *,
    domain: Id | None,
    model_version: str,
    alias: str,
    who: str,
    why: str,
    metrics: Mapping[str, float | None],
    goes_back_to: int | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Promotion:
    """Append a decision."""
    hold(connection, "promotions")  # so that `register` sees concurrent decisions
    row = connection.execute(
        sa.insert(tables.promotions)
        .values(
            domain_id=domain,
            model_version=model_version,
            alias=alias,
            who=who,
            why=why,
            metrics=dict(metrics),
            promoted_at=clock(connection),
            goes_back_to=goes_back_to,
            evidence=evidence,
        )
        .returning(*tables.promotions.c)
    ).one()
    return Promotion(**row._mapping)


def register(
    connection: sa.Connection,
    tables: Tables,
    *,
    model_version: str,
    who: str,
    metrics: Mapping[str, float | None],
    only_first: bool = False,
    note: str = "",
) -> Promotion | None:
    """Decide the alias of a new model for all domains: the first is ``champion``, a later one ``challenger``.

    With ``only_first`` a later model gets no alias, and None is returned. ``note`` is added to the reason.
    Concurrent calls wait for each other, so only one first model becomes the champion. A model that already
    has an alias keeps it, and its decision is returned.
    """
    hold(connection, "promotions")
    champion, challenger = (
        promotions(connection, tables, alias=alias, domain=None, limit=1)
        for alias in ("champion", "challenger")
    )
    for newest in (*champion, *challenger):
        if newest.model_version == model_version:
            return newest
    if champion and only_first:
        return None
    why = "newly trained" if champion else "the first model"
    return promote(
        connection,
        tables,
        domain=None,
        model_version=model_version,
        alias="challenger" if champion else "champion",
        who=who,
        why=f"{why}, {note}" if note else why,
        metrics=metrics,
    )


def replace_champion(
    connection: sa.Connection,
    tables: Tables,
    *,
    before: str,
    model_version: str,
    alias: str,
    domains: Sequence[Id],
    who: str,
    why: str,
) -> list[Id | None]:
    """Give a version an alias wherever another one is the champion; return where, None for all domains.

    A decision for all would take away the champions that domains have of their own, so it puts these in force
    again.
    """
    hold(connection, "promotions")

    def champion(domain: Id | None) -> Promotion | None:
        return next(iter(promotions(connection, tables, alias="champion", domain=domain, limit=1)), None)

    standing = {domain: champion(domain) for domain in (None, *domains)}
    of = [domain for domain, now in standing.items() if now is not None and now.model_version == before]
    for domain in [None] if None in of else of:
        promote(
            connection,
            tables,
            domain=domain,
            model_version=model_version,
            alias=alias,
            who=who,
            why=why,
            metrics={},
        )
    for domain, now in standing.items():
        if None in of and alias == "champion" and now is not None and now.model_version != before:
            promote(
                connection,
                tables,
                domain=domain,
                model_version=now.model_version,
                alias=alias,
                who=who,
                why=f"still its champion, while {model_version} is that of other domains",
                metrics=now.metrics,
                goes_back_to=now.id if now.goes_back_to is None else now.goes_back_to,
            )
    return of


def promotions(
    connection: sa.Connection, tables: Tables, *, alias: str, domain: Id | None, limit: int | None = None
) -> list[Promotion]:
    """Return the decisions that apply to a domain, newest first: its own and those for all domains.

    With ``domain`` None, only those for all domains are returned.
    """
    column = tables.promotions.c
    for_all = column.domain_id.is_(None)
    rows = connection.execute(
        sa.select(tables.promotions)
        .where(
            column.alias == alias, for_all if domain is None else sa.or_(for_all, column.domain_id == domain)
        )
        .order_by(column.id.desc())
        .limit(limit)
    )
    return [Promotion(**row._mapping) for row in rows]


def every_promotion(
    connection: sa.Connection, tables: Tables, *, limit: int | None = None
) -> list[Promotion]:
    """Return the decisions of all aliases and domains, newest first."""
    query = sa.select(tables.promotions).order_by(tables.promotions.c.id.desc()).limit(limit)
    rows = connection.execute(query)
    return [Promotion(**row._mapping) for row in rows]


def standing(decisions: Sequence[Promotion]) -> list[Promotion]:
    """Return which of all decisions (newest first) are in force for a domain or for all, oldest first."""
    domains = {None, *(decision.domain_id for decision in decisions)}
    newest = {
        decision.id: decision
        for alias in {decision.alias for decision in decisions}
        for domain in domains
        if (decision := _newest(decisions, alias, domain))
    }
    return [newest[number] for number in sorted(newest)]


def _newest(decisions: Sequence[Promotion], alias: str, domain: Id | None) -> Promotion | None:
    under = (d for d in decisions if d.alias == alias and d.domain_id in (None, domain))
    return next(under, None)


def record_verdicts(connection: sa.Connection, tables: Tables, verdicts: Sequence[DomainVerdict]) -> None:
    """Store verdicts; a later one for the same domain and day replaces the earlier one."""
    if not verdicts:
        return
    now = clock(connection)
    names = [field.name for field in fields(DomainVerdict)]
    rows = [
        {
            **{name: getattr(verdict, name) for name in names},
            "reasons": list(verdict.reasons),
            "checks": [asdict(check) for check in verdict.checks],
            "recorded_at": now,
        }
        for verdict in verdicts
    ]
    upsert(connection, tables.domain_verdicts, rows)


def verdicts(
    connection: sa.Connection,
    tables: Tables,
    as_of: date,
    until: date | None = None,
    domain: Id | None = None,
) -> list[DomainVerdict]:
    """Return the verdicts of a day, or of the days up to ``until``, of one domain or all, in order."""
    table = tables.domain_verdicts
    query = (
        sa.select(*(column for column in table.c if column.name != "recorded_at"))
        .where(table.c.as_of.between(as_of, until or as_of))
        .order_by(table.c.as_of, table.c.domain_id)
    )
    if domain is not None:
        query = query.where(table.c.domain_id == domain)
    return [_verdict(row) for row in connection.execute(query)]


def _verdict(row: sa.Row[Any]) -> DomainVerdict:
    checks = tuple(AuditCheck(**check) for check in row.checks or ())
    return DomainVerdict(**{**row._mapping, "reasons": tuple(row.reasons), "checks": checks})
