"""The whole flow on a made-up workspace, through the verbs that the command line and Airflow call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import CheckError, ContractError, DataError, UsageError
from mmlora.nights.load import score, scoring_domains
from mmlora.pipeline.backfill import backfill
from mmlora.pipeline.promote import promote, rollback
from mmlora.pipeline.publish import publish
from mmlora.pipeline.read import read_scores
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import status
from mmlora.pipeline.train import train
from mmlora.pipeline.validate import validate
from mmlora.runs.registering import register
from mmlora.workspace import open_workspace

ON = date(2001, 4, 9)
BEFORE = ON - timedelta(days=1)


@pytest.fixture(params=["sqlite", "postgres"])
def workspace(
    request: pytest.FixtureRequest, made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The made-up workspace, on both warehouses."""
    if request.param == "postgres":
        monkeypatch.setenv("MMLORA_WAREHOUSE_URL", request.getfixturevalue("postgres_url"))
    return made_up_workspace


def _published(domain: str = "news", on: date | None = None) -> list[dict[str, Any]]:
    with read_scores(domain, on=on) as reader:
        return list(reader.read_all().to_pylist())


def test_the_nightly_job_publishes_what_ranking_reads(workspace: Path) -> None:
    verdicts = validate(BEFORE)["verdicts"]
    assert verdicts == {"news": "rich", "rare": "thin", "sport": "rich"}

    trained = train(BEFORE)
    assert [row["phase"] for row in trained["phases"]] == [
        *("crosses", "backbone", "expert", "expert", "gate")
    ]
    assert {row["domain"] for row in trained["phases"]} == {"all", "news", "sport"}
    assert trained["alias"] == "champion"
    assert train(BEFORE)["model_version"] == trained["model_version"], "a rerun finds its finished steps"

    result = score_and_publish(ON)
    assert {row.domain_id: row.state for row in result.loads} == dict.fromkeys(
        ("news", "rare", "sport"), "published"
    )
    rows = _published()
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
    assert status()["numerics"] == asdict(first.numerics)
    assert _published() == [
        {**row, "load_id": again.load_id, "published_at": new["published_at"]}
        for row, new in zip(rows, _published(), strict=True)
    ], "a rerun is a new load with the same rows"


def test_challenger_promotion_and_rollback(made_up_workspace: Path) -> None:
    first = train(BEFORE, adaptation="none", features="ids")["model_version"]
    second = train(BEFORE, adaptation="mlora", features="profiles", accept_below_baseline=True)
    assert second["alias"] == "challenger"
    accepted = promote(second["model_version"], domain="news", accept_below_baseline=True)
    assert accepted["before"] == first
    loads = score_and_publish(ON).loads
    assert {row.domain_id: row.model_version for row in loads} == {
        "news": second["model_version"],
        "rare": first,
        "sport": first,
    }
    assert rollback(domain="news")["model_version"] == first
    models = {row["model_version"]: row["alias"] for row in status()["models"]}
    assert models == {first: "champion", second["model_version"]: "challenger"}
    assert open_workspace().tracking.aliases() == {"champion": first, "challenger": second["model_version"]}


def test_a_broken_domain_is_left_out_and_the_others_go_on(made_up_workspace: Path) -> None:
    os.environ["MMLORA_CHECKS__CTR_MAX"] = "0.30"  # sport clicks more than that
    try:
        assert validate(BEFORE)["verdicts"]["sport"] == "broken"
        trained = train(BEFORE, features="ids")
        validate(ON)
        assert {row["domain"] for row in trained["test"]} == {"news", "rare", "all (wauc)"}
        assert scoring_domains(ON) == ["news", "rare"]
        with pytest.raises(CheckError, match="sport"):
            score(ON, "sport")
        result = score_and_publish(ON)
    finally:
        del os.environ["MMLORA_CHECKS__CTR_MAX"]
    assert [row.state for row in result.loads] == ["published", "published"]
    assert [row.domain_id for row in result.skipped] == ["sport"]


