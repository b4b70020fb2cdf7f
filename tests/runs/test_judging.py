"""The judge in the flow: what train says, keeps and decides, and what a night repeats of it."""

from __future__ import annotations

import logging
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import CheckError, DataError, UsageError
from mmlora.nights import load as night
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.promote import promote, rollback
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import StoredModel, status
from mmlora.pipeline.train import train
from mmlora.runs import judging
from mmlora.runs.judging import judge
from mmlora.runs.registering import register
from mmlora.runs.steps import evaluate, prepare, train_backbone
from mmlora.workspace import open_workspace
from tests.conftest import MadeUp

AS_OF = date(2001, 4, 8)
PLAIN: dict[str, Any] = {"features": "ids", "adaptation": "none", "refit": False}
WEAK: dict[str, Any] = {**PLAIN, "crosses": False, "learning_rate": 1e-9, "max_epochs": 1}
"""A model that has learnt nothing."""


def _contender(judgement: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in judgement["contenders"] if row["name"] == name)


@pytest.fixture
def easy_workspace(
    made_up: MadeUp, made_up_workspace: Path, mlflow_store: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A workspace whose clicks follow the item, so that a baseline is good."""
    table = pq.read_table(made_up.interactions)
    draw = np.random.default_rng(0)
    clicked = draw.random(table.num_rows) < np.where(table["item_id"].to_numpy() % 2, 0.5, 0.1)
    place = table.schema.get_field_index("label")
    path = made_up_workspace.parent / "easy.parquet"
    pq.write_table(table.set_column(place, "label", pa.array(clicked.astype(np.int8))), path)
    home = made_up_workspace.parent / "easy"
    home.mkdir()
    shutil.copy(mlflow_store, home)
    monkeypatch.setenv("MMLORA_HOME", str(home))
    import_tables(path, users=made_up.users, items=made_up.items)
    return home


def test_train_ends_with_the_model_beside_its_baselines(made_up_workspace: Path) -> None:
    trained = train(AS_OF).to_json()
    judgement = trained["judgement"]
    assert [row["name"] for row in judgement["contenders"]] == [
        *("model", "item CTR by domain", "logistic regression", "LightGBM")
    ]
    model = _contender(judgement, "model")
    measured = trained["metrics"]["gate"]
    assert judgement["model"] == "gate"
    assert model["wauc"] == pytest.approx(measured["wauc"])
    assert model["by_domain"].keys() == measured["by_domain"].keys()
    assert model["calibration"] == pytest.approx(measured["pooled"]["calibration"])
    assert judgement["rows"] == judgement["test_rows"] == measured["pooled"]["rows"]
    assert judgement["shown"]["contenders"][0].keys() >= {"ctr_at_1", "ctr_at_5", "ndcg_at_5"}
    assert {(row["domain"], row["name"]) for row in judgement["lists"]} == {
        (domain, name) for domain in measured["by_domain"] for name in ("model", "item CTR by domain")
    }
    for row in judgement["lists"]:
        assert row["items"] == 40 and 0 < row["most_common_first"] <= 1 and 0 < row["coverage"] <= 1
    manifest = open_workspace().bundles.load(trained["model_version"]).manifest
    assert manifest.judgement.to_json() == judgement


def test_mlflow_keeps_the_judgement(made_up_workspace: Path) -> None:
    from mlflow import MlflowClient

    judgement = train(AS_OF, **PLAIN).to_json()["judgement"]
    client = MlflowClient(tracking_uri=open_workspace().mlflow_url)
    (run,) = client.search_runs([client.get_experiment_by_name("mmlora").experiment_id])
    assert (run.data.tags["verdict"], run.data.tags["judgement"]) == (
        judgement["verdict"],
        judgement["sentence"],
    )
    found = run.data.metrics
    assert found["judge/LightGBM/wauc"] == pytest.approx(_contender(judgement, "LightGBM")["wauc"])
    difference = _contender(judgement, "LightGBM")["difference"]["wauc"]
    assert found["judge/LightGBM/difference/wauc/low"] == pytest.approx(difference["low"])
    assert {"judge/model/news/auc", "judge/model/shown/ndcg_at_5"} <= set(found)
    assert "judge/model/lists/news/coverage" in found


def test_a_killed_judge_is_done_again_and_a_finished_one_is_found(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = prepare(AS_OF, **PLAIN)
    train_backbone(run_id)
    evaluate(run_id)
    with pytest.raises(UsageError, match="isn't judged yet"):
        register(run_id)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(run_id, progress=killed)
    first = judge(run_id)
    monkeypatch.setattr(judging, "compute_judgement", killed)
    assert judge(run_id) == first


def test_a_model_below_its_baseline_is_champion_only_where_there_is_none(
    easy_workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = train(AS_OF, **WEAK).to_json()
    assert first["judgement"]["verdict"] == "below"
    assert first["alias"] == "champion", "there is none yet"
    assert "the model is below its best baseline" in caplog.text

    second = train(AS_OF, **WEAK, seed=1).to_json()
    assert second["alias"] is None
    assert f"registered {second['model_version']} as neither champion nor challenger" in caplog.text
    rows = {row.model_version: row for row in status().models}
    assert rows[second["model_version"]] == StoredModel(second["model_version"], None, "below")
    again = train(AS_OF, **WEAK, seed=1).to_json()
    assert again["alias"] is None and again["model_version"] == second["model_version"]
    accepted = train(AS_OF, **WEAK, seed=1, accept_below_baseline=True).to_json()
    assert (accepted["alias"], accepted["model_version"]) == ("challenger", second["model_version"])
    with open_workspace().open_warehouse() as warehouse:
        assert warehouse.promotions("challenger")[0].why.endswith("accepted below its best baseline")


def test_promoting_a_model_below_its_baseline_takes_the_same_flag(easy_workspace: Path) -> None:
    first = train(AS_OF, **WEAK).model_version
    second = train(AS_OF, **WEAK, seed=1).model_version
    with pytest.raises(CheckError, match=r"below its best baseline.*--accept-below-baseline"):
        promote(second)
    assert promote(second, accept_below_baseline=True, why="a test").before == first
    with open_workspace().open_warehouse() as warehouse:
        assert warehouse.promotions("champion")[0].why == "a test (accepted below its best baseline)"
    assert rollback().model_version == first, "going back is never refused"


def test_each_night_says_that_its_model_is_below_its_baseline(
    easy_workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = train(AS_OF, **WEAK).to_json()
    night.warn_below_baseline.cache_clear()
    caplog.clear()
    score_and_publish(AS_OF + timedelta(days=1))
    said = [record for record in caplog.records if "is scored by" in record.message]
    assert len(said) == 1, "once a night, not once a domain"
    assert said[0].levelno == logging.WARNING
    assert trained["judgement"]["sentence"] in said[0].message
    with open_workspace().open_warehouse() as warehouse:
        kept = [load.checks and load.checks.below_baseline for load in warehouse.loads()]
    assert kept == [trained["judgement"]["sentence"]] * 3


def test_a_split_without_test_rows_judges_nothing(made_up_workspace: Path) -> None:
    trained = train(AS_OF, **PLAIN, split_fractions=(0.8, 0.2, 0.0)).to_json()
    assert trained["judgement"]["sentence"] == "the model was not compared: the split leaves no test rows"
    assert trained["alias"] == "champion"


def test_rows_that_changed_since_training_are_not_judged_on(made_up: MadeUp, made_up_workspace: Path) -> None:
    run_id = prepare(AS_OF, **PLAIN)
    train_backbone(run_id)
    evaluate(run_id)
    table = pq.read_table(made_up.interactions)
    late = table.slice(0, 50).append_column("known_at", table.slice(0, 50)["event_timestamp"])
    users = pa.array([f"u{number:02d}" for number in range(50)])
    late = late.set_column(late.schema.get_field_index("user_id"), "user_id", users)
    pq.write_table(late, made_up_workspace.parent / "late.parquet")
    import_tables(made_up_workspace.parent / "late.parquet")
    with pytest.raises(DataError, match=r"have changed since.*train again"):
        judge(run_id)
