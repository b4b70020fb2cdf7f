"""``mmlora migrate``: the warehouse brought up to this version, and what readers may see and are promised."""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.records import Record
from mmlora.runs.lineage import facts_of_versions
from mmlora.workspace import open_workspace


@dataclass(frozen=True)
class MigratedWarehouse(Record):
    """Where a warehouse is, without passwords, and its revision."""

    url: str
    revision: str


def migrate_warehouse(*, accept: bool = False, reader_role: str | None = None) -> MigratedWarehouse:
    """Bring the warehouse up to this version's tables and views, and keep its identity in the workspace.

    Args:
        accept: whether the database at ``warehouse_url`` is the workspace's from now on, though it is empty
            or another warehouse than the one that it had.
        reader_role: a role of PostgreSQL's that may read the views and nothing else, made if absent.

    Raises:
        UsageError: the database has no roles.
    """
    from mmlora.warehouse.migrate import newest_revision
    from mmlora.warehouse.readers import grant_reader, keep_promises
    from mmlora.warehouse.warehouse import Warehouse

    workspace = open_workspace()
    identity = None if accept else workspace.warehouse_identity
    with Warehouse.migrate(
        workspace.warehouse_url, ids=workspace.ids_or_none, identity=identity
    ) as warehouse:
        workspace.keep_identity(warehouse)
        published = {each.domain_id for each in warehouse.publications()}
        promises = {name: workspace.settings.promises.of(str(name)) for name in published}
        keep_promises(warehouse.database, warehouse.tables, promises)
        used = {load.model_version for load in warehouse.loads()}
        warehouse.record_models(facts_of_versions(workspace, used))
        if reader_role is not None:
            grant_reader(warehouse.database, reader_role)
        return MigratedWarehouse(warehouse.database.where, newest_revision())