def test_a_model_goes_on_with_the_features_it_was_trained_on(made_up_workspace: Path) -> None:
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
    assert len(open_workspace().open_warehouse().loads()) == 1, "nothing was begun"


def test_backfill_goes_on_where_it_was(made_up_workspace: Path) -> None:
    train(BEFORE, features="ids", adaptation="none")
    start = ON - timedelta(days=2)
    backfill("news", start, start)
    plan = backfill("news", start, ON, plan_only=True).plan
    assert [row.action for row in plan] == ["keep", "score", "score"]
    loads = backfill("news", start, ON).loads
    assert [row.score_date for row in loads] == [ON - timedelta(days=1), ON]
    assert all(row.state == "published" for row in loads)
    with pytest.raises(UsageError, match="earlier date first"):
        backfill("news", ON, start)


def test_scores_do_not_depend_on_later_data(made_up_workspace: Path) -> None:
    train(BEFORE, adaptation="none")
    score_and_publish(BEFORE, domain="news")
    early = _published(on=BEFORE)
    train(ON, adaptation="none")  # builds features up to the later date
    score_and_publish(BEFORE, domain="news")
    late = _published(on=BEFORE)
    assert [(row["user_id"], row["item_id"], row["score"]) for row in late] == [
        (row["user_id"], row["item_id"], row["score"]) for row in early
    ]


def test_a_pair_table_of_ones_own(made_up_workspace: Path, tmp_path: Path) -> None:
    train(BEFORE, features="ids", adaptation="none")
    pairs = {"user_id": ["u01", "u01", "u02"], "item_id": [101, 102, 101]}
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    load = score_and_publish(ON, domain="news", pairs=str(tmp_path / "pairs.parquet")).loads[0]
    assert (load.pairs, load.rows) == (3, 3)
    found = {(row["user_id"], row["item_id"]) for row in _published()}
    assert found == {("u01", 101), ("u01", 102), ("u02", 101)}

    of_news = pa.table({**pairs, "domain_id": ["news"] * 3})
    pq.write_table(of_news, tmp_path / "of_news.parquet")
    result = score_and_publish(ON, pairs=str(tmp_path / "of_news.parquet"))
    assert [(load.domain_id, load.state) for load in result.loads] == [("news", "published")]
    assert {row.domain_id for row in result.skipped} == {"rare", "sport"}
    assert all("no rows in" in row.reason for row in result.skipped)
    load = score_and_publish(ON, domain="sport", pairs=str(tmp_path / "of_news.parquet")).loads[0]
    assert "has no rows of the domain" in load.reason
    strange = of_news.set_column(2, "domain_id", pa.array(["news", "new", "news"]))
    pq.write_table(strange, tmp_path / "strange.parquet")
    with pytest.raises(DataError, match="'new' is no domain; the domains are news, rare, sport"):
        score_and_publish(ON, pairs=str(tmp_path / "strange.parquet"))


def test_what_cannot_be_trained_is_refused(made_up_workspace: Path) -> None:
    with pytest.raises(UsageError, match="carry test labels"):
        train(BEFORE, split="random", features="all")
    with pytest.raises(UsageError, match="rank"):
        train(BEFORE, rank=64, features="ids")
    with pytest.raises(UsageError, match="go together"):
        train(BEFORE, split="file")
    assert not (made_up_workspace / "runs" / "steps").exists(), "nothing was trained"


def test_runs_share_the_steps_that_they_have_in_common(made_up_workspace: Path) -> None:
    first = train(BEFORE, features="ids", adaptation="moe_mlora")
    steps = len(list((made_up_workspace / "runs" / "steps").glob("*.json")))
    second = train(BEFORE, features="ids", adaptation="mlora")
    assert len(list((made_up_workspace / "runs" / "steps").glob("*.json"))) == steps
    assert second["phases"] == first["phases"][:-1]
    assert second["model_version"] != first["model_version"]


