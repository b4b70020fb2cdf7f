"""What readers are promised, and what a reader's role may see."""

from __future__ import annotations

from collections.abc import Mapping

from mmlora.schema import Id
from mmlora.warehouse.database import Database, upsert
from mmlora.warehouse.tables import Tables, views


def keep_promises(database: Database, tables: Tables, promises: Mapping[Id, Mapping[str, int]]) -> None:
    """Store what readers of some domains are promised (``max_age_days``, ``top_k``), for the views."""
    rows = [{"domain_id": domain, **promise} for domain, promise in promises.items()]
    if rows:
        with database.writing() as connection:
            upsert(connection, tables.promises, rows)


def grant_reader(database: Database, role: str) -> None:
    """Let a role read the views and nothing else; it is created if it doesn't exist.

    Raises:
        UsageError: the database has no roles, or the role is a superuser.
        AccessError: the user of the warehouse's URL may not create roles.
    """
    with database.writing() as connection:
        database.backend.grant_reader(connection, role, views())
