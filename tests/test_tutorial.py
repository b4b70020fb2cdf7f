"""The tutorial, run as it is written but for a smaller shop."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.snippets import blocks

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    shown = [block for block in blocks("docs/tutorial.md") if not block.not_run]
    assert [block.language for block in shown].count("bash") >= 6
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    environment.pop("MMLORA_HOME", None)
    printed = {"bash": "", "python": "", "sql": ""}
    for block in shown:
        language, text = block.language, block.text
        if language == "sql":
            with sqlite3.connect(tmp_path / "var" / "warehouse.db") as connection:
                printed["sql"] += str(connection.execute(text).fetchall())
            continue
        text = text.replace("mmlora data shop", "mmlora data shop --scale 0.3")
        command = ["bash", "-e", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == block.exits, f"{block}\n{text}\n{done.stderr}"
        printed[language] += done.stdout
    assert "is the champion" in printed["bash"]
    assert printed["sql"].count("SKU-") == 9
    assert re.search(r"score 0\.\d+ sum / clicks", printed["python"])
    assert re.search(r"\d+% of the best", printed["python"])