def test_nobody_to_score_leaves_readers_what_they_have(made_up_workspace: Path) -> None:
    train(BEFORE, features="ids", adaptation="none")
    score_and_publish(ON, domain="news")
    rows = _published()
    later = date(2002, 1, 1)  # long after the last interaction
    with pytest.raises(CheckError, match="absent"):
        score_and_publish(later, allow_stale=True)
    load = score_and_publish(later, domain="news", allow_stale=True).loads[0]
    assert (load.state, load.exit_code) == ("rejected", 1)
    assert [row["state"] for row in status()["troubles"]] == ["rejected"], "one word for it"
    assert "nobody to score" in load.reason
    assert _published() == rows
    with pytest.raises(UsageError, match="in the future"):
        score(date.today() + timedelta(days=9), "news")


def test_a_run_of_one_domains_expert_is_a_run_of_its_own(made_up_workspace: Path) -> None:
    alone = train(BEFORE, features="ids", domain="news")
    every = train(BEFORE, features="ids")
    assert [row["domain"] for row in alone["phases"]] == ["all", "all", "news", "all"]
    assert [row["domain"] for row in every["phases"]] == ["all", "all", "news", "sport", "all"]
    assert alone["model_version"] != every["model_version"]
    with pytest.raises(UsageError, match="trains no expert"):
        train(BEFORE, features="ids", domain="rare")


def test_registering_again_after_a_failure_decides_once(made_up_workspace: Path) -> None:
    trained = train(BEFORE, features="ids", adaptation="none")
    (made_up_workspace / "runs" / trained["run_id"] / "registered.json").unlink()  # killed before the end
    assert register(trained["run_id"]) == trained["model_version"]
    with open_workspace().open_warehouse() as warehouse:
        assert len(warehouse.promotions("champion")) == 1
        assert warehouse.promotions("challenger") == []


def test_a_load_lives_as_long_as_its_process(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_SCORING__HEARTBEAT_SECONDS", "0.05")
    train(BEFORE, features="ids", adaptation="none")
    silent_for = []

    def look(what: str, done: int, total: int) -> None:
        if not silent_for:
            time.sleep(0.5)  # busy with something that reports nothing
            with open_workspace().open_warehouse() as warehouse:
                silent_for.append(warehouse.stale_loads(timedelta(seconds=0.4)))

    score(ON, "news", progress=look)
    assert silent_for == [[]]


def test_killed_in_the_middle_then_again(workspace: Path) -> None:
    train(BEFORE, features="ids", adaptation="none")
    expected = _rows_after(lambda: score_and_publish(ON, domain="sport"))
    script = (
        "import os, signal\n"
        "from datetime import date\n"
        "from mmlora.nights.load import score\n"
        "def die(what, done, total):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"score(date({ON.year}, {ON.month}, {ON.day}), 'sport', progress=die)\n"
    )
    died = subprocess.run([sys.executable, "-c", script], timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    assert _key(_published("sport")) == expected, "readers still see the load before"
    assert _rows_after(lambda: score_and_publish(ON, domain="sport")) == expected


def test_killed_between_staging_and_publication(workspace: Path) -> None:
    train(BEFORE, features="ids", adaptation="none")
    load_id = score(ON, "sport")
    with pytest.raises(UsageError, match="nothing is published"):
        _published("sport")
    publish(load_id)
    rows = _published("sport")
    publish(load_id)
    assert _published("sport") == rows, "publishing again changes nothing"
    assert not (workspace / "staging" / load_id).exists()


def _rows_after(act: Any) -> list[tuple[Any, ...]]:
    assert [row.state for row in act().loads] == ["published"]
    return _key(_published("sport"))


def _key(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["user_id"], row["item_id"], row["position"], row["score"]) for row in rows]
