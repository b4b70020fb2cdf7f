"""Freed rows: which go and which stay, what is said of them, and what readers see meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from threading import Event, Thread
from typing import Any

import pytest
import sqlalchemy as sa

from mmlora.content_hash import ContentHash
from mmlora.errors import DataError
from mmlora.schema import scores_schema
from mmlora.warehouse import freeing
from mmlora.warehouse.backends.postgresql import ensure_partition
from mmlora.warehouse.freeing import Freeing, FreeLoad
from mmlora.warehouse.loads import Load
from mmlora.warehouse.tables import tables
from mmlora.warehouse.warehouse import Warehouse

NEWEST = date(2001, 3, 3)


def planned(desk: Any, days: int | None = None, keep: int = 1) -> Freeing:
    warehouse = desk.warehouse
    return freeing.plan(warehouse.database, tables(warehouse.ids), keep_days=days, keep_loads=keep)


def free(desk: Any, days: int | None = None, keep: int = 1) -> list[FreeLoad]:
    warehouse, plan = desk.warehouse, planned(desk, days, keep)
    return list(freeing.free(warehouse.database, tables(warehouse.ids), plan, who="somebody"))


def rows_of(desk: Any) -> dict[int, int]:
    """Rows in the warehouse by load."""
    return dict(desk.sql("SELECT load_key, count(*) FROM scores GROUP BY load_key"))


@pytest.fixture
def nights(desk: Any) -> dict[date, list[Load]]:
    """Five nights over three months, of two domains; the first domain was scored three times."""
    days = [NEWEST - timedelta(days=n) for n in (61, 60, 31, 2, 0)]
    loads = [(day, *load) for day in days for load in (("books", 1), ("books", 2), ("books", 3), ("toys", 2))]
    put(desk, loads)
    made = desk.warehouse.loads()[::-1]
    return {day: [load for load in made if load.score_date == day] for day in days}


def put(desk: Any, loads: list[tuple[date, str, int]]) -> None:
    """Publish loads in one transaction, which is quicker than one after the other."""
    database, into = desk.warehouse.database, tables(desk.warehouse.ids)
    if database.backend.drops_months:
        for day in {day.replace(day=1) for day, *_ in loads}:
            ensure_partition(database, day)
    published: dict[tuple[date, str], dict[str, Any]] = {}
    with database.writing() as connection:
        for number, (day, domain, version) in enumerate(loads, 1):
            content = ContentHash(scores_schema(desk.warehouse.ids))
            content.update(table := desk.table(desk.rows(version), domain, day))
            now = datetime(2001, 3, 4, tzinfo=UTC) + timedelta(seconds=number)
            earlier = published.get((day, domain))
            facts: dict[str, Any] = {"attempt": version, "state": "published", "rows": table.num_rows}
            facts |= {"load_id": f"load-{number}", "domain_id": domain, "score_date": day}
            facts |= {"model_version": "v1", "contract_hash": "c0", "content_hash": content.hexdigest()}
            moments = dict.fromkeys(("started_at", "heartbeat_at", "staged_at", "finished_at"), now)
            published[day, domain] = facts = {"load_key": number, **facts, **moments}
            rows = [{**row, "load_key": number} for row in table.to_pylist()]
            connection.execute(sa.insert(into.scores), rows)
            connection.execute(sa.insert(into.score_loads), [facts])
            if earlier is not None:
                same = into.score_loads.c.load_key == earlier["load_key"]
                connection.execute(sa.update(into.score_loads).where(same).values(state="superseded"))
        pointers = [{**facts, "published_at": facts["finished_at"]} for facts in published.values()]
        names = into.publications.c.keys()
        connection.execute(sa.insert(into.publications), [{n: p[n] for n in names} for p in pointers])
        if not database.backend.one_writer:
            sequence = "pg_get_serial_sequence('score_loads', 'load_key')"
            connection.exec_driver_sql(f"SELECT setval({sequence}, max(load_key)) FROM score_loads")
        elif database.engine.dialect.name == "duckdb":  # its keys come from a sequence
            query = f"SELECT nextval('score_loads_load_key') FROM range({len(loads)})"
            connection.exec_driver_sql(query)


@pytest.mark.slow_on("duckdb")
def test_earlier_loads_are_freed_except_the_newest(desk: Any, nights: dict[date, list[Load]]) -> None:
    running, failed = desk.begin(day=NEWEST), desk.begin(domain="news", day=NEWEST)
    desk.warehouse.fail(failed, reason="it broke")
    staged, files = desk.stage(desk.rows(1), domain="toys", day=NEWEST)
    plan = planned(desk)
    assert [load.load_key for load in plan.loads if load.rows] == [
        night[0].load_key for night in nights.values()
    ]
    assert all(load.bytes > 0 for load in plan.loads if load.rows)
    assert desk.warehouse.load(nights[NEWEST][0].load_id).rows_freed_at is None, "a plan changes nothing"

    freed = free(desk)

    assert [(load.load_key, load.rows) for load in freed] == [
        (load.load_key, load.rows) for load in plan.loads
    ]
    assert sum(load.rows for load in freed) == 5 * 12
    assert failed.load_key in {load.load_key for load in freed}
    kept = {load.load_key for night in nights.values() for load in night[1:]}
    assert rows_of(desk) == dict.fromkeys(kept, 12)
    assert desk.seen(day=NEWEST) == desk.rows(3)
    first, second, third, _ = nights[NEWEST]
    with pytest.raises(DataError, match=r"gc` freed its 12 rows on 20.*or score the date again"):
        desk.warehouse.restore(first, who="somebody", why="a test")
    with pytest.raises(DataError, match="freed its 12 rows"):
        desk.warehouse.rows_of(desk.warehouse.load(first.load_id))
    assert desk.warehouse.restore(second, who="somebody", why="a test").state == "published"
    assert desk.seen(day=NEWEST) == desk.rows(2)
    assert [v.fault for v in desk.warehouse.verify()] == [""] * 10
    assert desk.warehouse.load(running.load_id).state == "running"
    assert desk.warehouse.publish(staged, files).state == "published"
    assert free(desk, keep=2) == [], "all that is to go has gone"
    desk.warehouse.unpublish("books", NEWEST, who="somebody", why="a test")
    assert [load.load_key for load in free(desk)] == [third.load_key], "the newest that readers had stays"
    assert second.load_key in {load.load_key for load in free(desk, keep=0)}


def test_old_nights_are_freed_whole_and_recorded_in_the_ledger(
    desk: Any, nights: dict[date, list[Load]]
) -> None:
    old = [day for day in nights if (NEWEST - day).days > 31]
    desk.warehouse.record_failure("news", old[0], "it broke")
    late, files = desk.stage(desk.rows(1), domain="news", day=old[0])

    freed = free(desk, days=31)

    assert {load.score_date for load in freed if load.night} == set(old)
    assert sum(load.rows for load in freed if load.night) == 2 * 4 * 12
    assert {p.score_date for p in desk.warehouse.publications()} == set(nights) - set(old)
    assert {row[0] for row in desk.sql("SELECT CAST(score_date AS TEXT) FROM scores_published")} == {
        str(day) for day in set(nights) - set(old)
    }
    assert desk.seen(day=old[0]) == []
    entries = [entry for entry in desk.warehouse.ledger() if entry.score_date in old]
    assert len(entries) == 4 and {entry.action for entry in entries} == {"unpublish"}
    assert (
        entries[0].who == "somebody"
        and "more than 31 days before the newest night, 2001-03-03" in entries[0].why
    )
    for load in nights[old[0]]:
        current = desk.warehouse.load(load.load_id)
        assert (current.state, current.rows) == ("superseded", 12)
        assert current.rows_freed_at is not None and current.rows_deleted_at is not None
        with pytest.raises(DataError, match="freed its 12 rows"):
            desk.warehouse.restore(load, who="somebody", why="a test")
    assert desk.warehouse.nights(old[1]) == []
    (night,) = desk.warehouse.nights(old[0])
    assert "news: a load is staged" in str(night.missing), "an open load is left alone"
    assert free(desk, days=31) == []

    assert desk.warehouse.publish(late, files).state == "published"
    assert desk.seen(domain="news", day=old[0]) == desk.rows(1)
    again = desk.publish(desk.rows(2), day=old[1])
    assert again.state == "published" and desk.seen(day=old[1]) == desk.rows(2)
    assert [v.fault for v in desk.warehouse.verify()] == [""] * 8
    assert {load.load_key for load in free(desk, days=31)} == {late.load_key, again.load_key}


@pytest.mark.slow_on("duckdb")
def test_without_a_retention_no_night_is_freed(desk: Any, nights: dict[date, list[Load]]) -> None:
    free(desk, keep=9)
    assert sum(rows_of(desk).values()) == 5 * 4 * 12
    assert free(desk, days=61, keep=9) == []
    free(desk, days=0, keep=0)
    assert {load.load_key for load in nights[NEWEST][2:]} == set(rows_of(desk)), "the newest night stays"


def test_a_load_restored_after_planning_is_kept(desk: Any, nights: dict[date, list[Load]]) -> None:
    plan = planned(desk)
    first = nights[NEWEST][0]
    desk.warehouse.restore(first, who="somebody", why="a test")
    done = list(freeing.free(desk.warehouse.database, tables(desk.warehouse.ids), plan, who="somebody"))
    assert first.load_key not in {load.load_key for load in done}
    assert desk.seen(day=NEWEST) == desk.rows(1)


def test_a_large_load_is_freed_in_batches(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeing, "BATCH_ROWS", 10)
    for version in (1, 2, 3):
        desk.publish(desk.rows(version, users=20))
    deletes: list[str] = []
    sa.event.listen(
        desk.warehouse.database.engine,
        "before_cursor_execute",
        lambda _c, _k, statement, *_: (
            deletes.append(statement) if "DELETE FROM scores" in statement else None
        ),
    )
    assert [load.rows for load in free(desk)] == [80]
    assert len(deletes) > 5
    assert desk.seen() == desk.rows(3, users=20)


@pytest.fixture
def month_tables(desk: Any) -> Any:
    if not desk.warehouse.database.backend.drops_months:
        pytest.skip("no partitions")
    return lambda: {
        name for (name,) in desk.sql("SELECT relname FROM pg_class WHERE relname ~ '^scores_[0-9_]+$'")
    }


def test_months_without_needed_rows_are_dropped(
    desk: Any, nights: dict[date, list[Load]], month_tables: Any
) -> None:
    assert month_tables() == {"scores_2001_01", "scores_2001_03"}
    desk.begin(domain="news", day=NEWEST - timedelta(days=61))  # in progress
    free(desk, days=30)
    assert month_tables() == {"scores_2001_01", "scores_2001_03"}, "a load may be about to be written there"
    assert sum(rows_of(desk).values()) == 2 * 3 * 12
    desk.publish(desk.rows(1), domain="news", day=NEWEST - timedelta(days=40))
    for load in desk.warehouse.loads(states=("running",)):
        desk.warehouse.fail(load, reason="it broke")
    free(desk, days=30)
    assert month_tables() == {"scores_2001_03"}
    desk.publish(desk.rows(1), day=NEWEST - timedelta(days=61))
    assert desk.seen(day=NEWEST - timedelta(days=61)) == desk.rows(1)


def test_a_month_with_readers_is_deleted_row_by_row(
    desk: Any, nights: dict[date, list[Load]], month_tables: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeing, "_DROP_TRIES", 2)
    old, query = NEWEST - timedelta(days=61), "SELECT count(*) FROM scores_published"
    with desk.warehouse.database.engine.connect() as reader:
        assert reader.exec_driver_sql(query).scalar() == 5 * 2 * 12
        begun = time.monotonic()
        freed = free(desk, days=30)
        assert time.monotonic() - begun < 10
        assert reader.exec_driver_sql(query).scalar() == 2 * 2 * 12, "no lock is left in its way"
    assert sum(load.rows for load in freed if load.score_date == old) == 4 * 12
    assert month_tables() == {"scores_2001_01", "scores_2001_03"}


@pytest.mark.slow_on("duckdb")
def test_a_reader_sees_a_whole_night_or_nothing(
    desk: Any, url: str, nights: dict[date, list[Load]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeing, "BATCH_ROWS", 1)
    monkeypatch.setattr(freeing, "_PAUSE_SECONDS", 0.03)
    day, whole, seen, over = NEWEST - timedelta(days=2), desk.rows(3), [], Event()

    def read() -> None:
        with Warehouse.open(url) as warehouse:
            while not over.is_set():
                try:
                    seen.append(warehouse.read("books", score_date=day).read_all().num_rows)
                except DataError as error:
                    assert "freed its 12 rows" in str(error)
                    seen.append(-1)
                with warehouse.database.reading() as connection:
                    query = "SELECT count(*), count(DISTINCT domain_id) FROM scores_published "
                    query += f"WHERE score_date = '{day}'"
                    seen.append(tuple(connection.exec_driver_sql(query).one()))
                time.sleep(0.05)  # a DuckDB file has one process that writes, or several that read

    reader = Thread(target=read)
    reader.start()
    time.sleep(0.3)
    free(desk, days=1)
    time.sleep(0.2)
    over.set()
    reader.join()
    assert set(seen) <= {len(whole), 0, -1, (24, 2), (0, 0)}
    assert {12, 0} < set(seen) | {12} and (24, 2) in seen and (0, 0) in seen


@pytest.mark.slow_on("duckdb")
def test_a_reader_of_freed_rows_gets_an_error(desk: Any, nights: dict[date, list[Load]]) -> None:
    old = NEWEST - timedelta(days=61)
    reader = desk.warehouse.read("books", score_date=old)  # reads when it is asked for rows
    free(desk, days=30)
    with pytest.raises(DataError, match="freed its 12 rows"):
        reader.read_all()
    quiet = desk.publish([], domain="quiet", day=NEWEST)
    assert quiet.rows == 0 and desk.seen(domain="quiet", day=NEWEST) == []


@pytest.mark.slow_on("duckdb")
def test_verify_skips_loads_that_are_freed_meanwhile(desk: Any, nights: dict[date, list[Load]]) -> None:
    verified = desk.warehouse.verify()
    first = next(verified)
    free(desk, days=30)
    assert [v.fault for v in (first, *verified)] == [""] * (1 + 3)


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from mmlora.warehouse import freeing
from mmlora.warehouse.tables import tables
from mmlora.warehouse.warehouse import Warehouse

url, moment, nth = sys.argv[1], sys.argv[2], int(sys.argv[3])
freeing.BATCH_ROWS = 4
warehouse = Warehouse.open(url)
left = [nth]

def count(statement):
    if moment in statement:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

after = lambda connection, cursor, statement, *_: count(statement)
sa.event.listen(warehouse.database.engine, "after_cursor_execute", after)
sa.event.listen(warehouse.database.engine, "commit", lambda *_: count("COMMIT"))
plan = freeing.plan(warehouse.database, tables(warehouse.ids), keep_days=30, keep_loads=1)
list(freeing.free(warehouse.database, tables(warehouse.ids), plan, who="somebody"))
"""


