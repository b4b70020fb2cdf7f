"""Opening a warehouse, creating or upgrading it, and closing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from mmlora.schema import Entity, Id, IdTypes
from mmlora.warehouse import migrate
from mmlora.warehouse.backends.base import RowWriter
from mmlora.warehouse.database import Database
from mmlora.warehouse.tables import tables


class OpenedWarehouse:
    """A warehouse's database, its tables and its id types."""

    def __init__(
        self, database: Database, ids: IdTypes, writer: RowWriter | None = None, identity: str = ""
    ) -> None:
        self.database = database
        self.ids = ids
        self.identity = identity
        self.tables = tables(ids)
        self._writer = writer or database.writer()

    @classmethod
    def open(cls, url: str, *, ids: IdTypes | None = None, identity: str | None = None) -> Self:
        """Open the warehouse at ``url``; create it if it doesn't exist.

        Args:
            url: a URL of :mod:`mmlora.warehouse.backends`.
            ids: the data's id types; None takes the warehouse's own.
            identity: the expected :attr:`identity`; None accepts any, and allows creation.

        Raises:
            UsageError: the URL is wrong, there is no warehouse yet and ``ids`` is None, or it needs
                ``mmlora migrate``.
            ContractError: the warehouse was created for other id types, or has another identity.
        """
        return cls._open(url, ids, identity, migrating=False)

    @classmethod
    def migrate(cls, url: str, *, ids: IdTypes | None = None, identity: str | None = None) -> Self:
        """Create the warehouse or upgrade it to the newest revision, and open it (see :meth:`open`)."""
        return cls._open(url, ids, identity, migrating=True)

    @classmethod
    def _open(cls, url: str, ids: IdTypes | None, identity: str | None, *, migrating: bool) -> Self:
        database = Database.at(url)
        try:
            migrate.prepare_file(database, ids, identity)
            with database.reading() as connection:
                revision = migrate.revision_of(connection)
                if revision is not None and not migrating:
                    migrate.check_current(database, connection, revision)
                    stored = migrate.stored_ids(connection)
                    actual = migrate.stored_identity(connection) or ""
                    migrate.check_identity(database, identity, actual)
                    migrate.check_ids(ids, stored)
                    return cls(database, stored, identity=actual)
            stored, actual = migrate.upgrade(database, ids, identity)
            return cls(database, stored, identity=actual)
        except BaseException:
            database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.database.close()

    @contextmanager
    def reads_in_a_row(self) -> Iterator[None]:
        """Keep a warehouse file open over several reads; nothing may be written meanwhile."""
        with self.database.faults(), self.database.backend.reads_in_a_row(self.database.engine):
            yield

    def _check_id(self, entity: Entity, value: Id | None) -> None:
        if value is not None:
            migrate.check_id(self.ids, entity, value)
