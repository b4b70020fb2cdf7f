"""What readers get: several nights and users, the age of scores, short lists; and what they may not see."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import sqlalchemy as sa

from mmlora.errors import UsageError
from mmlora.warehouse import reading
from mmlora.warehouse.readers import grant_reader, keep_promises
from mmlora.warehouse.tables import views
from tests.conftest import today
from tests.warehouse.conftest import Desk

ONE_USER = (
    "SELECT item_id, score FROM scores_latest WHERE domain_id = 'books' AND user_id = 7 ORDER BY position"
)


@pytest.fixture
def aged(desk: Desk) -> Desk:
    """Nights of three ages; one domain has a promise of its own, and one has none."""
    keep_promises(desk.warehouse.database, desk.warehouse.tables, {"books": {"max_age_days": 2, "top_k": 2}})
    keep_promises(
        desk.warehouse.database,
        desk.warehouse.tables,
        {"books": {"max_age_days": 1, "top_k": 3}, "toys": {"max_age_days": 5, "top_k": 1}},
    )
    on = today()
    for domain, days in (("books", 1), ("books", 2), ("toys", 5), ("games", 9)):
        desk.publish(desk.rows(1), domain=domain, day=on - timedelta(days=days))
    return desk


def test_views_and_python_return_the_age_of_scores(aged: Desk) -> None:
    seen = aged.sql("SELECT DISTINCT domain_id, age_days, is_stale FROM scores_published ORDER BY 1, 2")
    assert seen == [("books", 1, False), ("books", 2, True), ("games", 9, None), ("toys", 5, False)]
    assert aged.sql("SELECT DISTINCT domain_id, age_days FROM scores_latest ORDER BY 1") == [
        *[("books", 1), ("games", 9), ("toys", 5)]
    ]
    for domain, expected in (("books", [(1, False), (2, True)]), ("games", [(9, None)])):
        days = [night.score_date for night in aged.warehouse.publications(domain=domain)]
        rows = [aged.warehouse.read(domain, score_date=day).read_all().to_pylist()[0] for day in days]
        assert [(row["age_days"], row["is_stale"]) for row in rows] == expected


def test_the_short_list_has_the_first_positions_of_each_user(aged: Desk) -> None:
    seen = aged.sql("SELECT domain_id, user_id, position FROM scores_topk ORDER BY 1, 2, 3")
    lengths = {"books": 3, "games": 4, "toys": 1}  # without a promise: all
    assert seen == [
        (domain, user, position + 1)
        for domain, length in lengths.items()
        for user in range(3)
        for position in range(length)
    ]
    with aged.warehouse.database.reading() as connection:
        scores = [view for view in views() if view.startswith("scores_")]
        names = [tuple(connection.exec_driver_sql(f"SELECT * FROM {view}").keys()) for view in scores]
    assert len(names) == 3
    assert set(names) == {names[0]}


def test_lists_of_users_are_read_in_chunks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "USERS_AT_ONCE", 2)
    days = [desk.day, desk.day + timedelta(days=1)]
    for number, day in enumerate(days):
        desk.publish(desk.rows(number + 1, users=6), day=day)
    published = desk.warehouse.publications(domain="books")[::-1]
    table = desk.warehouse.read_publications(published, users=[5, 0, 3, 77, 5]).read_all()
    read = list(
        zip(*(table[name].to_pylist() for name in ("score_date", "user_id", "position")), strict=True)
    )
    assert read == [(day, user, place) for day in days for user in (0, 3, 5) for place in (1, 2, 3, 4)]
    few = desk.warehouse.read_publications(published, users=[5, 0, 3], limit=10).read_all()
    assert few.equals(table.slice(0, 10))
    assert desk.warehouse.read_publications(published, users=[]).read_all().num_rows == 0


@pytest.fixture
def superseded(desk: Desk) -> Desk:
    """A date that was published four times: only the last counts."""
    for version in range(4):
        desk.publish(desk.rows(version, users=300, items=10))
    return desk


@pytest.mark.slow_on("duckdb")
def test_the_newest_scores_of_a_user_are_found_by_the_index(superseded: Desk) -> None:
    dialect = superseded.warehouse.database.engine.dialect.name
    assert len(superseded.sql(ONE_USER)) == 10
    if dialect == "sqlite":
        plan = [step[-1] for step in superseded.sql(f"EXPLAIN QUERY PLAN {ONE_USER}")]
        assert "SEARCH scores USING PRIMARY KEY (load_key=? AND user_id=?)" in plan, plan
        assert not [step for step in plan if step.startswith("SCAN scores")]
    if dialect == "postgresql":
        superseded.sql("ANALYZE scores")
        (plan,) = superseded.sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {ONE_USER}")[0]
        found = plan if isinstance(plan, list) else json.loads(plan)
        scans = [
            node for node in nodes(found[0]["Plan"]) if node.get("Relation Name", "").startswith("scores_2")
        ]
        (scan,) = scans
        assert "Index Cond" in str(nodes(scan)), scan
        read = scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)
        assert (read, scan["Actual Loops"]) == (10, 1)  # the user's rows, and none of another load


def nodes(plan: dict) -> list[dict]:
    return [plan, *(inner for each in plan.get("Plans", ()) for inner in nodes(each))]


def test_a_reader_role_sees_the_views_and_nothing_else(desk: Desk) -> None:
    desk.publish(desk.rows(1))
    if desk.warehouse.database.engine.dialect.name != "postgresql":
        with pytest.raises(UsageError, match=r"--reader-role ranking: .* has no roles"):
            grant_reader(desk.warehouse.database, "ranking")
        return
    role = f"ranking {desk.warehouse.database.engine.url.database}"  # roles are the whole server's
    try:
        grant_reader(desk.warehouse.database, role)
        desk.sql(f'GRANT ALL ON promotions TO "{role}"')
        grant_reader(desk.warehouse.database, role)  # again: the same
        for view in views():
            assert as_role(desk, role, f"SELECT count(*) FROM {view}") is not None
        for table in ("scores", "publications", "score_loads", "score_models", "promotions", "promises"):
            with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
                as_role(desk, role, f"SELECT count(*) FROM {table}")
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            as_role(desk, role, "DELETE FROM scores")
        with pytest.raises(UsageError, match="is a superuser"):
            grant_reader(desk.warehouse.database, desk.sql("SELECT current_user")[0][0])
    finally:
        desk.sql(f'DROP OWNED BY "{role}"')
        desk.sql(f'DROP ROLE "{role}"')


def as_role(desk: Desk, role: str, text: str) -> object:
    with desk.warehouse.database.engine.begin() as connection:
        connection.exec_driver_sql(f'SET LOCAL ROLE "{role}"')
        result = connection.exec_driver_sql(text)
        return result.scalar() if result.returns_rows else None