@pytest.mark.slow_on("duckdb", "postgresql")
@pytest.mark.parametrize(
    ("moment", "nth"),
    [
        ("INSERT INTO publication_ledger", 0),
        ("DELETE FROM publications", 1),
        ("COMMIT", 3),
        ("DELETE FROM scores", 0),
        ("DELETE FROM scores", 3),
        ("DROP TABLE", 0),
    ],
)
def test_freeing_again_completes_a_run_killed_at_any_step(
    desk: Any, url: str, nights: dict[date, list[Load]], moment: str, nth: int
) -> None:
    if moment == "DROP TABLE" and not desk.warehouse.database.backend.drops_months:
        pytest.skip("no partitions")
    old = [day for day in nights if (NEWEST - day).days > 30]
    command = [sys.executable, "-W", "ignore", "-c", KILLED, url, moment, str(nth)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL

    published = [(p.score_date, p.domain_id) for p in desk.warehouse.publications()]
    for day in nights:
        domains = {domain for date, domain in published if date == day}
        assert domains == {"books", "toys"} or (day in old and not domains), "half a night"
    assert [v.fault for v in desk.warehouse.verify()] == [""] * len(published)
    free(desk, days=30)
    kept = {load.load_key for day, night in nights.items() if day not in old for load in night[1:]}
    assert rows_of(desk) == dict.fromkeys(kept, 12)
    assert len([entry for entry in desk.warehouse.ledger() if entry.score_date in old]) == 6
    assert free(desk, days=30) == []
    assert [v.fault for v in desk.warehouse.verify()] == [""] * 4
