"""Tasks of finished runs are cleared and run again, at random, and readers are right all the while."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.dags.reader import Reader
from tests.dags.run_clears import ANSWER

FIRST, SECOND, THIRD = "2001-04-07", "2001-04-08", "2001-04-09"
NIGHTLY = [("nightly_scoring", {"date": THIRD}), ("nightly_scoring", {"date": SECOND})]
ALL = [
    ("training", {"date": SECOND, "features": "ids", "adaptation": "none"}),
    *NIGHTLY,
    ("backfill", {"start": FIRST, "end": SECOND}),
    ("maintenance", {"date": "2001-04-10", "late_days": 3}),
]


@dataclass
class Run:
    """A finished run: its DAG, id and tasks, and the dates that it scores."""

    dag_id: str
    run_id: str
    tasks: list[str]
    dates: set[str]


class Airflow:
    """A process that runs DAGs and clears tasks; see run_clears.py."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("run_clears.py")
        self.log = folder / "airflow.log"
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(folder / "airflow")],
            env={**os.environ, "PYTHONPATH": str(script.parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )

    def ask(self, **asked: Any) -> dict[str, Any]:
        """Have something done; return the answer."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith(ANSWER):
                answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
                return answer
        pytest.fail(self.log.read_text()[-5000:])

    def finished(self, dag_id: str, form: dict[str, Any]) -> Run:
        """Run a DAG to its end."""
        ran = self.ask(dag_id=dag_id, form=form)
        assert ran["state"] == "success", self.log.read_text()[-5000:]
        scores = dag_id in ("nightly_scoring", "backfill")
        dates = {form[name] for name in ("date", "start", "end") if name in form} if scores else set()
        return Run(dag_id, ran["run_id"], ran["tasks"], dates)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def airflow(trained_workspace: Path, tmp_path: Path) -> Iterator[Airflow]:
    """Airflow on the trained workspace."""
    airflow = Airflow(tmp_path)
    try:
        yield airflow
    finally:
        airflow.close()


@pytest.mark.slow
def test_clearing_the_scoring_of_an_older_night_leaves_the_newer_one(
    airflow: Airflow, trained_workspace: Path
) -> None:
    newer, older = (airflow.finished(*each) for each in NIGHTLY)
    reader = Reader.of_sqlite(trained_workspace / "warehouse.db")
    before = reader.read()
    assert len(before) == 6
    with reader.polling():
        cleared(airflow, older, "score", downstream=True, reader=reader)
        cleared(airflow, newer, "domain", downstream=False, reader=reader)
    after = reader.read()
    assert {night for night in after if after[night].load != before[night].load} == {
        night for night in before if night[1] == SECOND
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(int(os.environ.get("MMLORA_TEST_CLEARS", "2"))))
def test_any_task_of_finished_runs_is_cleared_and_run_again(
    airflow: Airflow, trained_workspace: Path, seed: int
) -> None:
    runs = [airflow.finished(*each) for each in ALL]
    reader, choose = Reader.of_sqlite(trained_workspace / "warehouse.db"), random.Random(seed)
    assert len(reader.read()) == 9
    with reader.polling():
        for _ in range(25):
            run = choose.choice(runs)
            cleared(airflow, run, choose.choice(run.tasks), downstream=choose.random() < 0.5, reader=reader)
    assert reader.reads > 50


def cleared(airflow: Airflow, run: Run, task: str, *, downstream: bool, reader: Reader) -> None:
    """Clear a task, wait for the run, and check that only the nights of its run may have another load."""
    before = dict(reader.nights)
    ended = airflow.ask(dag_id=run.dag_id, run_id=run.run_id, tasks=[task], downstream=downstream)
    step = f"{run.dag_id} of {run.dates}: {task}, downstream {downstream}: {ended}"
    assert ended["state"] == "success" and ended["cleared"], step + airflow.log.read_text()[-5000:]
    after = reader.read()
    assert after.keys() == before.keys(), step
    changed = {night for night in before if after[night].load != before[night].load}
    assert {day for _, day in changed} <= run.dates, step
    if run.dag_id == "nightly_scoring" and "score" in ended["names"]:
        assert {day for _, day in changed} == run.dates, step
