"""The results of the cells of a real run, and the phases that they share."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmlora import metrics
from mmlora.runs.training_run import spec_from
from mmlora.settings import TrainingSettings
from mmlora.training.controls import OneDomain
from mmlora.training.dataset import TrainingSet
from mmlora.training.loop import TrainingOptions
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import train_backbone

pytestmark = pytest.mark.timeout(900)  # processes that each import torch, on a machine that may be busy


def test_every_distinct_cell_has_a_complete_result(tiny: Any) -> None:
    # 11 arms; the cells of the second grid with one expert and the gate `domain` are in the first grid, too.
    # New: moe_mlora with (1, sample), (2, domain), (2, sample), and uniform_gate with 2.
    assert tiny.outcome["cells"] == tiny.outcome["ran"] == len(tiny.results()) == 15
    for result in tiny.results():
        assert set(result) >= {
            *("cell", "data_key", "cell_key", "test", "by_domain", "validation_wauc", "phases", "helped"),
            *("parameters", "seconds", "gate_weights", "best_reachable", "code_version", "mlflow_run_id"),
            "training_revision",
        }
        label, scores = tiny.array(result, "label"), tiny.scores(result)
        assert scores.dtype == np.float32 and scores.shape == label.shape == tiny.array(result, "user").shape
        assert result["mlflow_run_id"]


def test_metrics_are_of_the_scores_by_true_domain(tiny: Any) -> None:
    for result in tiny.results():
        label, domain = tiny.array(result, "label"), tiny.array(result, "domain")
        wauc = metrics.wauc(label, tiny.scores(result), domain)
        assert result["test"]["wauc"] == pytest.approx(wauc, abs=1e-4)
        names = json.loads((tiny.folder / "data" / result["data_key"] / "domains.json").read_text())
        own = [result["by_domain"][each["name"]]["rows"] for each in names["domains"]]
        assert own == np.bincount(domain).tolist() == [each["test_rows"] for each in names["domains"]]


def test_arms_share_their_backbone_and_experts(tiny: Any) -> None:
    sharing = ("pooled_domain", "mlora", "moe_mlora", "uniform_gate", "random_gate", "placebo_moe_mlora")
    assert len({tiny.result(arm)["parts"]["backbone"] for arm in sharing}) == 1
    assert tiny.result("pooled")["parts"]["backbone"] != tiny.result("mlora")["parts"]["backbone"]

    one, two = tiny.result("moe_mlora", 1)["parts"], tiny.result("moe_mlora", 2)["parts"]
    assert tiny.result("mlora")["parts"]["experts"] == one["experts"] == two["experts"][::2]
    assert tiny.result("uniform_gate", 2)["parts"]["experts"] == two["experts"]
    assert tiny.result("moe_mlora", 1, "sample")["parts"]["gate"] != one["gate"]


def test_placebo_experts_are_trained_on_other_rows(tiny: Any) -> None:
    placebo, own = (tiny.result(arm)["parts"]["experts"] for arm in ("placebo_mlora", "mlora"))
    trained = [phase["helped"] for phase in tiny.result("placebo_mlora")["phases"]]
    assert len(placebo) == len(own) == 3
    assert any(trained) and set(placebo) != set(own)


def test_separate_models_use_the_batch_size_of_experts(tiny: Any) -> None:
    from mmlora.experiments.data import shared_home, workspace_at

    result, shared = tiny.result("separate"), shared_home(tiny.folder)
    (manifest,) = shared.glob("data-*/training_sets/*/manifest.json")
    data, settings = TrainingSet.open(manifest.parent), result["settings"]
    spec = replace(spec_from(TrainingSettings(**{**settings, "adaptation": "none"}), data), rank=1, alpha=1.0)
    names = ("learning_rate", "weight_decay", "max_epochs", "patience", "seed")
    part = workspace_at(shared).parts.tensors(result["parts"]["backbone"][0])
    same = {}
    for size in (64, settings["batch_size"]):
        options = TrainingOptions(**{name: settings[name] for name in names}, batch_size=size, threads=1)
        state = train_backbone(spec, OneDomain(data, 0), options, SilentObserver()).state
        same[size] = all(np.allclose(state[name], part[name], atol=1e-6) for name in part)
    assert same == {64: True, 128: False}


def test_untrained_gates_have_uniform_or_random_weights(tiny: Any) -> None:
    uniform = tiny.result("uniform_gate", 2)["gate_weights"]
    assert np.allclose(list(uniform["rows"].values()), 1 / 6)
    assert [(expert["domain"], expert["slot"]) for expert in uniform["experts"]][:3] == [
        ("d0", 0),
        ("d0", 1),
        ("d1", 0),
    ]
    drawn = np.array(list(tiny.result("random_gate")["gate_weights"]["rows"].values()))
    assert np.allclose(drawn.sum(1), 1) and drawn.std() > 0.05
    assert not any(phase["phase"] == "gate" for phase in tiny.result("random_gate")["phases"])


def test_no_arm_beats_the_true_probability(tiny: Any) -> None:
    best = {result["best_reachable"]["wauc"] for result in tiny.results()}
    assert len(best) == 1
    assert (reachable := best.pop()) > 0.7
    assert all(result["test"]["wauc"] < reachable + 0.02 for result in tiny.results())


def test_matched_mlora_has_the_budget_of_moe_mlora(tiny: Any) -> None:
    gate = next(phase for phase in tiny.result("moe_mlora", 1)["phases"] if phase["phase"] == "gate")
    phases = tiny.result("mlora_matched")["phases"]
    further = [phase for phase in phases if phase["phase"] == "expert"][3:]
    assert [phase["epochs"] for phase in further] == [gate["epochs"]] * 3
    for start, after in zip(phases[1:4], further, strict=True):
        assert after["start_metric"] == pytest.approx(start["best_metric"], abs=1e-6)
        assert after["best_metric"] >= after["start_metric"]


def test_each_cell_is_tracked_in_mlflow(tiny: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tiny.home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.info.run_id: run.data for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {result["mlflow_run_id"] for result in tiny.results()}
    result = tiny.result("mlora")
    data = runs[result["mlflow_run_id"]]
    assert data.metrics["test/wauc"] == pytest.approx(result["test"]["wauc"])
    assert (data.params["arm"], data.params["rank"]) == ("mlora", "2")


def test_parameters_and_costs(tiny: Any) -> None:
    pooled, one, two = (
        tiny.result(arm, experts)
        for arm, experts in (("pooled_domain", 0), ("moe_mlora", 1), ("moe_mlora", 2))
    )
    assert pooled["parameters"]["experts"] == pooled["parameters"]["gate"] == 0
    assert two["parameters"]["experts"] == 2 * one["parameters"]["experts"] > 0
    assert one["parameters"]["gate"] == 3 * 3
    assert tiny.result("separate")["parameters"]["backbone"] == 3 * pooled["parameters"]["backbone"]
    # A shared phase counts in full for every arm that uses it.
    assert one["seconds"]["backbone"] == pooled["seconds"]["backbone"] > 0


def test_the_report_is_written(
    tiny: Any, run_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_HOME", str(tiny.home))
    done = run_cli("report", tiny.file, "--output", tmp_path / "pages")
    assert done.exit_code == 0, done.output
    assert "moe_mlora" in (tmp_path / "pages" / "report.md").read_text()
