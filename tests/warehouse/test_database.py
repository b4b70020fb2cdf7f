"""Making, migrating and reaching a warehouse."""

from __future__ import annotations

import shutil
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from mmlora import resources
from mmlora.errors import AccessError, ContractError, TransientError, UsageError
from mmlora.load_checks import LoadChecks
from mmlora.numerics import here
from mmlora.schema import IdTypes
from mmlora.warehouse import migrate
from mmlora.warehouse.backends.postgresql import ensure_partition
from mmlora.warehouse.database import Database
from mmlora.warehouse.tables import tables
from mmlora.warehouse.warehouse import Warehouse

IDS = IdTypes()
TEXT = IdTypes("string", "string", "string")


@pytest.mark.parametrize("ids", [IDS, TEXT, IdTypes("int64", "int64", "int64")])
def test_migrations_create_the_declared_tables(url, ids):
    with Warehouse.open(url, ids=ids) as warehouse:
        if warehouse.database.engine.dialect.name == "duckdb":
            pytest.skip("its dialect doesn't reflect: tests/warehouse/test_duckdb.py compares otherwise")
        if warehouse.database.engine.dialect.name == "postgresql":
            ensure_partition(warehouse.database, date(2001, 1, 31))  # partitions aren't declared
        config = Config()
        with warehouse.database.reading() as connection:
            config.attributes.update(connection=connection, ids=ids)
            options = migrate.configure_options(config)
            options.pop("connection")
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, tables(ids).metadata) == []


def test_the_id_types_are_chosen_once(url):
    Warehouse.open(url, ids=TEXT).close()
    with Warehouse.open(url) as warehouse:
        assert warehouse.ids == TEXT
    with pytest.raises(
        ContractError, match="was created for user string, item string, domain string"
    ) as caught:
        Warehouse.open(url, ids=IDS)
    assert (caught.value.expected, caught.value.found) == (TEXT, IDS)


def test_no_warehouse_is_created_before_the_id_types_are_known(url, tmp_path):
    with pytest.raises(UsageError, match="import some first"):
        Warehouse.open(url)
    assert not (tmp_path / "folder").exists()


def test_concurrent_processes_can_create_the_warehouse(url):
    def make(_):
        with Warehouse.open(url, ids=IDS) as warehouse:
            return warehouse.ids

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(4))) == [IDS] * 4


@pytest.fixture
def newer_mmlora(tmp_path, monkeypatch):
    """An installation with one more migration, which alters a table under the views."""
    shutil.copytree(resources.resource("sql"), tmp_path / "newer" / "sql")
    (tmp_path / "newer/sql/migrations/versions/9999_more.py").write_text(
        textwrap.dedent("""
            import sqlalchemy as sa
            from alembic import context, op
            revision, down_revision = "9999", "NEWEST"
            def upgrade():
                copies = "always" if op.get_context().dialect.name == "sqlite" else "never"
                with op.batch_alter_table("score_loads", recreate=copies) as table:
                    table.add_column(sa.Column("note", sa.Text))
        """).replace("NEWEST", migrate.newest_revision())
    )

    def install(newer: bool) -> None:
        folder = tmp_path / "newer" if newer else resources.resource("sql").parent
        monkeypatch.undo() if not newer else monkeypatch.setattr(resources, "PACKAGE", folder / "mmlora")

    return install


def test_an_outdated_warehouse_needs_mmlora_migrate(url, desk, newer_mmlora):
    load = desk.publish(desk.rows(1))
    newer_mmlora(True)
    with pytest.raises(UsageError, match="run `mmlora migrate`"):
        Warehouse.open(url, ids=IDS)

    with Warehouse.migrate(url, ids=IDS) as warehouse:
        assert warehouse.publication("books").load_id == load.load_id
    assert desk.seen_by_sql() == desk.seen_by_sql("scores_latest") == desk.rows(1)
    assert desk.sql("SELECT note FROM score_loads") == [(None,)]
    desk.publish(desk.rows(2))
    assert desk.seen() == desk.rows(2)

    newer_mmlora(False)
    with pytest.raises(UsageError, match="upgrade mmlora"):
        Warehouse.open(url, ids=IDS)


