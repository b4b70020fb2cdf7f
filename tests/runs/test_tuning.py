"""Tuning in the flow: trials on validation rows, the best trained in full, and all of it found again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmlora.errors import UsageError
from mmlora.pipeline.train import train
from mmlora.runs import tuning
from mmlora.runs.steps import prepare
from mmlora.runs.training_run import data_of, open_run
from mmlora.runs.tuning import tune
from mmlora.training import search
from mmlora.workspace import open_workspace
from tests.conftest import MadeUp

AS_OF = date(2001, 4, 8)
PLAIN: dict[str, Any] = {"features": "ids", "adaptation": "none", "crosses": False, "refit": False}
WEAK: dict[str, Any] = {**PLAIN, "learning_rate": 1e-3}
"""Settings that a higher learning rate beats."""
LONG = 60.0


@pytest.fixture(autouse=True)
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A climb over one setting, for time's sake."""
    monkeypatch.setattr(tuning, "TUNED", ("learning_rate",))


def _tuned(run_id: str) -> dict[str, Any]:
    result = open_run(run_id)[1].result("tuning")
    assert result is not None
    return result


def test_what_was_changed_and_gained_is_said_and_kept(made_up_workspace: Path) -> None:
    from mlflow import MlflowClient

    own = prepare(AS_OF, **WEAK)
    trained = train(AS_OF, tune_minutes=LONG, **WEAK).to_json()
    told = trained["tuning"]
    first, *others = told["trials"]
    assert (told["own_run"], first["run_id"], first["settings"]) == (own, own, {})
    assert len({trial["run_id"] for trial in told["trials"]}) == len(told["trials"]), "none is repeated"
    step = told["steps"][0]
    assert (step["setting"], step["before"]) == ("learning_rate", 1e-3)
    assert step["metric_before"] == first["wauc"] < step["metric_after"] <= told["best_wauc"]
    assert told["best_wauc"] > max(trial["wauc"] for trial in told["trials"]) - search.LEAST_GAIN
    assert (
        f"learning_rate 0.001 -> {step['after']:g}: validation wauc {first['wauc']:.4f} -> "
        in told["sentence"]
    )

    (best,) = (trial for trial in others if trial["run_id"] == trained["run_id"])
    assert best["wauc"] == told["best_wauc"]
    workspace, run = open_run(trained["run_id"])
    assert run.config.settings.learning_rate == best["settings"]["learning_rate"]
    manifest = workspace.bundles.load(trained["model_version"]).manifest
    assert manifest.tuning == json.loads(json.dumps(told))
    assert replace(manifest, tuning=None).model_version == trained["model_version"]
    client = MlflowClient(tracking_uri=workspace.mlflow_url)
    (tracked,) = client.search_runs([client.get_experiment_by_name("mmlora").experiment_id])
    assert tracked.data.tags["tuning"] == told["sentence"]
    history = client.get_metric_history(tracked.info.run_id, "tune/wauc")
    assert [point.value for point in history] == [trial["wauc"] for trial in told["trials"]]


def test_a_rerun_finds_every_trial(made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = prepare(AS_OF, **WEAK)
    best = tune(own, tune_minutes=LONG)

    def trained_again(*_: Any, **__: Any) -> None:
        raise AssertionError("a trial was trained again")

    monkeypatch.setattr(tuning, "train_backbone", trained_again)
    told = _tuned(best)
    assert tune(own, tune_minutes=LONG) == best
    assert _tuned(best) == told


@pytest.mark.slow
def test_test_rows_decide_nothing(made_up_workspace: Path) -> None:
    own = prepare(AS_OF, **WEAK)
    data = data_of(*open_run(own))
    label = np.load(data.path / "label.npy", mmap_mode="r+")
    label[data.rows("test")] = 77  # no label at all
    label.flush()
    spoilt = _tuned(tune(own, tune_minutes=LONG))
    label[data.rows("test")] = 0
    label.flush()
    for run in (open_workspace().home / "runs").iterdir():  # trained again, from the same seed
        (run / "validation.json").unlink(missing_ok=True)
        for file in (open_workspace().home / "runs" / "steps").glob("*.json"):
            file.unlink()
        if run.name != "steps":
            (run / "backbone.json").unlink(missing_ok=True)
    told = _tuned(tune(own, tune_minutes=LONG))
    assert [trial["wauc"] for trial in told["trials"]] == [trial["wauc"] for trial in spoilt["trials"]]


@pytest.mark.slow
def test_trials_of_experts_share_the_backbone(
    made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "TUNED", ("rank",))
    own = prepare(AS_OF, features="ids", adaptation="mlora", crosses=False)
    told = _tuned(tune(own, tune_minutes=LONG))
    ranks = [trial for trial in told["trials"] if set(trial["settings"]) == {"rank"}]
    parts = {open_run(trial["run_id"])[1].result("backbone")["part"] for trial in (told["trials"][0], *ranks)}
    assert ranks and len(parts) == 1


def test_the_budget_stops_a_trial_but_never_the_first(made_up_workspace: Path) -> None:
    own = prepare(AS_OF, **WEAK)
    assert tune(own, tune_minutes=1e-6) == own
    told = _tuned(own)
    assert [trial["settings"] for trial in told["trials"]] == [{}]
    assert told["sentence"].startswith("your own settings are kept") and "the time was up" in told["sentence"]

    # Time for the first trial, and a moment of the second.
    assert tune(own, tune_minutes=(told["trials"][0]["seconds"] + 0.01) / 60) == own
    stopped = _trials_left_undone()
    assert len(stopped) == 1
    assert tune(own, tune_minutes=LONG) != own
    assert not _trials_left_undone(), "with more time it is gone on with"


def _trials_left_undone() -> list[Path]:
    files = (open_workspace().home / "runs").glob("*/validation.json")
    return [file for file in files if json.loads(file.read_text())["wauc"] is None]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tune_minutes": 0}, "give more than 0"),
        ({"tune_minutes": 5, "phase": "backbone"}, "only a whole model is tuned"),
        ({"tune_minutes": 5, "phase": "experts", "base": "champion", "domain": "news"}, "only a whole model"),
    ],
)
def test_what_cannot_be_tuned_is_refused_at_once(
    made_up: MadeUp, made_up_workspace: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(AS_OF, **asked)
    assert not (made_up_workspace / "runs").exists()
