"""What differs between databases stands in one module each, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command

from mmlora.schema import IdTypes
from mmlora.warehouse import backends, migrate
from mmlora.warehouse.tables import views
from mmlora.warehouse.warehouse import Warehouse

ROOT = Path(__file__).parents[2]
_KNOWS_A_DATABASE = re.compile(
    r"dialect\.name|sqlite_file\(|\bsqlite3\.\w|sqlalchemy\.dialects|with_variant"
    r"|\.kind [=!]= \"(sqlite|postgres|postgresql|duckdb)\"|adbc_driver|pg_advisory"
)


def test_only_backends_depend_on_the_database():
    files = [path for folder in ("mmlora", "cli", "dags", "sql") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    elsewhere = [path for path in files if ROOT / "mmlora/warehouse/backends" not in path.parents]
    told = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in elsewhere
        if (match := _KNOWS_A_DATABASE.search(path.read_text(encoding="utf-8")))
    }
    assert told == set()


@pytest.mark.parametrize("name", backends._MODULES)
def test_each_backend_accepts_its_example_url(name):
    backend = backends.backend_named(name)
    parsed, found = backends.parse_url(backend.example)
    assert found is backend
    assert parsed.get_dialect().name == name


def test_migrations_can_be_downgraded(url):
    row = "INSERT INTO scores VALUES (1, {user}, 1, 'books', '2001-01-01', {score}, 1)"
    with Warehouse.open(url, ids=IdTypes()) as warehouse:
        database = warehouse.database
        if not database.backend.one_writer:
            from datetime import date

            from mmlora.warehouse.backends.postgresql import ensure_partition

            ensure_partition(database, date(2001, 1, 1))
        with database.altering() as connection:
            database.backend.before_migrations(connection, views())
            command.downgrade(migrate.alembic_config(connection=connection, ids=IdTypes()), "0003")
            connection.exec_driver_sql(row.format(user=1, score=7.5))
            connection.exec_driver_sql("DELETE FROM scores")
            command.upgrade(migrate.alembic_config(connection=connection, ids=IdTypes()), "head")
        with pytest.raises(sa.exc.IntegrityError), database.writing() as connection:
            connection.exec_driver_sql(row.format(user=1, score=7.5))
        with database.writing() as connection:
            connection.exec_driver_sql(row.format(user=1, score=0.5))