def _views_of_before(folder: Path) -> None:
    """Make the views those of a release without promises and nights."""
    for name in ("nights", "published_lineage", "scores_topk"):
        (folder / f"{name}.sql").unlink()
    for name in ("scores_latest", "scores_published"):
        text = (folder / f"{name}.sql").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if "promises" not in line and "age_days" not in line]
        without = "\n".join(lines).replace("published_at,\nFROM", "published_at\nFROM")
        (folder / f"{name}.sql").write_text(without, encoding="utf-8")


def test_migration_keeps_loads_without_numerics(url, tmp_path, monkeypatch):
    """What computed them stays unknown."""
    shutil.copytree(resources.resource("sql"), tmp_path / "older" / "sql")
    for path in (tmp_path / "older/sql/migrations/versions").glob("*.py"):
        if path.name != "0001_first.py":
            path.unlink()
    _views_of_before(tmp_path / "older/sql/views")
    with monkeypatch.context() as older:
        older.setattr(resources, "PACKAGE", tmp_path / "older" / "mmlora")
        Warehouse.open(url, ids=IDS).close()
    database = Database.at(url)
    with database.writing() as connection:
        connection.exec_driver_sql(
            "INSERT INTO score_loads (load_id, domain_id, score_date, attempt, state, model_version, "
            "contract_hash, rows, content_hash, started_at, heartbeat_at) VALUES ('old', 'books', "
            "'2000-12-31', 1, 'staged', 'v1', 'c0', 3, 'h0', '2001-01-01T00:00:00.000000+00:00', "
            "'2001-01-01T00:00:00.000000+00:00')"
        )
    database.close()
    with Warehouse.migrate(url) as warehouse:
        old = warehouse.load("old")
        assert (old.rows, old.content_hash, old.numerics) == (3, "h0", None)
        warehouse.mark_staged(
            new := warehouse.begin_load("books", date(2001, 1, 1), model_version="v1", contract_hash="c0"),
            rows=3,
            content_hash="h0",
            checks=LoadChecks(),
            numerics=here(),
        )
        assert warehouse.load(new.load_id).numerics == here()


def test_migrating_a_current_warehouse_changes_nothing(url, desk):
    desk.publish(desk.rows(1))
    Warehouse.migrate(url).close()
    assert desk.seen_by_sql() == desk.rows(1)


@pytest.mark.parametrize(
    "bad", ["nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:", "oracle:///x"]
)
def test_names_a_url_without_a_backend(bad):
    with pytest.raises(UsageError, match="valid are sqlite"):
        Warehouse.open(bad, ids=IDS)


