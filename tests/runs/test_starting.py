"""Warm starts of training runs: what is begun with, that it never saw held-out rows, and what names it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmlora.errors import UsageError
from mmlora.pipeline.train import train
from mmlora.runs.refitting import refit
from mmlora.runs.retraining import retrain_command
from mmlora.runs.starting import Start, choose_start, seen_by
from mmlora.runs.state import Run
from mmlora.runs.steps import prepare, train_backbone
from mmlora.runs.training_run import data_of, run_of
from mmlora.runs.training_set import read_rows, rows_and_split, rows_of
from mmlora.runs.unused import UnusedFiles
from mmlora.settings import load_settings
from mmlora.workspace import open_workspace, silent

FIRST, LATER = date(2001, 3, 28), date(2001, 4, 8)
MODEL = {"features": "ids", "adaptation": "none"}


@pytest.fixture(scope="module")
def began(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace with a model of 28 days, to be copied; the model's version."""
    from tests.conftest import use_workspace

    home = tmp_path_factory.mktemp("began") / "var"
    shutil.copytree(imported, home)
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        return home, str(train(FIRST, **MODEL).model_version)


@pytest.fixture
def version(began: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of the workspace ``began`` is open; the version of its model."""
    from tests.conftest import use_workspace

    use_workspace(monkeypatch, tmp_path / "var")
    shutil.copytree(began[0], tmp_path / "var")
    return began[1]


def opened(run_id: str) -> Run:
    return run_of(open_workspace(), run_id)


def rows_learned_from(run: Run, *, judged: bool) -> set[tuple[object, ...]]:
    """The rows whose labels a run's model has seen, from what it was trained on: its validation rows too."""
    workspace = open_workspace()
    data = data_of(workspace, run if judged else Run(run.folder / "final"))
    return keys(rows_of(workspace, data), np.asarray(data.split) != 2)


def keys(rows: pa.Table, chosen: np.ndarray) -> set[tuple[object, ...]]:
    columns = ("user_id", "item_id", "domain_id", "event_timestamp")
    return set(zip(*(rows.filter(pa.array(chosen))[name].to_pylist() for name in columns), strict=True))


@pytest.mark.parametrize(
    ("days", "judged"),
    [(1, None), (2, None), (4, True), (8, False), (11, False)],
    ids=lambda value: str(value),
)
def test_what_a_run_begins_with_never_learned_from_a_held_out_row(
    version: str, days: int, judged: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    run = opened(prepare(FIRST + timedelta(days), start="warm", **MODEL))
    workspace = open_workspace()
    data = data_of(workspace, run)
    held_out = keys(rows_of(workspace, data), np.asarray(data.split) > 0)
    stored = run.result("start")
    if judged is None:
        assert stored is None and "may have learned from" in caplog.text, (
            "a cold start, and a line that says why"
        )
        assert run.run_id == prepare(FIRST + timedelta(days), **MODEL), "a cold start is a cold start"
        return
    assert stored is not None and (stored["version"], stored["judged"]) == (version, judged)
    first_run = next(
        Run(file.parent)
        for file in workspace.home.glob("runs/*/registered.json")
        if json.loads(file.read_text())["model_version"] == version
    )
    learned = rows_learned_from(first_run, judged=judged)
    assert len(learned) > 1000 and not learned & held_out
    if judged:
        assert rows_learned_from(first_run, judged=False) & held_out, "the final model would have"


def test_held_out_rows_that_the_start_may_have_seen_are_trained_on(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_TRAINING__SPLIT_FRACTIONS", "[0.704, 0.148, 0.148]")
    workspace = open_workspace()
    settings = workspace.settings.training.model_copy(update={**MODEL, "start": version})
    contract, rows, split = rows_and_split(workspace, LATER, settings, silent)
    last = pa.scalar(datetime.fromisoformat(f"{FIRST}T00:00:00+00:00"))
    early = np.asarray(pa.compute.less(rows["event_timestamp"], last))
    assert 0 < np.count_nonzero(early & (split == 1)) < 0.1 * np.count_nonzero(split == 1)
    start = choose_start(workspace, LATER, settings, contract, rows, split)
    assert start == Start(version, judged=False, moves_rows=True)

    data = data_of(workspace, opened(prepare(LATER, start=version, **MODEL)))
    cold = data_of(workspace, opened(prepare(LATER, **MODEL)))
    assert np.array_equal(np.asarray(cold.split), split)
    assert np.array_equal(np.asarray(data.split), np.where(early, 0, split))


def test_a_domain_has_a_last_moment_of_its_own(version: str) -> None:
    workspace = open_workspace()
    rows = read_rows(workspace, LATER, workspace.settings.training)
    bundle = workspace.bundles.load(version)
    moments = {"news": "2001-03-10T00:00:00+00:00", "sport": "2001-04-01T00:00:00+00:00"}
    seen = seen_by(replace(bundle, manifest=replace(bundle.manifest, seen_until=moments)), rows)
    for domain, moment in {**moments, "rare": moments["sport"]}.items():  # unknown: the latest of all
        own = np.asarray(pa.compute.equal(rows["domain_id"], domain))
        early = np.asarray(
            pa.compute.less_equal(rows["event_timestamp"], pa.scalar(datetime.fromisoformat(moment)))
        )
        assert np.array_equal(seen[own], early[own]), domain


def test_a_warm_run_is_named_by_what_it_began_with_and_gives_the_same_bits_again(version: str) -> None:
    cold = train(LATER, **MODEL)
    warm = train(LATER, start="warm", **MODEL)
    assert warm.run_id != cold.run_id and warm.model_version != cold.model_version
    workspace = open_workspace()
    manifest = workspace.bundles.load(str(warm.model_version)).manifest
    assert (
        manifest.start == version and workspace.bundles.load(str(cold.model_version)).manifest.start is None
    )
    assert opened(warm.run_id).config.settings.start == version
    command = retrain_command(workspace, str(warm.model_version))
    assert command is not None and f"MMLORA_TRAINING__START={version}" in command

    for folder in ("runs", "training_sets"):
        shutil.rmtree(workspace.home / folder)
    again = train(LATER, start=version, **MODEL)
    assert (again.run_id, again.model_version) == (warm.run_id, warm.model_version)
    shutil.rmtree(workspace.bundles.path(version))
    assert retrain_command(workspace, str(warm.model_version)) is None, "what it began with is lost"


def test_a_warm_start_begins_where_the_trained_model_was(version: str) -> None:
    run = opened(train_backbone(prepare(LATER, start="warm", **MODEL)))
    cold = opened(train_backbone(prepare(LATER, **MODEL)))
    starts = [(each.result("crosses") or {})["report"]["start_metric"] for each in (run, cold)]
    assert starts[1] == pytest.approx(0.5) and starts[0] > 0.54


class Stopped(Exception):
    pass


@pytest.mark.parametrize(("crosses", "phase"), [("true", "crosses"), ("false", "backbone")])
def test_a_warm_phase_that_was_stopped_goes_on_to_the_same_bits(
    version: str, monkeypatch: pytest.MonkeyPatch, crosses: str, phase: str
) -> None:
    monkeypatch.setenv("MMLORA_TRAINING__CROSSES", crosses)
    if crosses == "false":
        version = str(train(FIRST, **MODEL).model_version)
    run_id = prepare(LATER, start=version, **MODEL)
    home = open_workspace().home
    shutil.copytree(home, home.with_name("stopped"))

    def stop(label: str, done: int, total: int) -> None:
        if label == f"train {phase}" and done == 1:
            raise Stopped

    def finish(home: Path) -> str:
        monkeypatch.setenv("MMLORA_HOME", str(home))
        return str((opened(train_backbone(run_id)).result(phase) or {})["part"])

    monkeypatch.setenv("MMLORA_HOME", str(home.with_name("stopped")))
    with pytest.raises(Stopped):
        train_backbone(run_id, progress=stop)
    assert list(home.with_name("stopped").glob("runs/steps/*.checkpoint/*"))
    assert finish(home.with_name("stopped")) == finish(home)


@pytest.mark.parametrize("crosses", ["true", "false"])
def test_the_final_training_begins_warm_too(
    version: str, monkeypatch: pytest.MonkeyPatch, crosses: str
) -> None:
    monkeypatch.setenv("MMLORA_TRAINING__CROSSES", crosses)
    if crosses == "false":
        version = str(train(FIRST, **MODEL).model_version)
    warm = train(LATER, start=version, **MODEL)
    final = Run(opened(warm.run_id).folder / "final")
    assert final.result("start") == opened(warm.run_id).result("start")
    cold = Run(opened(train(LATER, **MODEL).run_id).folder / "final")
    assert final.config.training_set_id == cold.config.training_set_id, "all rows are trained on, either way"
    step = "crosses" if crosses == "true" else "backbone"
    assert (final.result(step) or {})["part"] != (cold.result(step) or {})["part"]
    assert refit(warm.run_id) == warm.run_id


def test_a_version_that_a_kept_run_began_with_is_kept(version: str) -> None:
    prepare(LATER, start="warm", **MODEL)
    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        unused = UnusedFiles(workspace, warehouse, versions=(), days=30)
        assert version in unused._versions


def test_what_cannot_be_begun_with_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no model version '20010101-00000000'"):
        prepare(LATER, start="20010101-00000000", **MODEL)
    with pytest.raises(
        UsageError, match=r"may have learned from \d+% of the .* rows; use another version, warm"
    ):
        prepare(FIRST + timedelta(1), start=version, **MODEL)
    with pytest.raises(UsageError, match="it has backbone wdl instead of deepfm"):
        prepare(LATER, start=version, backbone="deepfm", **MODEL)
    with pytest.raises(UsageError, match="it has other features"):
        prepare(LATER, start=version, features="profiles", adaptation="none")
    with pytest.raises(UsageError, match="the trees of gbdt begin without weights"):
        prepare(LATER, start="warm", backbone="gbdt", adaptation="none")
    with pytest.raises(UsageError, match="cold, warm or a model version"):
        prepare(LATER, start="hot", **MODEL)
    with pytest.raises(UsageError, match="leave out --tune, or train with --start cold"):
        train(LATER, start="warm", tune_minutes=1, **MODEL)
    monkeypatch.setenv("MMLORA_TRAINING__START", "champion")
    with pytest.raises(UsageError, match=r"training\.start.*cold, warm or a model version"):
        load_settings()


def test_experts_on_a_base_have_no_start(made_up_workspace: Path) -> None:
    base = train(FIRST, features="ids", expert_confidence=0).model_version
    with pytest.raises(UsageError, match="leaves no choice of start warm"):
        prepare(LATER, base=str(base), domain="news", start="warm")


def test_without_a_model_a_warm_start_is_cold_and_says_so(
    made_up_workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert prepare(LATER, start="warm", **MODEL) == prepare(LATER, **MODEL)
    assert "so this is a cold start (there is none yet)" in caplog.text
