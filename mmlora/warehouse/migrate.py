"""Create and upgrade a warehouse with Alembic's migrations, and recreate its views.

An upgrade is one transaction under a lock, on SQLite as well: it happens completely or not at all.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from mmlora import resources
from mmlora.errors import ContractError, UsageError
from mmlora.schema import Entity, Id, IdTypes
from mmlora.warehouse.backends import backend_of
from mmlora.warehouse.database import Database, hold
from mmlora.warehouse.tables import VERSION_TABLE, tables, views

_IDENTITY = "identity"


def newest_revision() -> str:
    """Return the revision that this version of mmlora needs."""
    return _revisions(resources.resource("sql/migrations"))[0]


@cache
def _revisions(folder: Path) -> list[str]:
    """Return the revisions of a folder of migrations, newest first; the folder is read once per process."""
    scripts = ScriptDirectory(str(folder)).walk_revisions()
    return [script.revision for script in scripts]


def revision_of(connection: sa.Connection) -> str | None:
    """Return the warehouse's revision, or None when the database has no warehouse."""
    return MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()


def stored_ids(connection: sa.Connection) -> IdTypes:
    """Return the id types for which the warehouse was created."""
    workspace = tables(IdTypes()).workspace
    ids = connection.execute(sa.select(workspace.c.value).where(workspace.c.name == "ids")).scalar_one()
    return IdTypes(**ids)


def stored_identity(connection: sa.Connection) -> str | None:
    """Return the warehouse's unique identity; None in warehouses older than this record."""
    workspace = tables(IdTypes()).workspace
    query = sa.select(workspace.c.value).where(workspace.c.name == _IDENTITY)
    identity: str | None = connection.execute(query).scalar_one_or_none()
    return identity


def check_identity(database: Database, wanted: str | None, found: str | None) -> None:
    """Reject a database that doesn't hold the expected warehouse.

    Args:
        database: the database.
        wanted: the expected identity; None accepts any.
        found: the warehouse's identity; None when the database has no warehouse.

    Raises:
        ContractError: the identities differ.
    """
    if wanted in (None, found):
        return
    actual = "has no warehouse" if found is None else f"has another warehouse ({found})"
    raise ContractError(
        f"{database.where} {actual}, but this workspace's is {wanted}, with its scores and promotions: "
        "correct warehouse_url, or restore the database from its backup. To use the database there, which "
        "has none of this workspace's promotions and scores, run `mmlora migrate --accept-warehouse`",
        expected=wanted,
        found=found,
    )


def upgrade(database: Database, ids: IdTypes | None, identity: str | None = None) -> tuple[IdTypes, str]:
    """Create the warehouse or upgrade it to the newest revision, and recreate its views.

    Args:
        database: the database.
        ids: id types of a new warehouse; checked against those of an existing one.
        identity: the expected identity; None creates a warehouse, or accepts any.

    Returns:
        The warehouse's id types and its identity.

    Raises:
        UsageError: there is no warehouse yet and ``ids`` is None, or it is newer than this mmlora.
        ContractError: the warehouse has other id types or another identity.
    """
    with database.altering() as connection:
        hold(connection, "migrate")
        revision = revision_of(connection)
        if revision is None:
            check_identity(database, identity, None)
        if revision is None and ids is None:
            raise no_warehouse(database)
        _refuse_newer(database, revision)
        chosen = ids if revision is None else stored_ids(connection)
        assert chosen is not None  # no warehouse and no ids were rejected above
        check_ids(ids, chosen)
        _run(connection, chosen, first=revision is None)
        stored = stored_identity(connection)
        check_identity(database, identity, stored)
    assert stored is not None  # written by _run
    return chosen, stored


def check_current(database: Database, connection: sa.Connection, revision: str) -> None:
    """Reject a warehouse whose revision isn't the newest."""
    _refuse_newer(database, revision)
    if revision != newest_revision():
        raise UsageError(
            f"the warehouse {database.where} is at revision {revision}, but this mmlora needs "
            f"{newest_revision()}: run `mmlora migrate`"
        )


