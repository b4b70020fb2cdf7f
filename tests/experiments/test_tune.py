"""Tuning: budgets, the use of test rows, and resuming a study."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmlora.errors import DataError, UsageError
from mmlora.experiments.plan import read_experiment
from mmlora.experiments.run import explained_interrupt

pytestmark = pytest.mark.timeout(900)  # processes that each import torch, on a machine that may be busy

TUNE = """
[tune]
trials = 2
backbone = "wdl"
arm = "mlora"
[tune.space]
rank = [1, 2, 3]
expert_learning_rate = {low = 0.003, high = 0.1, log = true}
"""


@pytest.fixture(scope="module")
def home(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny experiment's workspace with its data and phases, and a file to tune on it."""
    folder = tmp_path_factory.mktemp("tune")
    shutil.copytree(tiny.home, folder / "var")
    text = tiny.file.read_text()
    data, settings = text[: text.index("[grid]")], text[text.index("[settings]") :]
    (folder / "tune.toml").write_text(data + TUNE + settings)
    return folder


@pytest.fixture
def file(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMLORA_HOME", str(home / "var"))
    monkeypatch.chdir(home)
    return home / "tune.toml"


@pytest.fixture(scope="module")
def outcome(home: Path, run_cli: Callable[..., Any]) -> Any:
    """The JSON result of tuning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMLORA_HOME", str(home / "var"))
        patch.chdir(home)
        done = run_cli("tune", home / "tune.toml", "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.slow
def test_only_the_best_and_the_untuned_are_tested(outcome: Any, tiny: Any) -> None:
    cells = {
        name: json.loads((Path(path) / "result.json").read_text())
        for name, path in outcome["test"]["cells"].items()
    }
    for name, cell in cells.items():
        assert outcome["test"][name] == cell["test"]["wauc"]
    assert cells["tuned"]["cell"]["settings"] == outcome["best"]["parameters"]
    assert cells["tuned"]["validation_wauc"] == pytest.approx(outcome["best"]["validation_wauc"])
    assert cells["untuned"]["test"] == tiny.result("mlora")["test"]  # the same cell of another file
    difference = outcome["test"]["difference"]
    assert difference["value"] == pytest.approx(
        outcome["test"]["tuned"] - outcome["test"]["untuned"], abs=1e-6
    )
    assert difference["low"] < difference["value"] < difference["high"]
    for result in Path(outcome["folder"]).glob("trials/*/result.json"):
        assert not {"test", "by_domain", "data_key"} & json.loads(result.read_text()).keys()
    assert len(list((Path(outcome["folder"]).parents[1] / "cells").iterdir())) == 2


@pytest.mark.slow
def test_trials_share_phases_and_are_tracked_in_mlflow(outcome: Any, tiny: Any, home: Path) -> None:
    from mlflow import MlflowClient

    results = [json.loads(path.read_text()) for path in Path(outcome["folder"]).glob("trials/*/result.json")]
    backbones = {result["parts"]["backbone"] for result in results}
    assert backbones == {tiny.result("mlora")["parts"]["backbone"]}
    client = MlflowClient(f"sqlite:///{home / 'var' / 'mlflow.db'}")
    for trial in outcome["trials"]:
        run = client.get_run(trial["mlflow_run_id"])
        assert run.data.metrics["validation/wauc"] == pytest.approx(trial["validation_wauc"])
        assert run.data.tags["trial"] == str(trial["number"])
        assert not any(name.startswith("test/") for name in run.data.metrics)


@pytest.mark.slow
def test_an_exhausted_budget_runs_no_more_trials(
    outcome: Any, file: Path, run_cli: Callable[..., Any]
) -> None:
    again = json.loads(run_cli("tune", file, "--json", "--trials", 1).stdout)
    assert again["ran"] == 0 and again["trials"] == outcome["trials"] and again["test"] == outcome["test"]
    lines = run_cli("tune", file).stderr.splitlines()
    assert lines[0].startswith("tuning rank, expert_learning_rate of made, ids, wdl, mlora")
    assert f"at most 2 trials, 2 done, 1 worker, folder {outcome['folder']}" in lines
    best = outcome["best"]["number"]
    assert f"the trials are done: now testing trial {best} and the untuned settings" in lines


def _study(file: Path, folder: Path) -> Any:
    from mmlora.experiments.data import prepare_rows, shared_home
    from mmlora.experiments.study import StudyRun

    experiment = read_experiment(file)
    assert experiment.tuning
    shared = shared_home(Path("var") / "experiments" / "tune")
    rows = prepare_rows(experiment, experiment.tuning.untuned, shared, lambda *outcome: None)
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "shared").exists() or shutil.copytree(shared, folder.parent / "shared")
    run = StudyRun(experiment, experiment.tuning, folder, rows, 1, lambda line: None)
    run.study_folder.mkdir(parents=True, exist_ok=True)
    run.open()
    return run


def _run_all(run: Any) -> None:
    """Run the trials in this process instead of in workers."""
    from mmlora.experiments.run_cell import run_trial

    while run:
        job = run.take()
        run_trial(job)
        run.release(job)
        run.add_done(job)


@pytest.fixture(scope="module")
def trials(home: Path) -> Any:
    """The trials of a study that was not interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMLORA_HOME", str(home / "var"))
        patch.chdir(home)
        _run_all(run := _study(home / "tune.toml", home / "experiments" / "whole"))
    return run.trials()


def test_a_study_keeps_to_its_budget_and_space(trials: Any, file: Path, tiny: Any) -> None:
    run = _study(file, file.parent / "experiments" / "whole")
    assert [trial.number for trial in trials] == [0, 1] and not run
    assert run.budget_text() == "at most 2 trials, 2 done"
    run.tuning = replace(run.tuning, trials=None, minutes=30)
    assert re.fullmatch(r"at most 30 minutes \(\d+\.\d used\), 2 done", run.budget_text())
    for trial in trials:
        assert trial.parameters["rank"] in (1, 2, 3)
        assert 0.003 <= trial.parameters["expert_learning_rate"] <= 0.1
        assert trial.mlflow_run_id
        result = json.loads((run.study_folder / "trials" / str(trial.number) / "result.json").read_text())
        assert not {"test", "by_domain", "data_key"} & result.keys()
        assert result["parts"]["backbone"] == tiny.result("mlora")["parts"]["backbone"]  # found, not trained
    assert run.best() == max(trials, key=lambda trial: trial.validation_wauc)


def test_a_killed_study_resumes_its_trials_under_their_numbers(
    trials: Any, file: Path, tmp_path: Path
) -> None:
    from mmlora.experiments.run_cell import make_lab, run_trial

    folder = tmp_path / "experiments" / "tune"
    killed = _study(file, folder).take()  # killed while its first trial runs
    run = _study(file, folder)
    job = run.take()
    assert (job.key, job.cell) == (killed.key, killed.cell)
    assert dict(job.cell.settings) == trials[0].parameters  # as in the study that was not killed
    with pytest.raises(UsageError, match="test rows can't be read"):
        make_lab(job).training_set.rows("test")
    assert run_trial(job)["validation_wauc"] == pytest.approx(trials[0].validation_wauc)

    run = _study(file, folder)  # killed before the trial's result was recorded
    assert run.best().validation_wauc == pytest.approx(trials[0].validation_wauc)
    second = run.take()
    assert (second.key, dict(second.cell.settings)) == ("1", trials[1].parameters)
    run.release(second)
    run.add_failure(second, "it is broken")
    assert not run and run.take() is None  # a failed trial counts
    assert run.best().number == 0


def test_the_gain_of_tuning_has_an_interval(tiny: Any) -> None:
    from mmlora.experiments.tune import Gain, compare

    cells = {"tuned": tiny.result("moe_mlora"), "untuned": tiny.result("pooled")}
    tested = compare(tiny.folder, {name: cell["cell_key"] for name, cell in cells.items()})
    gain = cells["tuned"]["test"]["wauc"] - cells["untuned"]["test"]["wauc"]
    assert tested.difference.value == pytest.approx(gain, abs=1e-6)
    assert tested.difference.low < gain < tested.difference.high
    same = compare(tiny.folder, dict.fromkeys(cells, cells["untuned"]["cell_key"]))
    assert same.difference == Gain(0.0, 0.0, 0.0)


def test_a_study_of_failures_has_no_best(file: Path, tmp_path: Path) -> None:
    run = _study(file, tmp_path / "experiments" / "tune")
    job = run.take()
    run.release(job)
    run.add_failure(job, "it is broken")
    with pytest.raises(DataError, match="no trial succeeded: it is broken"):
        run.best()


def test_untrainable_values_are_refused_before_any_trial(file: Path, run_cli: Callable[..., Any]) -> None:
    (other := file.with_name("other.toml")).write_text(
        file.read_text()
        .replace('"mlora"', '"moe_mlora"')
        .replace("rank = [1, 2, 3]", "experts_per_domain = [1, 900]")
        .replace("expert_learning_rate", "gate_learning_rate")
    )
    done = run_cli("tune", other)
    assert isinstance(done.exception, UsageError)
    assert "experts_per_domain is 900, and each expert needs" in str(done.exception)
    assert not (file.parent / "var" / "experiments" / "other").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--trials", 0), "trials 0"), (("--minutes", -1), "minutes -1"), (("--workers", 0), "workers 0")],
)
def test_invalid_budgets_are_refused(
    file: Path, run_cli: Callable[..., Any], options: tuple[object, ...], message: str
) -> None:
    done = run_cli("tune", file, *options)
    assert isinstance(done.exception, UsageError) and message in str(done.exception)


def test_a_file_without_tune_table_or_budget_is_refused(
    tiny: Any, file: Path, run_cli: Callable[..., Any]
) -> None:
    assert "has no [tune]" in str(run_cli("tune", tiny.file).exception)
    (other := file.with_name("endless.toml")).write_text(file.read_text().replace("trials = 2", ""))
    assert "has no budget: give trials or minutes" in str(run_cli("tune", other).exception)
    assert "has no [grid]" in str(run_cli("run", file).exception)


def test_an_interrupt_logs_how_to_resume() -> None:
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt), explained_interrupt(lines.append):
        raise KeyboardInterrupt
    assert lines == ["stopped; run the same command again to resume"]
