"""The demo on the made-up shop, small, through both DAGs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shop_demo_shows_the_true_ctr_and_a_second_run_the_same(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "MMLORA_HOME": str(tmp_path / "var"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mmlora_cli.demo_shop", "--scale", "0.05", "--seed", "2"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )

    first = run()
    assert "nightly_scoring: success" in first.stderr
    assert "auc by market" in first.stdout
    worth = first.stdout[first.stdout.index("true CTR of each user's first 20 items") :]
    (everyone,) = [line.split() for line in worth.splitlines() if line.strip().startswith("all ")]
    these, popular, best, share = (float(figure) for figure in everyone[2:6])
    assert 0 < these < best and 0 < popular < best
    assert share == pytest.approx(these / best, abs=1e-3)
    second = run()
    assert "is already published" in second.stderr
    assert worth in second.stdout
