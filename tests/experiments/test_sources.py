"""Experiments on data of the user: Taobao's files, and the rows of the current workspace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmlora.experiments.data import prepare_rows, shared_home
from mmlora.experiments.job import Job
from mmlora.experiments.plan import read_experiment
from mmlora.experiments.run import experiment_folder, refusal
from mmlora.pipeline.data import import_tables, import_taobao
from mmlora.workspace import open_workspace

REST = """
[grid]
backbone = "wdl"
arm = "moe_mlora"
features = "profiles"
[settings]
embedding_dim = 4
hidden_units = [8]
rank = 2
max_epochs = 1
"""
THEMES = 2


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def log(folder: Path) -> Path:
    """Synthetic clicks of 30 users in the format of the theme click log."""
    draw, target = np.random.default_rng(5), folder / "log"
    target.mkdir()
    rows = [
        f"{draw.integers(30)},{100 * theme + draw.integers(25)},{theme},{1_560_000_000 + 900 * n}\n"
        for n, theme in enumerate(draw.integers(1, THEMES + 1, 300))
    ]
    (target / "theme_click_log.csv").write_text("user_id,item_id,theme_id,reach_time\n" + "".join(rows))
    ids = {"user": range(30), "item": [100 * theme + n for theme in range(1, THEMES + 1) for n in range(25)]}
    for name, own in ids.items():
        vectors = (f"{id_},{' '.join(f'{x:.4f}' for x in draw.normal(size=128))}\n" for id_ in own)
        (target / f"{name}_embedding.csv").write_text("id,embedding\n" + "".join(vectors))
    return target


def _prepared(name: str, table: str) -> Job:
    (file := Path(f"{name}.toml")).write_text(f"[data.{name}]\n{table}{REST}")
    experiment, workspace = read_experiment(file), open_workspace()
    (cell,) = experiment.cells
    folder = experiment_folder(workspace, experiment)
    rows = prepare_rows(experiment, cell, shared_home(folder), lambda *said: None)
    return Job(cell, experiment.key(cell), folder, rows, experiment.training_settings(cell), 1)


@pytest.fixture
def train() -> Callable[[str, str], dict[str, Any]]:
    from mmlora.experiments.run_cell import run_cell

    return lambda name, table: run_cell(_prepared(name, table))


def test_taobao_and_the_same_rows_in_the_workspace_give_the_same_model(
    log: Path, train: Callable[[str, str], dict[str, Any]]
) -> None:
    taobao = train("theme", f'source = "taobao"\npath = "{log}"\nthemes = {THEMES}\n')
    assert taobao["by_domain"].keys() == {"1", "2"}
    assert taobao["test"]["wauc"] is not None and taobao["gate_weights"]
    assert not open_workspace().store.days()  # the experiment keeps its data to itself
    import_taobao(log, themes=THEMES)
    own = train("own", 'source = "workspace"\nas_of = 2019-06-15\n')
    assert own["test"] == taobao["test"] and own["parts"] == taobao["parts"]


def test_cells_of_other_workspace_rows_differ(folder: Path) -> None:
    jobs = []
    for day in (1, 2):
        _import_clicks(folder, day, label=lambda n: n % 2)
        jobs.append(_prepared("own", 'source = "workspace"\nas_of = 2020-01-09\n'))
    assert jobs[0].key != jobs[1].key and jobs[0].rows.home != jobs[1].rows.home


def test_rows_with_one_label_are_refused(folder: Path) -> None:
    _import_clicks(folder, 1, label=lambda n: 1)
    job = _prepared("own", 'source = "workspace"\nas_of = 2020-01-09\n')
    reason = refusal(job.cell, job.rows, job.settings)
    assert reason and "training rows have label 1, so there is nothing to learn" in reason


def _import_clicks(folder: Path, day: int, label: Callable[[int], int]) -> None:
    rows = (
        f"{n % 9},{n % 7},{n % 2},2020-01-{day:02}T{n // 60:02}:{n % 60:02}:00Z,{label(n // 2)}\n"
        for n in range(120)
    )
    (file := folder / "clicks.csv").write_text(
        "user_id,item_id,domain_id,event_timestamp,label\n" + "".join(rows)
    )
    import_tables(file)
