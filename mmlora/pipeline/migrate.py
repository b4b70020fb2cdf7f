"""``mmlora migrate``: the warehouse brought up to this version."""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.records import Record
from mmlora.workspace import open_workspace


@dataclass(frozen=True)
class MigratedWarehouse(Record):
    """Where a warehouse is, without passwords, and its revision."""

    url: str
    revision: str


def migrate_warehouse(*, accept: bool = False) -> MigratedWarehouse:
    """Bring the warehouse up to this version's tables and views, and keep its identity in the workspace.

    Args:
        accept: whether the database at ``warehouse_url`` is the workspace's from now on, though it is empty
            or another warehouse than the one that it had.
    """
    from mmlora.warehouse.migrate import newest_revision
    from mmlora.warehouse.warehouse import Warehouse

    workspace = open_workspace()
    identity = None if accept else workspace.warehouse_identity
    with Warehouse.migrate(
        workspace.warehouse_url, ids=workspace.ids_or_none, identity=identity
    ) as warehouse:
        workspace.keep_identity(warehouse)
        return MigratedWarehouse(warehouse.database.where, newest_revision())
