"""Backfill: what a plan says of each night, and that just that is done."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.check_rules import rules_in_force
from mmlora.errors import UsageError
from mmlora.pipeline.backfill import apply_plan, backfill, save_plan
from mmlora.pipeline.compare import compare
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.erase import erase
from mmlora.pipeline.promote import promote
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import status
from mmlora.pipeline.train import train
from mmlora.pipeline.unpublish import unpublish
from mmlora.schema import DomainVerdict
from mmlora.workspace import open_workspace
from tests.conftest import MadeUp, assume_rich, use_workspace

TRAINED, LAST = date(2001, 4, 4), date(2001, 4, 9)
FIRST = LAST - timedelta(days=3)
PLAIN: dict[str, Any] = {"features": "ids", "adaptation": "none", "refit": False, "crosses": False}


@pytest.fixture(scope="module")
def with_a_champion(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    home = tmp_path_factory.mktemp("backfill") / "var"
    shutil.copytree(imported, home)
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        version = train(TRAINED, **PLAIN).model_version
        assume_rich(FIRST - timedelta(days=3), LAST + timedelta(days=1))
    return home, str(version)


@pytest.fixture
def champion(with_a_champion: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    use_workspace(monkeypatch, tmp_path / "var")
    shutil.copytree(with_a_champion[0], tmp_path / "var")
    return with_a_champion[1]


def _states(**options: Any) -> dict[date, str]:
    plan = backfill("news", FIRST, LAST, plan_only=True, **options).plan
    return {night.score_date: night.state for night in plan}


def _hash(day: date, domain: str = "news") -> str:
    with open_workspace().open_warehouse() as warehouse:
        publication = warehouse.publication(domain, day)
        assert publication is not None
        return str(warehouse.load(publication.load_id).content_hash)


def _import_late_row(made_up: MadeUp, folder: Path, day: date, **options: Any) -> None:
    """Import a row of an earlier day again, of another user: it is known from now on."""
    table = pq.read_table(made_up.interactions)
    late = table.slice(0, 1)
    moment = pa.array([day], pa.date32()).cast(table.schema.field("event_timestamp").type)
    user = pa.array([table["user_id"][5].as_py()], table.schema.field("user_id").type)
    for name, values in (("event_timestamp", moment), ("user_id", user)):
        late = late.set_column(late.schema.get_field_index(name), name, values)
    pq.write_table(late, folder / "late.parquet")
    import_tables(folder / "late.parquet", **options)


def test_a_plan_distinguishes_missing_stale_failed_and_current(
    champion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, last = (FIRST + timedelta(days=n) for n in range(4))
    score_and_publish(first, domain="news")
    score_and_publish(second, domain="news", top_k=2)
    with monkeypatch.context() as broken:
        broken.setenv("MMLORA_CANDIDATES__USERS", "/nowhere.parquet")
        score_and_publish(third, domain="news")
    states = _states()
    assert states == {first: "current", second: "stale", third: "failed", last: "missing"}
    for state in ("missing", "stale", "failed"):
        assert _states(state=state) == {day: own for day, own in states.items() if own == state}
    plan = {night.score_date: night for night in backfill("news", FIRST, LAST, plan_only=True).plan}
    assert plan[second].reason == "published with top_k 2"
    assert "nowhere.parquet" in plan[third].reason
    assert plan[first].action == "keep" and plan[last].action == "score"
    assert (plan[last].rows or 0) > 0 and (plan[last].seconds or 0) > 0, "as the published loads took"


def test_a_state_leaves_the_other_nights_alone(champion: str) -> None:
    score_and_publish(FIRST, domain="news", top_k=2)
    before = _hash(FIRST)
    done = backfill("news", FIRST, LAST, state="missing")
    assert [load.score_date for load in done.loads] == [FIRST + timedelta(days=n) for n in (1, 2, 3)]
    assert _hash(FIRST) == before
    done = backfill("news", FIRST, LAST, state="stale")
    assert [load.score_date for load in done.loads] == [FIRST] and _hash(FIRST) != before


def test_domains_are_filled_in_parallel_and_others_are_unchanged(champion: str) -> None:
    score_and_publish(LAST, domain="sport")
    before = _hash(LAST, "sport")
    alone = backfill("news", FIRST, FIRST)
    expected = _hash(FIRST)
    unpublish("news", FIRST, reason="again")
    done = backfill(["news", "rare"], FIRST, FIRST, jobs=2)
    assert [(load.domain_id, load.state) for load in done.loads] == [
        ("news", "published"),
        ("rare", "published"),
    ]
    assert _hash(FIRST) == expected and len(alone.loads) == 1
    assert _hash(LAST, "sport") == before
    with open_workspace().open_warehouse() as warehouse:
        assert {(p.domain_id, p.score_date) for p in warehouse.publications()} == {
            ("sport", LAST),
            ("news", FIRST),
            ("rare", FIRST),
        }
    plan = backfill(None, FIRST, FIRST, plan_only=True).plan
    assert {night.domain_id: night.state for night in plan} == {
        "news": "current",
        "rare": "current",
        "sport": "missing",
    }


def test_a_model_in_force_at_the_time_scores_the_night(champion: str) -> None:
    newer = str(train(TRAINED, **PLAIN, seed=9).model_version)
    promote(newer, why="better", accept_below_baseline=True, accept_worse=True)
    at_the_time = backfill("news", FIRST, LAST, model="champion-at-the-time", plan_only=True).plan
    assert {night.reason for night in at_the_time} == {"there was no champion at the time"}
    now, old = (backfill("news", LAST, LAST, model=m).loads[0] for m in ("champion", champion))
    assert (now.model_version, old.model_version) == (newer, champion)
    assert _states()[LAST] == "stale"


def test_late_rows_change_scores_only_on_request(champion: str, made_up: MadeUp, tmp_path: Path) -> None:
    train(TRAINED, **{**PLAIN, "features": "all"}, accept_below_baseline=True)
    backfill("news", FIRST, LAST)
    before = {day: _hash(day) for day in _states()}
    _import_late_row(made_up, tmp_path, FIRST + timedelta(days=1))
    assert set(_states().values()) == {"current"}
    late = status().late
    assert late is not None and (late.nights, late.rows) == (2, 1)
    assert (late.first, late.last) == (LAST - timedelta(days=1), LAST)
    assert late.command.startswith(f"mmlora backfill --all-domains --start {late.first} --end {late.last} ")
    for state in ("all", "late"):
        states = _states(known_as_of="now", state=state)
        assert {day for day, state in states.items() if state == "stale"} == {LAST - timedelta(days=1), LAST}
    assert set(states.values()) == {"stale"}
    backfill("news", FIRST, LAST, model=champion, top_k=3)
    backfill("news", FIRST, LAST)
    assert {day: _hash(day) for day in before} == before, "as known at the time"
    done = backfill("news", FIRST, LAST, state="stale", known_as_of="now")
    assert [load.score_date for load in done.loads] == [LAST, LAST - timedelta(days=1)], "newest first"
    for load in done.loads:
        moved = compare("news", on=load.score_date, against=load.score_date)
        assert moved.rows.top_10_changed == 0.0, "compared with itself"
        assert load.top_10_changed is not None and 0.0 < load.top_10_changed <= 1.0
        assert load.mean_score_change == 0.0, "the late row only removed a candidate"
    assert status().late is None, "both know the late row by now"
    assert set(_states(known_as_of="now").values()) == {"current"}
    assert [state for state in _states().values()].count("stale") == 2


def test_nights_that_late_rows_change_are_restated_by_the_model_that_published_them(
    champion: str, made_up: MadeUp, tmp_path: Path
) -> None:
    backfill("news", FIRST, LAST)
    before = {day: _hash(day) for day in _states()}
    newer = str(train(TRAINED, **PLAIN, seed=9).model_version)
    promote(newer, accept_below_baseline=True, accept_worse=True)
    _import_late_row(made_up, tmp_path, LAST - timedelta(days=1))
    assert set(_states().values()) == {"stale"}, "another model is the champion now"
    done = backfill("news", FIRST, LAST, state="late", known_as_of="now")
    assert [(load.score_date, load.model_version) for load in done.loads] == [(LAST, champion)]
    changed = {day for day, content in before.items() if content != _hash(day)}
    assert changed <= {LAST}
    for options in ({"state": "late"}, {"state": "late", "known_as_of": "now", "model": champion}):
        with pytest.raises(UsageError, match="give --known-as-of now, and no --model"):
            _states(**options)


def test_data_that_counts_as_known_then_makes_a_night_stale(
    champion: str, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader_of_all = str(
        train(TRAINED, **{**PLAIN, "features": "all"}, accept_below_baseline=True).model_version
    )
    second, third, last = (FIRST + timedelta(days=n) for n in (1, 2, 3))
    backfill("news", FIRST, third)
    backfill("news", last, last, model=reader_of_all)
    assert set(_states().values()) == {"current", "stale"} and _states(model=reader_of_all)[last] == "current"
    _import_late_row(made_up, tmp_path, second, history=True)
    stale = {night.score_date: night.reason for night in backfill("news", FIRST, third, plan_only=True).plan}
    why = "1 interactions that count as known then were imported since"
    assert stale == {FIRST: "", second: "", third: why}
    backfill("news", third, third, state="stale")
    erase([pq.read_table(made_up.interactions)["user_id"][0].as_py()], reason="what is gone is no change")
    assert _states()[third] == "current"

    monkeypatch.setenv("MMLORA_FEATURES__PRIOR_WEIGHT", "30")
    (night,) = backfill("news", last, last, model=reader_of_all, plan_only=True).plan
    assert night.reason == "settings or queries of computed features have changed"
    assert _states()[third] == "current", "its model reads ids alone"


def test_a_saved_plan_is_executed_unchanged_or_refused(champion: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan = backfill("news", FIRST, LAST, plan_only=True, state="missing")
    save_plan(plan, file)
    score_and_publish(LAST, domain="news")
    with pytest.raises(UsageError, match=r"news 2001-04-09: was missing score .* is not in the plan now"):
        apply_plan(file)
    save_plan(backfill("news", FIRST, LAST, plan_only=True, state="missing"), file)
    done = apply_plan(file)
    assert [load.score_date for load in done.loads] == [FIRST + timedelta(days=n) for n in range(3)]
    file.write_text(json.dumps({"format": 0}))
    with pytest.raises(UsageError, match="is not a saved plan"):
        apply_plan(file)


def test_a_check_is_overridden_in_every_night_with_a_reason(
    champion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_CHECKS__RULES", '{"near_constant": {"threshold": 1000}}')
    done = backfill("news", FIRST, LAST)
    assert {load.state for load in done.loads} == {"rejected"}
    assert "--override near_constant --reason TEXT" in (done.loads[0].reason or "")
    with pytest.raises(UsageError, match="--override needs --reason"):
        backfill("news", FIRST, LAST, override=["near_constant"])
    done = backfill("news", FIRST, LAST, override=["near_constant"], reason="a flat model is fine")
    assert {load.state for load in done.loads} == {"published"}
    with open_workspace().open_warehouse() as warehouse:
        entries = [entry for entry in warehouse.ledger(domain="news") if entry.action == "override"]
    assert len(entries) == len(done.loads)
    assert "a flat model is fine" in entries[0].why


def test_a_plan_scores_a_broken_domain_whose_check_is_overridden(champion: str) -> None:
    check = rules_in_force({})["volume_low"].outcome(0.1, "few rows")
    verdict = DomainVerdict(
        "news", LAST, "broken", 10, 1, 1, 1, 1.0, 0.1, "few", reasons=("few rows",), checks=(check,)
    )
    with open_workspace().open_warehouse() as warehouse:
        warehouse.record_verdicts([verdict])
    (refused,) = backfill("news", LAST, LAST, plan_only=True).plan
    assert (refused.action, refused.reason) == ("refuse", "broken: few rows")
    why = {"override": ["volume_low"], "reason": "a holiday"}
    (night,) = backfill("news", LAST, LAST, plan_only=True, **why).plan
    assert night.action == "score"


def test_max_rows_limits_the_plan(champion: str) -> None:
    rows = score_and_publish(FIRST, domain="news").loads[0].rows or 0
    plan = backfill("news", FIRST, LAST, max_rows=2 * rows, plan_only=True).plan
    assert [night.action for night in plan] == ["keep", "score", "score"]


def test_a_thousand_days_are_planned_without_validation(champion: str) -> None:
    plan = backfill("news", LAST - timedelta(days=999), LAST, plan_only=True).plan
    assert [night.action for night in plan].count("score") == 39, "the days with a day of data before"
    assert {night.action for night in plan} == {"refuse", "score"} and len(plan) == 1000
    with open_workspace().open_warehouse() as warehouse:
        assert warehouse.verdicts(LAST - timedelta(days=20)) == []
