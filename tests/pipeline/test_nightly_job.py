"""The whole flow on a made-up workspace, through the verbs that the command line and Airflow call."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from mmlora.errors import CheckError, ContractError, UsageError
from mmlora.nights.domains import scoring_domains
from mmlora.nights.load import score
from mmlora.pipeline.backfill import backfill
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import status
from mmlora.pipeline.train import train
from mmlora.pipeline.validate import validate
from mmlora.workspace import open_workspace
from tests.conftest import published

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


def test_the_nightly_job_publishes_what_ranking_reads(workspace_on_each_warehouse: Path) -> None:
    verdicts = validate(BEFORE).verdicts
    assert verdicts == {"news": "rich", "rare": "thin", "sport": "rich"}

    trained = train(BEFORE).to_json()
    assert [row["phase"] for row in trained["phases"]] == [
        *("crosses", "backbone", "expert", "expert", "gate")
    ]
    assert {row["domain"] for row in trained["phases"]} == {"all", "news", "sport"}
    assert trained["alias"] == "champion"
    assert train(BEFORE).model_version == trained["model_version"], "a rerun finds its finished steps"

    result = score_and_publish(ON)
    assert {row.domain_id: row.state for row in result.loads} == dict.fromkeys(
        ("news", "rare", "sport"), "published"
    )
    rows = published()
    assert {row["position"] for row in rows} == {1, 2, 3, 4, 5}
    assert {row["model_version"] for row in rows} == {trained["model_version"]}
    by_user: dict[str, list[float]] = {}
    for row in rows:
        by_user.setdefault(row["user_id"], []).append(row["score"])
    assert all(scores == sorted(scores, reverse=True) for scores in by_user.values())

    again = score_and_publish(ON, domain="news").loads[0]
    with open_workspace().open_warehouse() as warehouse:
        last, *_, first = warehouse.loads(domain="news")
    assert last.same_rows_as(first)
    assert status().numerics == first.numerics
    assert published() == [
        {**row, "load_id": again.load_id, "published_at": new["published_at"]}
        for row, new in zip(rows, published(), strict=True)
    ], "a rerun is a new load with the same rows"


def test_a_broken_domain_is_left_out_and_the_others_are_scored(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_CHECKS__CTR_MAX", "0.30")  # sport clicks more than that
    assert validate(BEFORE).verdicts["sport"] == "broken"
    trained = train(BEFORE, features="ids").to_json()
    validate(ON)
    assert {row["domain"] for row in trained["test"]} == {"news", "rare", "all (wauc)"}
    assert scoring_domains(ON) == ["news", "rare"]
    with pytest.raises(CheckError, match="sport"):
        score(ON, "sport")
    result = score_and_publish(ON)
    assert [row.state for row in result.loads] == ["published", "published"]
    assert [row.domain_id for row in result.skipped] == ["sport"]


def test_a_model_keeps_using_the_features_it_was_trained_on(made_up_workspace: Path) -> None:
    own = made_up_workspace / "feature_repo"
    own.mkdir()
    text = (
        "from feast import FeatureView, Field, FileSource\n"
        "from feast.types import Int64\n"
        "def views(offline, entities):\n"
        "    source = FileSource(name='NAME', path=str(offline / 'profiles' / 'user'),\n"
        "        timestamp_field='event_timestamp', created_timestamp_column='created_timestamp')\n"
        "    return [FeatureView(name='NAME', entities=[entities['user']], source=source, online=False,\n"
        "        schema=[Field(name='age', dtype=Int64)], tags={'mmlora': 'profile'})]\n"
    )
    (own / "first.py").write_text(text.replace("NAME", "first"))
    open_workspace().feature_repo.apply()
    train(BEFORE, features="profiles", adaptation="none")
    (own / "more.py").write_text(text.replace("NAME", "more"))
    open_workspace().feature_repo.apply()
    score(ON, "news")  # what was added waits for the next training
    (own / "first.py").write_text(text.replace("NAME", "first").replace("Int64", "Float64"))
    open_workspace().feature_repo.apply()
    with pytest.raises(ContractError, match=r"gone or of another type \(first__age\)"):
        score(ON, "news")
    (own / "first.py").unlink()
    open_workspace().feature_repo.apply()
    with pytest.raises(ContractError, match="first__age"):
        score(ON, "news")
    with open_workspace().open_warehouse() as warehouse:
        assert len(warehouse.loads()) == 1, "nothing was begun"


def test_backfill_resumes(trained_workspace: Path) -> None:
    start = ON - timedelta(days=2)
    backfill("news", start, start)
    plan = backfill("news", start, ON, plan_only=True).plan
    assert [row.action for row in plan] == ["keep", "score", "score"]
    loads = backfill("news", start, ON).loads
    assert [row.score_date for row in loads] == [ON - timedelta(days=1), ON]
    assert all(row.state == "published" for row in loads)
    with pytest.raises(UsageError, match="earlier date first"):
        backfill("news", ON, start)


@pytest.mark.slow
def test_scores_do_not_depend_on_later_data(made_up_workspace: Path) -> None:
    train(BEFORE, adaptation="none")
    score_and_publish(BEFORE, domain="news")
    early = published(on=BEFORE)
    train(ON, adaptation="none")  # builds features up to the later date
    score_and_publish(BEFORE, domain="news")
    late = published(on=BEFORE)
    assert [(row["user_id"], row["item_id"], row["score"]) for row in late] == [
        (row["user_id"], row["item_id"], row["score"]) for row in early
    ]
