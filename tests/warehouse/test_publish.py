"""A load is seen whole or not at all; publishing twice is publishing once; the pointer never goes back."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from mmlora.errors import CheckError, ContractError, DataError, UsageError
from mmlora.load_checks import LoadChecks
from mmlora.warehouse import freeing


def test_a_staged_load_is_invisible_until_published(desk):
    load, files = desk.stage(desk.rows(1))
    assert desk.seen() == desk.seen_by_sql() == []

    published = desk.warehouse.publish(load, files)

    assert (published.state, published.rows) == ("published", 12)
    assert desk.seen() == desk.seen_by_sql() == desk.rows(1)


def test_publishing_again_changes_nothing(desk):
    load, files = desk.stage(desk.rows(1))
    first = desk.warehouse.publish(load, files)
    pointer = desk.warehouse.publication("books", desk.day)

    assert desk.warehouse.publish(load, files) == first
    assert desk.warehouse.publish(load, []) == first  # its staged files may be gone by then
    assert desk.warehouse.publication("books", desk.day) == pointer
    assert desk.sql("SELECT count(*) FROM scores") == [(12,)]


def test_a_rerun_replaces_the_earlier_load(desk):
    first = desk.publish(desk.rows(1))
    second = desk.publish(desk.rows(2, users=2))

    assert desk.seen() == desk.seen_by_sql() == desk.rows(2, users=2)
    assert desk.warehouse.load(first.load_id).state == "superseded"
    assert desk.warehouse.publication("books", desk.day).load_id == second.load_id


@pytest.mark.parametrize("moment", ["before it begins", "while it writes"])
def test_an_older_load_never_replaces_a_newer_one(desk, moment):
    old, old_files = desk.stage(desk.rows(1))
    new, new_files = desk.stage(desk.rows(2))

    def files():
        yield old_files[0]
        if moment == "while it writes":
            desk.warehouse.publish(new, new_files)
        yield from old_files[1:]

    if moment == "before it begins":
        desk.warehouse.publish(new, new_files)
    late = desk.warehouse.publish(old, files())

    assert late.state == "superseded"
    assert desk.warehouse.load(new.load_id).state == "published"
    assert desk.seen() == desk.rows(2)


def test_an_empty_load_can_be_published(desk):
    desk.publish(desk.rows(1))
    desk.publish([])

    assert desk.seen() == desk.seen_by_sql() == []
    assert desk.warehouse.publication("books", desk.day).rows == 0


def test_publications_of_domains_and_dates_are_independent(desk):
    desk.publish(desk.rows(1))
    desk.publish(desk.rows(2), day=date(2001, 1, 1))
    desk.publish(desk.rows(3), domain="o'%(x)s \\ books")

    assert desk.seen() == desk.rows(1)
    assert desk.seen(day=date(2001, 1, 1)) == desk.rows(2)
    assert desk.seen(domain="o'%(x)s \\ books") == desk.rows(3)


def test_a_load_with_a_missing_file_is_refused_until_it_is_back(desk):
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))

    for left in (files[:1], []):
        with pytest.raises(DataError, match=rf"{5 * len(left)} rows, which are not the 12 audited ones"):
            desk.warehouse.publish(load, left)
        assert desk.seen() == desk.rows(1)
        assert desk.sql("SELECT count(*) FROM scores") == [(12,)]

    desk.warehouse.publish(load, files)
    assert desk.seen() == desk.rows(2)


def put(column, values):
    """Return a change of a staged file: other values in a column."""

    def change(path, desk):
        table = pq.read_table(path)
        at = table.column_names.index(column)
        field = table.schema.field(column)
        pq.write_table(table.set_column(at, field, pa.array(values(table), field.type)), path)

    return change


def put_other_load(path, desk):
    _, files = desk.stage(desk.rows(3))
    path.write_bytes(files[0].read_bytes())


CHANGES = {
    "all scores 0.99": put("score", lambda table: [0.99] * len(table)),
    "all scores 7.5": put("score", lambda table: [7.5] * len(table)),
    "all scores -1": put("score", lambda table: [-1] * len(table)),
    "all positions 1": put("position", lambda table: [1] * len(table)),
    "other items": put("item_id", lambda table: [900 + number for number in range(len(table))]),
    "scores of two users swapped": put("score", lambda table: table["score"].to_pylist()[::-1]),
    "another load's file": put_other_load,
    "the file is gone": lambda path, desk: path.unlink(),
    "the file is cut": lambda path, desk: path.write_bytes(path.read_bytes()[:-20]),
    "the file is empty": lambda path, desk: path.write_bytes(b""),
    "rows are gone": lambda path, desk: pq.write_table(pq.read_table(path).slice(1), path),
    "a row came in": lambda path, desk: pq.write_table(
        pa.concat_tables([pq.read_table(path), desk.table([(77, 7, 0.5, 1)])]), path
    ),
}


@pytest.mark.slow_on("duckdb", "postgresql")
@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_staged_file_that_changed_since_the_audit_is_not_published(desk, change, number):
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))
    change(files[number], desk)

    with pytest.raises(DataError):
        desk.warehouse.publish(load, files)

    assert desk.seen() == desk.seen_by_sql() == desk.rows(1)
    assert desk.warehouse.load(load.load_id).state == "staged"


@pytest.mark.parametrize("score", ["1.0001", "-0.0001", "7.5"])
def test_the_database_refuses_a_score_outside_0_to_1(desk, score):
    load = desk.publish(desk.rows(1))
    for statement in (
        f"UPDATE scores SET score = {score}",
        "INSERT INTO scores (load_key, user_id, item_id, domain_id, score_date, score, position) "
        f"VALUES ({load.load_key}, 5, 5, 'books', '2000-12-31', {score}, 1)",
    ):
        with pytest.raises(sa.exc.IntegrityError, match=r"ck_scores_score|CHECK .* failed on table"):
            desk.sql(statement)
    assert desk.seen() == desk.rows(1)


def test_a_load_that_is_not_staged_is_refused(desk):
    with pytest.raises(UsageError, match="still running"):
        desk.warehouse.publish(desk.begin(), [])

    rejected, files = desk.stage(desk.rows(1))
    desk.warehouse.reject(rejected, "constant scores", LoadChecks(seconds=1.0))
    with pytest.raises(CheckError, match="constant scores"):  # another try would be refused as well
        desk.warehouse.publish(rejected, files)

    given_up, files = desk.stage(desk.rows(1))
    desk.warehouse.fail(given_up, "given up: its process stopped sending heartbeats")
    with pytest.raises(CheckError, match="which starts a new load"):
        desk.warehouse.publish(given_up, files)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("domain_id", ["books", "toys"], "not the load's 'books'"),
        ("score_date", [date(2000, 12, 31), date(2000, 12, 30)], "not the load's 2000-12-31"),
        ("score", [0.5, 7.5], "not a probability from 0 to 1"),
        ("score", [0.5, -1.0], "not a probability from 0 to 1"),
        ("score", [0.5, float("nan")], "not a probability from 0 to 1"),
        ("position", [1, None], "null"),
    ],
)
def test_rows_that_cannot_be_published_are_shown(desk, column, values, message):
    load = desk.begin()
    table = desk.table([(1, 1, 0.5, 1), (1, 2, 0.5, 2)])
    at = table.schema.get_field_index(column)
    field = table.schema.field(column).with_nullable(True)
    files = desk.write(load, table.set_column(at, field, pa.array(values, field.type)))
    desk.warehouse.mark_staged(load, rows=2, content_hash="h0", checks=LoadChecks())

    with pytest.raises(DataError, match=message):
        desk.warehouse.publish(load, files)
    assert desk.seen() == []


def test_duplicate_keys_in_a_load_are_refused(desk):
    load, files = desk.stage([(1, 1, 0.5, 1), (1, 1, 0.25, 2)])
    with pytest.raises(DataError, match="a user and item occur in two rows"):
        desk.warehouse.publish(load, files)


def test_files_with_other_columns_are_refused(desk):
    load, files = desk.stage([])
    other = desk.write(desk.begin(), pa.table({"user_id": ["a"], "score": [1.0]}))
    with pytest.raises(ContractError, match="a staged load has user_id int64"):
        desk.warehouse.publish(load, files + other)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # a server has its own clock
def test_a_clock_that_goes_back_changes_neither_order_nor_readers(desk, monkeypatch):
    first = desk.publish(desk.rows(1))
    earlier = first.finished_at - timedelta(hours=5)
    monkeypatch.setattr(type(desk.warehouse.database.backend), "clock", lambda *_: earlier)
    second = desk.publish(desk.rows(2))
    assert second.finished_at > first.finished_at > earlier, "readers who look for what is newer find it"
    assert desk.seen() == desk.seen_by_sql() == desk.seen_by_sql("scores_latest") == desk.rows(2)
    assert desk.warehouse.stale_loads() == []
    running = desk.begin()
    assert desk.begin().attempt == 4 and desk.warehouse.load(running.load_id).state == "running"
    third = desk.publish(desk.rows(3))
    plan = freeing.plan(desk.warehouse.database, desk.warehouse.tables, keep_days=None, keep_loads=1)
    assert [load.load_id for load in plan.loads] == [first.load_id], "the load before the present one stays"
    desk.warehouse.restore(desk.warehouse.load(second.load_id), who="me", why="a test")
    assert desk.seen() == desk.rows(2) and desk.warehouse.load(third.load_id).state == "superseded"
