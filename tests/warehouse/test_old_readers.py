"""Readers written for release 0.1.0 read what they always did, on the schema of today."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mmlora import resources
from mmlora.errors import TransientError
from mmlora.schema import IdTypes
from mmlora.warehouse import migrate
from mmlora.warehouse.backends.postgresql import ensure_partition
from mmlora.warehouse.database import Database
from mmlora.warehouse.warehouse import Warehouse
from tests.faults import Kill, needs_fork, run_and_kill
from tests.warehouse.conftest import Desk

REVISIONS = {"0001", "0002", "0003", "0004"}
VIEWS = {
    "scores_published": """
        SELECT publications.domain_id, publications.score_date, scores.user_id, scores.item_id, scores.score,
            scores.position, score_loads.model_version, score_loads.load_id, publications.published_at
        FROM publications
        JOIN score_loads ON score_loads.load_key = publications.load_key
        JOIN scores ON scores.load_key = publications.load_key AND scores.score_date = publications.score_date
    """,
    "scores_latest": """
        SELECT publications.domain_id, publications.score_date, scores.user_id, scores.item_id, scores.score,
            scores.position, score_loads.model_version, score_loads.load_id, publications.published_at
        FROM publications
        JOIN score_loads ON score_loads.load_key = publications.load_key
        JOIN scores ON scores.load_key = publications.load_key AND scores.score_date = publications.score_date
        WHERE publications.score_date = (
            SELECT max(newer.score_date) FROM publications AS newer
            WHERE newer.domain_id = publications.domain_id
        )
    """,
}
"""The views of 0.1.0 that hold scores."""

READERS = (
    # README: a ranking job.
    "SELECT item_id, score FROM scores_latest WHERE domain_id = 'books' AND user_id = 1 "
    "ORDER BY position LIMIT 10",
    # The views' contract: columns by name.
    "SELECT domain_id, score_date, user_id, item_id, score, position, model_version, load_id, published_at "
    "FROM scores_published ORDER BY user_id, position",
    # `mmlora.read_scores`: the pointer first, then the rows of its load.
    "SELECT scores.user_id, scores.item_id, scores.score, scores.position FROM scores "
    "WHERE scores.load_key = (SELECT publications.load_key FROM publications JOIN score_loads "
    "ON publications.load_key = score_loads.load_key WHERE publications.domain_id = 'books' "
    "ORDER BY publications.score_date DESC LIMIT 1) AND scores.score_date = '2000-12-31' "
    "ORDER BY scores.user_id, scores.position",
)
FIRST = (
    "INSERT INTO score_loads (load_id, domain_id, score_date, attempt, state, model_version, "
    "contract_hash, rows, content_hash, started_at, heartbeat_at, finished_at) VALUES "
    "('2000-12-31-1-0123456789ab', 'books', '2000-12-31', 1, 'published', 'v1', 'c0', 2, 'h0', "
    "'{moment}', '{moment}', '{moment}')",
    "INSERT INTO publications (domain_id, score_date, load_key, published_at) SELECT domain_id, score_date, "
    "load_key, finished_at FROM score_loads",
    "INSERT INTO scores (load_key, user_id, item_id, domain_id, score_date, score, position) "
    "SELECT load_key, 1, 7, domain_id, score_date, 0.5, 1 FROM score_loads "
    "UNION ALL SELECT load_key, 1, 5, domain_id, score_date, 0.25, 2 FROM score_loads",
)


@pytest.fixture
def of_release(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A warehouse that 0.1.0 made, with a published load of two rows."""
    shutil.copytree(resources.resource("sql"), tmp_path / "older" / "sql")
    for path in (tmp_path / "older/sql/migrations/versions").glob("*.py"):
        if path.name[:4] not in REVISIONS:
            path.unlink()
    for path in (tmp_path / "older/sql/views").glob("*.sql"):
        path.unlink()
    for name, query in VIEWS.items():
        (tmp_path / "older/sql/views" / f"{name}.sql").write_text(query)
    with monkeypatch.context() as older:
        older.setattr(resources, "PACKAGE", tmp_path / "older" / "mmlora")
        Warehouse.open(url, ids=IdTypes()).close()
    database = Database.at(url)
    if database.engine.dialect.name == "postgresql":
        ensure_partition(database, date(2000, 12, 31))
    with database.writing() as connection:
        for statement in FIRST:
            connection.exec_driver_sql(statement.format(moment="2001-01-01T00:00:00.000000+00:00"))
    database.close()
    return url


def _read(url: str) -> list[list[tuple[Any, ...]]]:
    database = Database.at(url)
    with database.reading() as connection:
        found = [[tuple(row) for row in connection.execute(sa.text(query))] for query in READERS]
    database.close()
    return found


def test_a_reader_of_the_previous_release_reads_on(of_release: str, tmp_path: Path) -> None:
    before = _read(of_release)
    assert [len(rows) for rows in before] == [2, 2, 2]
    with Warehouse.migrate(of_release) as warehouse:
        assert _read(of_release) == before
        desk = Desk(warehouse, tmp_path / "staging")
        desk.publish(desk.rows(2))
        ranked, published, loaded = _read(of_release)
        assert loaded == desk.rows(2)
        assert [row[2:6] for row in published] == desk.rows(2)
        assert ranked == [row[1:3] for row in desk.rows(2) if row[0] == 1]


@needs_fork
@pytest.mark.parametrize("stride", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_a_migration_happened_or_did_not(
    of_release: str, tmp_path: Path, stride: int
) -> None:
    """The reader of the previous release never notices, and the next `mmlora migrate` completes it."""
    before, seen, revisions = _read(of_release), list[Any](), list[str | None]()

    def upgrade() -> None:
        Warehouse.migrate(of_release).close()

    def poll() -> None:
        with suppress(TransientError):  # DuckDB's file is open in one process at a time
            seen.append(_read(of_release))

    for step in range(0, 1000, stride):
        killed = run_and_kill(upgrade, Kill(step=step), tmp_path / "folder", poll)
        database = Database.at(of_release)
        with database.reading() as connection:
            revisions.append(migrate.revision_of(connection))
        database.close()
        if not killed:
            break
    assert not killed and revisions[-1] == migrate.newest_revision()
    assert set(revisions) <= {"0004", migrate.newest_revision()}
    assert all(rows == before for rows in (*seen, _read(of_release)))