def check_ids(wanted: IdTypes | None, stored: IdTypes) -> None:
    """Reject id types that differ from the warehouse's."""
    if wanted is not None and wanted != stored:
        raise ContractError(
            f"the data's id types are {_describe(wanted)}, but the warehouse was created for "
            f"{_describe(stored)}: import ids of those types, or use another warehouse (warehouse_url)",
            expected=stored,
            found=wanted,
        )


def check_id(stored: IdTypes, entity: Entity, value: Id) -> None:
    """Reject an id whose type differs from the warehouse's."""
    kind = getattr(stored, entity)
    if isinstance(value, str) != (kind == "string"):
        raise ContractError(
            f"{entity} {value!r} is {type(value).__name__}; this warehouse's {entity} ids are {kind}",
            expected=kind,
            found=value,
        )


def no_warehouse(database: Database) -> UsageError:
    """Return the error for a database without a warehouse when the id types aren't known yet."""
    return UsageError(
        f"there is no warehouse at {database.where} yet: its id types come from the data, so import some "
        "first (`mmlora data import` or `mmlora data movielens`)"
    )


def configure_options(config: Config) -> dict[str, object]:
    """Return the options for Alembic's ``env.py`` (``sql/migrations/env.py``)."""
    metadata = tables(config.attributes["ids"]).metadata

    def is_declared(name: str | None, kind: str, parents: Any) -> bool:
        # The database may have other programs' tables, and partitions of ``scores``, which aren't declared.
        return kind != "table" or name in metadata.tables

    return {
        "connection": config.attributes["connection"],
        "target_metadata": metadata,
        "version_table": VERSION_TABLE,
        "include_name": is_declared,
        "compare_type": True,
        "render_as_batch": True,  # SQLite alters a table by copying it
    }


def _run(connection: sa.Connection, ids: IdTypes, *, first: bool) -> None:
    backend = backend_of(connection.dialect)
    backend.before_migrations(connection, views())
    command.upgrade(alembic_config(connection=connection, ids=ids), "head")
    for name in views():
        query = resources.sql(f"views/{name}.sql")
        query = re.sub(r"days_since\(([\w.]+)\)", lambda call: backend.days_since(call[1]), query)
        backend.create_view(connection, name, query)
    if first:
        connection.execute(sa.insert(tables(ids).workspace).values(name="ids", value=ids.to_dict()))
    if stored_identity(connection) is None:
        connection.execute(sa.insert(tables(ids).workspace).values(name=_IDENTITY, value=uuid4().hex))


def alembic_config(**attributes: object) -> Config:
    """Return the configuration of the migrations, with ``attributes`` for their ``env.py``."""
    folder: Path = resources.resource("sql/migrations")
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes.update(attributes)
    return config


def _refuse_newer(database: Database, revision: str | None) -> None:
    if revision is not None and revision not in _revisions(resources.resource("sql/migrations")):
        raise UsageError(
            f"the warehouse {database.where} is at revision {revision}, made by a newer mmlora than this one "
            f"(which knows up to {newest_revision()}): upgrade mmlora"
        )


def _describe(ids: IdTypes) -> str:
    return ", ".join(f"{entity} {kind}" for entity, kind in ids.to_dict().items())


def prepare_file(database: Database, ids: IdTypes | None, identity: str | None) -> None:
    """Create the folder of a new warehouse file.

    Args:
        database: the database.
        ids: the id types of the new warehouse; None if it may not be created.
        identity: the expected identity of an existing warehouse.

    Raises:
        UsageError: there is no warehouse and no id types, or the folder can't be created.
        ContractError: the expected warehouse doesn't exist.
    """
    path = database.file
    if path is None or path.exists():
        return
    check_identity(database, identity, None)
    if ids is None:  # connecting would leave an empty file behind
        raise no_warehouse(database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the warehouse can't be created at {database.where}: {error}") from error
