"""A night on PostgreSQL: domains are published side by side, each by itself, while others are scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from threading import Thread

import pytest

from mmlora.pipeline.score import score_and_publish
from mmlora.warehouse.database import hold
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import open_workspace
from tests.conftest import take_warehouse

ON = date(2001, 4, 9)

pytestmark = pytest.mark.postgres


@pytest.fixture
def warehouse(
    trained: tuple[Path, str], trained_workspace: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Warehouse]:
    """The warehouse of a workspace with a champion."""
    take_warehouse(monkeypatch, trained_workspace, trained[1], postgres_url)
    with open_workspace().open_warehouse() as opened:
        yield opened


class Waiting:
    """Keeps a domain's publication waiting from when it is scored until something is true; told progress."""

    def __init__(self, warehouse: Warehouse, domain: str, until: Callable[[], object]) -> None:
        self.warehouse, self.domain, self.until = warehouse, domain, until
        self.thread: Thread | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if what.endswith(self.domain) and self.thread is None:
            connection = self.warehouse.database.engine.connect()
            hold(connection, "load", self.domain, ON)

            def release() -> None:
                give_up = time.monotonic() + 25
                while not self.until() and time.monotonic() < give_up:
                    time.sleep(0.02)
                connection.close()

            self.thread = Thread(target=release)
            self.thread.start()


def test_a_domain_that_waits_or_fails_does_not_stop_the_others(warehouse: Warehouse) -> None:
    with warehouse.database.writing() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no room for rare'; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON publications FOR EACH ROW "
            "WHEN (NEW.domain_id = 'rare') EXECUTE FUNCTION refuse()"
        )
    waiting = Waiting(warehouse, "news", until=lambda: warehouse.publication("sport", ON))

    rows = score_and_publish(ON, progress=waiting).loads

    assert [(row.domain_id, row.state, row.exit_code) for row in rows] == [
        ("news", "published", 0),
        ("rare", "failed", 1),
        ("sport", "published", 0),
    ]
    assert "no room for rare" in rows[1].reason
    news, sport = (warehouse.publication(domain, ON) for domain in ("news", "sport"))
    assert news is not None and sport is not None and sport.published_at < news.published_at
    assert warehouse.publication("rare", ON) is None


def test_an_interrupt_lets_a_running_publication_finish(warehouse: Warehouse) -> None:
    interrupted: list[str] = []
    waiting = Waiting(warehouse, "news", until=lambda: interrupted)

    def interrupt(what: str, done: int, total: int) -> None:
        waiting(what, done, total)
        if what.endswith("sport"):
            interrupted.append(what)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_and_publish(ON, progress=interrupt)

    assert warehouse.publication("news", ON) is not None
    assert [load.state for load in warehouse.loads(domain="sport")] == ["failed"]