def test_names_a_file_that_is_not_a_database(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("no database at all, but long enough to have a header" * 10)
    with pytest.raises(UsageError, match="not a SQLite database"):
        Warehouse.open(f"sqlite:///{path}", ids=IDS)


@pytest.mark.parametrize(
    "gone",
    [
        "postgresql://nobody:secret@127.0.0.1:1/db",
        "postgresql://x:secret@/db?host=/nowhere",
    ],
)
def test_a_lost_database_is_worth_a_retry_and_its_password_is_hidden(gone):
    with pytest.raises(TransientError, match="try again later") as caught:
        Warehouse.open(gone, ids=IDS)
    assert "secret" not in str(caught.value)


@pytest.mark.postgres
def test_a_refusal_by_the_server_is_not_worth_a_retry(postgres_url):
    there = sa.make_url(postgres_url)
    for wrong, why in (
        (there.set(database="no_such_database"), 'database "no_such_database" does not exist'),
        (there.set(username="no_such_role"), 'role "no_such_role" does not exist'),
    ):
        with pytest.raises(AccessError, match=why) as caught:
            Warehouse.open(wrong.render_as_string(hide_password=False), ids=IDS)
        assert caught.value.exit_code == 1
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.postgres
def test_a_wrong_password_is_not_worth_a_retry(postgres_url):
    database = Database.at(postgres_url)
    with database.writing() as connection:
        hba = Path(connection.exec_driver_sql("SHOW hba_file").scalar_one())
        connection.exec_driver_sql("DROP ROLE IF EXISTS mmlora_reader")
        connection.exec_driver_sql("CREATE ROLE mmlora_reader LOGIN PASSWORD 'right'")
    if not hba.exists():
        pytest.skip("the server is elsewhere, and decides itself who needs a password")
    rules = hba.read_text()
    try:
        hba.write_text("local all mmlora_reader scram-sha-256\n" + rules)
        _reload(database)
        wrong = sa.make_url(postgres_url).set(username="mmlora_reader", password="wr0ng")
        with pytest.raises(AccessError, match="password authentication failed") as caught:
            Warehouse.open(wrong.render_as_string(hide_password=False), ids=IDS)
        assert "wr0ng" not in str(caught.value)
        with pytest.raises(AccessError, match="permission denied"):  # it may make no tables
            Warehouse.open(wrong.set(password="right").render_as_string(hide_password=False), ids=IDS)
    finally:
        hba.write_text(rules)
        _reload(database)
        with database.writing() as connection:
            connection.exec_driver_sql("DROP ROLE mmlora_reader")
        database.close()


def _reload(database):
    with database.reading() as connection:
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    time.sleep(0.2)


@pytest.mark.parametrize("table", ["publications", "score_loads", "scores_latest"])
def test_names_a_dropped_table(desk, table):
    kind = "VIEW" if table == "scores_latest" else "TABLE"
    cascade = " CASCADE" if desk.warehouse.database.engine.dialect.name == "postgresql" else ""
    with desk.warehouse.database.altering() as connection:
        connection.exec_driver_sql(f"DROP {kind} {table}{cascade}")
    with pytest.raises(ContractError, match=f"its table {table} is missing"):
        desk.seen_by_sql("scores_latest") if kind == "VIEW" else desk.publish(desk.rows(1))


def test_a_full_disk_is_worth_a_retry(tmp_path):
    """SQLite's own limit of pages stands in for the disk's."""
    with Warehouse.open(f"sqlite:///{tmp_path / 'w.db'}", ids=IDS) as warehouse:
        with pytest.raises(TransientError, match="full"), warehouse.database.writing() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")
            connection.exec_driver_sql("CREATE TABLE filler AS SELECT zeroblob(1000000) AS zeros")
        with pytest.raises(TransientError, match="readonly"), warehouse.database.writing() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.exec_driver_sql("DELETE FROM scores")


def test_names_a_broken_value_in_the_warehouse(desk):
    desk.publish(desk.rows(1))
    if desk.warehouse.database.engine.dialect.name == "sqlite":  # PostgreSQL checks its JSON itself
        desk.sql("UPDATE score_loads SET checks = '{'")
        with pytest.raises(ContractError, match="a JSON value is broken"):
            desk.warehouse.loads()


def test_names_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="the warehouse can't be created at"):
        Warehouse.open(f"sqlite:///{tmp_path / 'file' / 'w.db'}", ids=IDS)


