"""The backbone ``gbdt`` in the flow: trained, judged, refitted, registered, and scored like any other."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmlora.errors import UsageError
from mmlora.models.trees.model import TreeModel
from mmlora.pipeline.explain import explain
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.train import train
from mmlora.runs.steps import prepare
from mmlora.runs.training_run import data_of, open_run, options_of, spec_of
from mmlora.runs.tuning import tune
from mmlora.training import boosting, refusals
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import train_backbone
from mmlora.workspace import open_workspace
from tests.conftest import published

pytest.importorskip("lightgbm")

AS_OF = date(2001, 4, 8)
TREES: dict[str, Any] = {"backbone": "gbdt", "adaptation": "none", "features": "profiles"}


def test_trees_are_judged_refitted_and_score_a_night(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(AS_OF, **TREES).to_json()
    assert trained["alias"] == "champion"
    (phase,) = trained["phases"]
    assert (phase["phase"], phase["metric"]) == ("backbone", "logloss")
    model = next(row for row in trained["judgement"]["contenders"] if row["name"] == "model")
    assert model["wauc"] == pytest.approx(trained["metrics"]["backbone"]["wauc"])
    workspace, run = open_run(trained["run_id"])
    judged, final = run.result("backbone"), run.folder / "final" / "backbone.json"
    assert judged is not None and final.exists(), "and trained on all rows"
    manifest = workspace.bundles.load(trained["model_version"]).manifest
    assert manifest.spec["backbone"] == "gbdt" and not manifest.spec["crosses"]
    assert manifest.backbone != judged["part"] and manifest.gate is None
    assert isinstance(workspace.bundles.load(trained["model_version"]).model(), TreeModel)

    monkeypatch.setenv("MMLORA_SCORING__TOP_K", "0")
    for memory, threads in (("1", "1"), ("128", "2")):
        monkeypatch.setenv("MMLORA_SCORING__MEMORY_MB", memory)
        monkeypatch.setenv("MMLORA_TRAINING__THREADS", threads)
        (load,) = score_and_publish(AS_OF + timedelta(days=1), domain="news").loads
        assert load.state == "published"
    with open_workspace().open_warehouse() as warehouse:
        last, first = warehouse.loads(domain="news")
    assert last.same_rows_as(first), "whatever its chunks and threads"

    row = published("news")[0]
    explained = explain("news", row["user_id"], str(row["item_id"]))
    assert {part.kind for part in explained.parts} == {"trees"} and explained.gate == {}
    assert "user_profile__age" in {part.name for part in explained.parts}
    assert explained.score == pytest.approx(row["score"], abs=1e-6)


def test_trees_are_the_same_for_any_number_of_threads(made_up_workspace: Path) -> None:
    run = open_run(prepare(AS_OF, **TREES))
    spec, data, options = spec_of(*run), data_of(*run), options_of(*run)
    states = [
        train_backbone(spec, data, replace(options, threads=threads), SilentObserver(), epochs=5).state
        for threads in (1, 2)
    ]
    for name, tensor in states[0].items():
        assert np.array_equal(tensor.numpy(), states[1][name].numpy()), name


def test_only_min_count_of_trees_is_tuned(made_up_workspace: Path) -> None:
    own = prepare(AS_OF, **TREES)
    told = open_run(tune(own, tune_minutes=60))[1].result("tuning")
    assert told is not None
    assert {name for trial in told["trials"] for name in trial["settings"]} == {"min_count"}


def test_trees_with_experts_are_refused_at_once(made_up_workspace: Path) -> None:
    with pytest.raises(UsageError, match=r"trees, which experts can't adapt.*moe_mlora.*adaptation none"):
        train(AS_OF, backbone="gbdt")
    assert not (made_up_workspace / "training_sets").exists()


def test_trees_without_lightgbm_say_what_to_install(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "installed", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'mmlora\[baselines\]'"):
        train(AS_OF, **TREES)


def test_rows_beyond_the_memory_limit_are_sampled_with_a_note(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boosting, "MOST_CELLS", 20_000)
    trained = train(AS_OF, phase="backbone", **TREES).to_json()
    workspace, run = open_run(trained["run_id"])
    report, total = (run.result("backbone") or {})["report"], len(data_of(workspace, run).rows("train"))
    assert report["rows"] < total
    assert report["note"] == f"trained on a sample of {report['rows']:,} of {total:,} rows"
