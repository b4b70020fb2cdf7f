"""What is published is counted and hashed, and whatever was done to it by hand is named."""

from __future__ import annotations

from datetime import date

import pytest

LOADED = "load_key = (SELECT load_key FROM publications WHERE domain_id = 'books')"
FAULTS = {
    f"DELETE FROM scores WHERE user_id = 1 AND {LOADED}": "4 of 12 rows were deleted",
    f"DELETE FROM scores WHERE {LOADED}": "12 of 12 rows were deleted",
    f"UPDATE scores SET score = 0 WHERE user_id = 2 AND item_id = 3 AND {LOADED}": "rows were changed",
    f"UPDATE scores SET position = 9 WHERE user_id = 2 AND item_id = 3 AND {LOADED}": "rows were changed",
    f"UPDATE scores SET item_id = 9 WHERE user_id = 2 AND item_id = 3 AND {LOADED}": "rows were changed",
    f"UPDATE scores SET domain_id = 'toys' WHERE user_id = 2 AND {LOADED}": "rows were changed",
    "INSERT INTO scores SELECT load_key, 77, item_id, domain_id, score_date, score, position FROM scores "
    f"WHERE user_id = 2 AND item_id = 3 AND {LOADED}": "1 rows were added to 12",
    "DELETE FROM publications WHERE domain_id = 'books'": "doesn't point to it",
    "UPDATE publications SET load_key = (SELECT load_key FROM publications WHERE domain_id = 'toys') "
    "WHERE domain_id = 'books'": "readers follow a load of domain 'toys'",
}


@pytest.fixture
def published(desk):
    desk.publish(desk.rows(1))
    load = desk.publish(desk.rows(2))  # a rerun: only this one is read
    desk.publish(desk.rows(3), domain="toys")
    desk.publish([], domain="quiet", day=date(2001, 1, 1))
    desk.stage(desk.rows(1), day=date(2001, 1, 2))
    return load


def test_published_rows_have_no_fault(desk, published):
    seen = [(v.domain_id, v.score_date, v.rows, v.fault) for v in desk.warehouse.verify()]
    assert seen == [
        ("books", desk.day, 12, ""),
        ("quiet", date(2001, 1, 1), 0, ""),
        ("toys", desk.day, 12, ""),
    ]


@pytest.mark.slow_on("duckdb", "postgresql")
@pytest.mark.parametrize("statement", FAULTS)
def test_changed_rows_are_detected(desk, published, statement):
    desk.sql(statement)
    faults = [v for v in desk.warehouse.verify() if v.fault]

    assert ("books", desk.day) in [(v.domain_id, v.score_date) for v in faults]
    of_books = next(v for v in faults if v.domain_id == "books")
    assert FAULTS[statement] in of_books.fault
    assert of_books.mend == "mmlora score --date 2000-12-31 --domain books --model-version v1"
    assert not [v for v in desk.warehouse.verify(start=date(2001, 1, 1)) if v.fault]
    assert not [v for v in desk.warehouse.verify(end=date(2000, 12, 30))]
    desk.publish(desk.rows(2))
    assert not [v for v in desk.warehouse.verify() if v.fault]


def test_text_ids_are_hashed_in_the_order_of_their_bytes(text_desk):
    users = ["B", "a", "Z", "\u00e9", "~", "\U0001f600"]
    rows = [
        (user, item, 0.5, place)
        for user in sorted(users, key=str.encode)
        for place, item in [(1, "i"), (2, "I")]
    ]
    text_desk.publish(rows, domain="b\u00fccher")
    assert [(v.rows, v.fault) for v in text_desk.warehouse.verify(domain="b\u00fccher")] == [(12, "")]


def test_a_changed_type_is_detected(desk, published):
    if desk.warehouse.database.engine.dialect.name == "sqlite":
        desk.sql(f"UPDATE scores SET user_id = 'somebody' WHERE user_id = 1 AND {LOADED}")
        (fault,) = [v.fault for v in desk.warehouse.verify() if v.fault]
        assert "doesn't have its column's type" in fault
