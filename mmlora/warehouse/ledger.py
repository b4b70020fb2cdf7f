"""The append-only ledger of manual changes to publications: unpublished, restored, published despite a check.

The functions run inside the caller's transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa

from mmlora.errors import DataError, UsageError
from mmlora.names import LedgerAction
from mmlora.redaction import redact
from mmlora.schema import Id
from mmlora.warehouse import loads, publish
from mmlora.warehouse.database import clock, hold
from mmlora.warehouse.loads import Load
from mmlora.warehouse.nights import record_failure
from mmlora.warehouse.tables import Tables


@dataclass(frozen=True)
class LedgerEntry:
    """One manual change.

    Attributes:
        action: ``unpublish``, ``restore`` or ``override`` (of a check).
        load_id: the load that was changed.
        before_load_id: the load published until then, if any.
        who: the user's name on the machine.
        why: the reason given.
    """

    id: int
    domain_id: Id
    score_date: date
    action: LedgerAction
    load_id: str
    before_load_id: str | None
    who: str
    why: str
    decided_at: datetime


def unpublish(
    connection: sa.Connection, tables: Tables, *, domain: Id, score_date: date, who: str, why: str
) -> Load:
    """Unpublish a domain and date; the rows stay, so that the load can be restored.

    Raises:
        UsageError: nothing is published there.
    """
    hold(connection, "load", domain, score_date)
    published = _published(connection, tables, domain, score_date)
    if published is None:
        raise UsageError(
            f"nothing is published for domain {domain!r} on {score_date}; `mmlora status --domain` lists "
            "the domain's loads"
        )
    column = tables.publications.c
    connection.execute(
        sa.delete(tables.publications).where(column.domain_id == domain, column.score_date == score_date)
    )
    reason = redact(f"unpublished by {who}: {why}")
    _set(connection, tables, published, state="superseded", reason=reason)
    record_failure(connection, tables, domain=domain, score_date=score_date, reason=reason)
    record(connection, tables, published, "unpublish", before=published, who=who, why=why)
    return loads.find(connection, tables, published.load_key)


def restore(connection: sa.Connection, tables: Tables, load: Load, *, who: str, why: str) -> Load:
    """Publish a formerly published load again; a load that is published already is left as it is.

    Raises:
        UsageError: it was never published.
        DataError: its rows were freed or are incomplete.
    """
    hold(connection, "load", load.domain_id, load.score_date)
    current = loads.find(connection, tables, load.load_key, lock=True)
    if current.state == "published":
        return current
    if current.state != "superseded":
        raise UsageError(
            f"load {load.load_id} is {current.state}: only a formerly published load can be restored"
            + ("; `mmlora publish` publishes it" if current.state == "staged" else "")
        )
    loads.refuse_freed(current)
    counted = publish.count_rows(connection, tables, current)
    if counted != current.rows:
        raise DataError(
            f"load {load.load_id}",
            f"{counted:,} of its {current.rows or 0:,} rows are in the warehouse: restore another load, or "
            "score the date again",
        )
    before = _published(connection, tables, load.domain_id, load.score_date)
    publish.move_pointer(connection, tables, current)
    _set(connection, tables, current, reason=None)
    record(connection, tables, current, "restore", before=before, who=who, why=why)
    return loads.find(connection, tables, load.load_key)


def record(
    connection: sa.Connection,
    tables: Tables,
    load: Load,
    action: LedgerAction,
    *,
    before: Load | None,
    who: str,
    why: str,
) -> None:
    """Append an entry to the ledger."""
    connection.execute(
        sa.insert(tables.publication_ledger).values(
            domain_id=load.domain_id,
            score_date=load.score_date,
            action=action,
            load_id=load.load_id,
            before_load_id=before and before.load_id,
            who=who,
            why=redact(why),
            decided_at=clock(connection),
        )
    )


def entries(
    connection: sa.Connection, tables: Tables, *, domain: Id | None = None, limit: int | None = None
) -> list[LedgerEntry]:
    """Return the ledger's entries, newest first."""
    column = tables.publication_ledger.c
    query = sa.select(tables.publication_ledger).order_by(column.id.desc()).limit(limit)
    if domain is not None:
        query = query.where(column.domain_id == domain)
    return [LedgerEntry(**row._mapping) for row in connection.execute(query)]


def _published(connection: sa.Connection, tables: Tables, domain: Id, score_date: date) -> Load | None:
    current = publish.publications(connection, tables, domain=domain, start=score_date, end=score_date)
    return loads.find(connection, tables, current[0].load_key, lock=True) if current else None


def _set(connection: sa.Connection, tables: Tables, load: Load, **values: str | None) -> None:
    column = tables.score_loads.c.load_key
    connection.execute(sa.update(tables.score_loads).where(column == load.load_key).values(**values))
