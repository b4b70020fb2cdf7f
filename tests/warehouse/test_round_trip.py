"""Arrow → warehouse → Arrow loses nothing, whatever the ids and scores."""

from __future__ import annotations

from datetime import date

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmlora.warehouse.backends import base
from mmlora.warehouse.reading import published_schema
from tests.conftest import today

INT_IDS = st.integers(-(2**63), 2**63 - 1)
TEXT_IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
SCORES = st.floats(0, 1, width=32)
QUICK = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def rows(ids):
    keys = st.lists(st.tuples(ids, ids), unique=True, max_size=20)
    return keys.flatmap(
        lambda found: st.lists(SCORES, min_size=len(found), max_size=len(found)).map(
            lambda scores: [
                (user, item, score, place)
                for place, ((user, item), score) in enumerate(zip(found, scores, strict=True), 1)
            ]
        )
    )


def in_order(found):
    return sorted(found, key=lambda row: (row[0].encode() if isinstance(row[0], str) else row[0], row[3]))


@QUICK
@given(rows=rows(INT_IDS))
def test_rows_with_integer_ids_survive_a_round_trip(desk, rows):
    desk.publish(rows)
    assert desk.seen() == in_order(rows)


@QUICK
@given(rows=rows(TEXT_IDS), domain=TEXT_IDS.filter(bool))
def test_rows_with_text_ids_survive_a_round_trip(text_desk, rows, domain):
    text_desk.publish(rows, domain=domain)
    assert text_desk.seen(domain=domain) == in_order(rows)
    for user in {row[0] for row in rows}:
        mine = [row for row in in_order(rows) if row[0] == user]
        assert text_desk.seen(domain=domain, user=user) == mine


def test_a_read_has_the_columns_of_the_views_and_their_values(desk):
    load, on = desk.publish(desk.rows(1)), today()
    table = desk.warehouse.read("books").read_all()

    assert table.schema == published_schema(desk.warehouse.ids)
    assert table.schema.names == [
        "domain_id",
        "score_date",
        "user_id",
        "item_id",
        "score",
        "position",
        "model_version",
        "load_id",
        "published_at",
        "age_days",
        "is_stale",
    ]
    first = table.slice(0, 1).to_pylist()[0]
    pointer = desk.warehouse.publication("books")
    assert first == {
        "domain_id": "books",
        "score_date": desk.day,
        "user_id": 0,
        "item_id": 0,
        "score": 0.25,
        "position": 1,
        "model_version": "v1",
        "load_id": load.load_id,
        "published_at": pointer.published_at,
        "age_days": (on - desk.day).days,
        "is_stale": None,
    }


def test_both_views_have_the_promised_columns(desk):
    desk.publish(desk.rows(1))
    with desk.warehouse.database.reading() as connection:
        for view in ("scores_published", "scores_latest"):
            names = tuple(connection.exec_driver_sql(f"SELECT * FROM {view}").keys())
            assert names == tuple(published_schema(desk.warehouse.ids).names)


def test_latest_is_the_newest_published_date_of_each_domain(desk):
    desk.publish(desk.rows(1), day=date(2001, 1, 2))
    desk.publish(desk.rows(2), day=date(2001, 1, 1))  # an older date that is published later
    desk.publish(desk.rows(3, users=1), domain="toys")

    latest = desk.sql("SELECT DISTINCT domain_id, CAST(score_date AS TEXT) FROM scores_latest ORDER BY 1")
    assert latest == [("books", "2001-01-02"), ("toys", "2000-12-31")]
    assert desk.warehouse.read("books").read_all()["score_date"][0].as_py() == date(2001, 1, 2)
    assert len(desk.seen_by_sql("scores_latest")) == 12 + 4
    assert len(desk.seen_by_sql("scores_published")) == 12 + 12 + 4


def test_a_limit_is_kept_and_an_unpublished_domain_is_empty(desk):
    desk.publish(desk.rows(1))
    assert desk.seen(limit=5) == desk.rows(1)[:5]
    assert desk.seen(user=2) == desk.rows(1)[8:]
    nothing = desk.warehouse.read("toys").read_all()
    assert (nothing.num_rows, nothing.schema) == (0, published_schema(desk.warehouse.ids))


def test_a_long_read_is_batched(desk, monkeypatch):
    monkeypatch.setattr(base, "BATCH_ROWS", 1000)
    rows = desk.rows(1, users=30, items=100)
    load = desk.begin()
    desk.warehouse.publish(load, desk.stage_table(load, desk.table(rows), rows_a_file=2500))

    batches = list(desk.warehouse.read("books"))
    assert sum(batch.num_rows for batch in batches) == len(rows)
    assert desk.seen() == rows
    if desk.warehouse.database.engine.dialect.name != "postgresql":  # PostgreSQL's driver has its own measure
        assert len(batches) == 3
