"""The DAGs, each of whose tasks runs on a machine that has nothing but the URL: on S3 and PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dags.test_runs import SETTINGS, write_tables
from tests.shared.test_machines import use_servers

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_each_task_may_run_on_a_machine_of_its_own(
    s3_url: str, new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_servers(monkeypatch, s3_url, new_database)
    write_tables(tmp_path)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_dags.py")), str(tmp_path)],
        env={**os.environ, **SETTINGS, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    result = json.loads(done.stdout.splitlines()[-1])
    states = {run["dag_id"]: run["state"] for run in result["runs"]}
    said = done.stdout[-5000:] + done.stderr[-5000:]
    assert states["training"] == states["nightly_scoring"] == "success", said
    failed = {task["task_id"] for run in result["runs"] for task in run["tasks"] if task["state"] == "failed"}
    assert failed <= {"evaluate"}, said
    assert all(rows > 0 for rows in result["published"].values())
    assert result["machines"] >= 20
    assert not (tmp_path / "var").exists()
