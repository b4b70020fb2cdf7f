"""A load is seen whole or not at all; publishing twice is publishing once; the pointer never goes back."""

from __future__ import annotations

from datetime import date

import pyarrow as pa
import pytest

from mmlora.errors import CheckError, ContractError, DataError, UsageError


def test_a_staged_load_is_seen_only_when_published(desk):
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


def test_a_rerun_takes_the_place_of_the_earlier_load(desk):
    first = desk.publish(desk.rows(1))
    second = desk.publish(desk.rows(2, users=2))

    assert desk.seen() == desk.seen_by_sql() == desk.rows(2, users=2)
    assert desk.warehouse.load(first.load_id).state == "superseded"
    assert desk.warehouse.publication("books", desk.day).load_id == second.load_id


@pytest.mark.parametrize("moment", ["before it begins", "while it writes"])
def test_an_older_load_never_takes_the_place_of_a_newer(desk, moment):
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


def test_domains_and_dates_do_not_touch_each_other(desk):
    desk.publish(desk.rows(1))
    desk.publish(desk.rows(2), day=date(2001, 1, 1))
    desk.publish(desk.rows(3), domain="o'%(x)s \\ books")

    assert desk.seen() == desk.rows(1)
    assert desk.seen(day=date(2001, 1, 1)) == desk.rows(2)
    assert desk.seen(domain="o'%(x)s \\ books") == desk.rows(3)


def test_a_count_that_differs_from_the_staged_one_is_not_published(desk):
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))

    with pytest.raises(DataError, match=r"5 rows written, 12 staged"):
        desk.warehouse.publish(load, files[:1])
    assert desk.seen() == desk.rows(1)

    desk.warehouse.publish(load, files)
    assert desk.seen() == desk.rows(2)


def test_a_load_that_is_not_staged_is_refused(desk):
    with pytest.raises(UsageError, match="still running"):
        desk.warehouse.publish(desk.begin(), [])

    rejected, files = desk.stage(desk.rows(1))
    desk.warehouse.reject(rejected, "constant scores", {"audit": "failed"})
    with pytest.raises(CheckError, match="constant scores"):  # another try would be refused as well
        desk.warehouse.publish(rejected, files)

    given_up, files = desk.stage(desk.rows(1))
    desk.warehouse.fail(given_up, "given up: its process fell silent")
    with pytest.raises(CheckError, match="which begins a new load"):
        desk.warehouse.publish(given_up, files)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("domain_id", ["books", "toys"], "not the load's 'books'"),
        ("score_date", [date(2000, 12, 31), date(2000, 12, 30)], "not the load's 2000-12-31"),
        ("score", [0.5, float("nan")], "not a finite number"),
        ("position", [1, None], "null"),
    ],
)
def test_rows_unfit_to_publish_are_named(desk, column, values, message):
    load = desk.begin()
    table = desk.table([(1, 1, 0.5, 1), (1, 2, 0.5, 2)])
    at = table.schema.get_field_index(column)
    field = table.schema.field(column).with_nullable(True)
    files = desk.write(load, table.set_column(at, field, pa.array(values, field.type)))
    desk.warehouse.mark_staged(load, rows=2, content_hash="h0", checks={})

    with pytest.raises(DataError, match=message):
        desk.warehouse.publish(load, files)
    assert desk.seen() == []


def test_a_key_twice_in_a_load_is_refused(desk):
    load, files = desk.stage([(1, 1, 0.5, 1), (1, 1, 0.25, 2)])
    with pytest.raises(DataError, match="the same user and item twice"):
        desk.warehouse.publish(load, files)


def test_files_of_other_columns_are_refused(desk):
    load, files = desk.stage([])
    other = desk.write(desk.begin(), pa.table({"user_id": ["a"], "score": [1.0]}))
    with pytest.raises(ContractError, match="a staged load has user_id int64"):
        desk.warehouse.publish(load, files + other)
