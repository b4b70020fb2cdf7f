"""A DuckDB file: one process writes it, or several read it; others wait, and are told who has it open."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from threading import Thread

import duckdb
import pytest
import sqlalchemy as sa

from mmlora.errors import ContractError, TransientError, UsageError
from mmlora.schema import IdTypes
from mmlora.warehouse.backends import base
from mmlora.warehouse.database import Database
from mmlora.warehouse.tables import tables
from mmlora.warehouse.warehouse import Warehouse

HOLDS = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "True")
print(connection.execute("SELECT count(*) FROM scores_published").fetchone(), flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["duckdb"])
def url(tmp_path: Path) -> str:
    return f"duckdb:///{tmp_path / 'scores.duckdb'}"


@contextmanager
def held(url: str, *, read_only: bool) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the file open: an analyst's notebook."""
    command = [sys.executable, "-c", HOLDS, str(sa.make_url(url).database), str(read_only)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline(), "it didn't get in"
        try:
            yield other
        finally:
            if other.poll() is None:
                other.communicate("\n")


def test_processes_read_concurrently(desk, url):
    desk.publish(desk.rows(1))
    with held(url, read_only=True), held(url, read_only=True):
        assert desk.seen() == desk.rows(1)
        with Warehouse.open(url) as another:
            assert not [v for v in another.verify() if v.fault]


def test_the_file_is_closed_between_transactions(desk, url):
    desk.publish(desk.rows(1))
    reader = desk.warehouse.read("books")
    reader.read_next_batch()  # a consumer that takes its time
    with held(url, read_only=False):
        pass
    desk.publish(desk.rows(2))


@pytest.mark.parametrize("read_only", [True, False])
def test_the_error_names_the_process_that_locks_the_file(desk, url, monkeypatch, read_only):
    desk.publish(desk.rows(1))
    monkeypatch.setattr(base, "LOCK_WAIT_SECONDS", 0.1)
    with held(url, read_only=read_only) as other:
        with pytest.raises(
            TransientError, match=rf"process {other.pid} \(.*python.*has the file open.*close"
        ):
            desk.begin()
        if not read_only:
            with pytest.raises(TransientError, match=f"process {other.pid}"):
                desk.seen()
    assert desk.seen() == desk.rows(1)


def test_a_locked_file_exits_with_a_status_worth_a_retry(desk, url):
    desk.publish(desk.rows(1))
    code = (
        "from mmlora.warehouse.backends import base; base.LOCK_WAIT_SECONDS = 0.1\n"
        "import sys; from mmlora_cli.main import main; sys.argv[0] = 'mmlora'; main()"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, "read", "--domain", "books", "--url", url]
    with held(url, read_only=False) as other:
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == TransientError.exit_code == 75
    assert f"process {other.pid}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0


def test_a_writer_waits_for_a_reader_to_finish(desk, url):
    desk.publish(desk.rows(1))
    with held(url, read_only=True) as other:
        begun = Thread(target=desk.begin)
        begun.start()
        time.sleep(0.3)
        assert begun.is_alive()
        other.communicate("\n")
        begun.join(timeout=10)
        assert not begun.is_alive()
    assert [load.state for load in desk.warehouse.loads()] == ["running", "published"]


def test_a_writing_thread_waits_for_reading_threads(desk, monkeypatch):
    monkeypatch.setattr(base, "LOCK_WAIT_SECONDS", 0.1)
    with desk.warehouse.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        with pytest.raises(TransientError, match="a reader in this process"):
            desk.begin()
    with desk.warehouse.database.writing():
        assert desk.warehouse.loads() == []  # a reader beside a writer sees what is committed
        with pytest.raises(TransientError, match="another writer"):
            desk.begin()
    assert desk.begin().attempt == 1


def test_duckdb_alone_can_read_the_file(desk, url):
    load = desk.publish(desk.rows(1))
    with duckdb.connect(str(sa.make_url(url).database), read_only=True) as connection:
        names = "domain_id, score_date, user_id, score, model_version, load_id"
        (first, *_) = connection.execute(
            f"SELECT {names} FROM scores_latest ORDER BY user_id, position"
        ).fetchall()
        assert first == ("books", date(2000, 12, 31), 0, 0.25, "v1", load.load_id)
        assert connection.execute("SELECT typeof(published_at) FROM scores_latest LIMIT 1").fetchone() == (
            "TIMESTAMP",
        )


def test_timestamps_need_no_package_besides_duckdb(desk, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytz", None)
    published = desk.publish(desk.rows(1)).finished_at
    assert published.utcoffset().total_seconds() == 0
    assert desk.warehouse.publication("books").published_at == published


def test_migrations_create_the_declared_tables(url, tmp_path):
    """The dialect doesn't reflect: what the migrations made is compared with what the declarations make."""
    for ids in (IdTypes(), IdTypes("string", "string", "string")):
        path = tmp_path / ids.user
        Warehouse.open(f"duckdb:///{path}.migrated", ids=ids).close()
        declared = Database.at(f"duckdb:///{path}.declared")
        with declared.writing() as connection:
            tables(ids).metadata.create_all(connection)
        declared.close()
        migrated, wanted = (_columns(f"{path}.{how}") for how in ("migrated", "declared"))
        assert migrated == wanted
        assert len(wanted) > 60


def _columns(path: str) -> list[tuple[object, ...]]:
    theirs = "table_name NOT LIKE 'mmlora_version' AND NOT internal"
    with duckdb.connect(path, read_only=True) as connection:
        tables = f"table_name IN (SELECT table_name FROM duckdb_tables() WHERE {theirs})"
        columns = connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable, column_default "
            f"FROM duckdb_columns() WHERE {tables} ORDER BY ALL"
        ).fetchall()
        constraints = connection.execute(
            "SELECT table_name, constraint_type, constraint_text, constraint_column_names "
            f"FROM duckdb_constraints() WHERE {tables} ORDER BY ALL"
        ).fetchall()
    return [*columns, *constraints]


def test_names_a_file_that_is_not_a_duckdb_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to have a header" * 100)
    for folder_or_file in (path, tmp_path):
        with pytest.raises(UsageError, match="not a DuckDB database"):
            Warehouse.open(f"duckdb:///{folder_or_file}", ids=IdTypes())


def test_names_a_damaged_file(desk, url):
    desk.publish(desk.rows(1, users=100))
    desk.warehouse.close()
    path = Path(str(sa.make_url(url).database))
    whole = path.read_bytes()
    path.write_bytes(whole[:12288] + whole[12288:].translate(bytes(range(1, 256)) + b"\0"))
    with pytest.raises(ContractError, match="restore it from a backup"):
        Warehouse.open(url)


@pytest.mark.parametrize(
    "bad", ["duckdb://", "duckdb:///:memory:", "duckdb:///md:shop", "duckdb://host/file"]
)
def test_refuses_a_path_that_is_not_a_file(bad):
    with pytest.raises(UsageError, match="valid are sqlite"):
        Warehouse.open(bad, ids=IdTypes())
