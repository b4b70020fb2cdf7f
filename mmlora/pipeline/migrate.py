"""``mmlora migrate``: the warehouse brought up to this version."""

from __future__ import annotations

from typing import Any

from mmlora.workspace import open_workspace


def migrate_warehouse(*, accept: bool = False) -> dict[str, Any]:
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
        return {"url": warehouse.database.where, "revision": newest_revision()}