def test_a_lock_held_too_long_is_worth_a_retry(tmp_path, monkeypatch):
    monkeypatch.setattr("mmlora.warehouse.backends.base.LOCK_WAIT_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path / 'w.db'}"
    with (
        Warehouse.open(url, ids=IDS) as warehouse,
        Warehouse.open(url, ids=IDS) as other,
        other.database.writing(),
        pytest.raises(TransientError, match="locked"),
    ):
        warehouse.begin_load("books", date(2000, 1, 1), model_version="v", contract_hash="c")


def test_bugs_are_not_hidden(warehouse):
    fault = pytest.raises((sa.exc.OperationalError, sa.exc.ProgrammingError), match="nowhere")
    with fault, warehouse.database.reading() as connection:
        connection.exec_driver_sql("SELECT * FROM nowhere")


@pytest.mark.postgres
def test_a_partition_is_created_while_others_read_and_write(postgres_url):
    with Warehouse.open(postgres_url, ids=IDS) as warehouse:
        assert ensure_partition(warehouse.database, date(2000, 12, 31)) == "scores_2000_12"
        with warehouse.database.writing() as busy:
            busy.exec_driver_sql("SELECT count(*) FROM scores")
            busy.exec_driver_sql("INSERT INTO scores VALUES (1, 1, 1, 'books', '2000-12-01', 0.5, 1)")
            with ThreadPoolExecutor(2) as pool:
                made = pool.map(lambda _: ensure_partition(warehouse.database, date(2001, 1, 1)), range(2))
                assert list(made) == ["scores_2001_01"] * 2
        with warehouse.database.reading() as connection:
            assert sa.inspect(connection).get_pk_constraint("scores_2001_01")["constrained_columns"]


@pytest.mark.postgres
def test_a_server_that_drops_a_connection_is_worth_a_retry(postgres_url):
    database = Database.at(postgres_url)
    with pytest.raises(TransientError), database.reading() as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    database.close()


@pytest.mark.postgres
def test_another_program_in_the_same_database_is_left_alone(postgres_url):
    database = Database.at(postgres_url)
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('somebody-else')")
    Warehouse.open(postgres_url, ids=IDS).close()
    with database.reading() as connection:
        assert (
            connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
            == "somebody-else"
        )
    database.close()


def test_only_unpublished_rows_are_written_without_sync(tmp_path):
    normal, full = 1, 2
    with Warehouse.open(f"sqlite:///{tmp_path / 'warehouse.db'}", ids=IDS) as warehouse:
        for synced, level in ((False, normal), (True, full), (False, normal)):
            with warehouse.database.writing(synced=synced) as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == level


def test_an_empty_or_other_database_is_not_used_as_the_warehouse(url, tmp_path, desk):
    identity = desk.warehouse.identity
    assert len(identity) == 32
    with Warehouse.open(url, identity=identity) as again:
        assert again.identity == identity
    for name in ("open", "migrate"):
        with pytest.raises(ContractError, match=f"has another warehouse .{identity}., but this workspace's"):
            getattr(Warehouse, name)(url, ids=IDS, identity="0" * 32)

    empty = tmp_path / "empty" / "warehouse.db"
    for name in ("open", "migrate"):
        with pytest.raises(ContractError, match="has no warehouse, but this workspace's is"):
            getattr(Warehouse, name)(f"sqlite:///{empty}", ids=IDS, identity=identity)
    assert not empty.parent.exists()


@pytest.mark.postgres
def test_an_empty_server_is_not_used_as_the_warehouse(postgres_url):
    with pytest.raises(ContractError, match="has no warehouse"):
        Warehouse.open(postgres_url, ids=IDS, identity="0" * 32)
    database = Database.at(postgres_url)
    with database.reading() as connection:
        assert migrate.revision_of(connection) is None
    database.close()


def test_migration_adds_the_range_of_scores_and_an_identity(url, tmp_path, monkeypatch):
    """Its rows are left as they are, whatever they hold."""
    shutil.copytree(resources.resource("sql"), tmp_path / "older" / "sql")
    for path in (tmp_path / "older/sql/migrations/versions").glob("*.py"):
        if path.name >= "0004":
            path.unlink()
    _views_of_before(tmp_path / "older/sql/views")
    row = (
        "INSERT INTO scores (load_key, user_id, item_id, domain_id, score_date, score, position) "
        "VALUES (1, {user}, 1, 'books', '2001-01-01', {score}, 1)"
    )
    earlier_read = "SELECT domain_id, user_id, score, position, published_at FROM scores_latest"
    copied = url.startswith("duckdb")  # to copy a table is to check its rows
    with monkeypatch.context() as older:
        older.setattr(resources, "PACKAGE", tmp_path / "older" / "mmlora")
        with Warehouse.open(url, ids=IDS) as old:
            if old.database.engine.dialect.name == "postgresql":
                ensure_partition(old.database, date(2001, 1, 1))
            with old.database.writing() as connection:
                connection.exec_driver_sql(row.format(user=1, score=0.5 if copied else 7.5))
                connection.exec_driver_sql("DELETE FROM workspace WHERE name = 'identity'")
                assert connection.exec_driver_sql(earlier_read).all() == []
    with Warehouse.migrate(url) as warehouse:
        assert warehouse.identity
        with pytest.raises(sa.exc.IntegrityError), warehouse.database.writing() as connection:
            connection.exec_driver_sql(row.format(user=2, score=7.5))
        with warehouse.database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM scores").scalar_one() == 1
            assert connection.exec_driver_sql(earlier_read).all() == [], "a reader of before reads on"
