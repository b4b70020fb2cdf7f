from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from mmlora_cli.main import app

TINY = """
title = "Tiny"
description = "Every arm on synthetic rows."

[data.made]
source = "synthetic"
domains = 3
users = 60
items = 40
rows = 1500
diversity = 0.8
sparsity = 0.1

[grid]
backbone = ["wdl"]
arm = [
    "pooled", "pooled_domain", "separate", "mlora", "mlora_matched", "moe_mlora",
    "placebo_mlora", "placebo_moe_mlora", "uniform_gate", "random_gate", "joint",
]

[[grids]]
backbone = "wdl"
arm = ["pooled_domain", "mlora", "moe_mlora", "uniform_gate"]
experts_per_domain = [1, 2]
gate = ["domain", "sample"]

[settings]
crosses = false
expert_confidence = 0.0
embedding_dim = 4
hidden_units = [16, 8]
rank = 2
dropout = 0.1
batch_size = 128
max_epochs = 2
learning_rate = 0.01
"""


@dataclass(frozen=True)
class Ran:
    """An experiment that was run in a workspace of its own, and its JSON result."""

    file: Path
    home: Path
    outcome: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.home / "experiments" / self.file.stem

    def results(self) -> list[dict[str, Any]]:
        return [
            json.loads(path.read_text()) for path in sorted((self.folder / "cells").glob("*/result.json"))
        ]

    def result(self, arm: str, experts: int | None = None, gate: str | None = None) -> dict[str, Any]:
        results = [
            result
            for result in self.results()
            if result["cell"]["arm"] == arm
            and experts in (None, result["cell"]["experts_per_domain"])
            and gate in (None, result["cell"]["gate"])
        ]
        return min(results, key=lambda result: result["cell"]["gate"] not in (None, "domain"))

    def array(self, result: dict[str, Any], name: str) -> np.ndarray:
        return np.load(self.folder / "data" / result["data_key"] / f"{name}.npy")

    def scores(self, result: dict[str, Any]) -> np.ndarray:
        return np.load(self.folder / "cells" / result["cell_key"] / "scores.npy")


def _run_cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["experiment", *map(str, arguments)])


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., Result]:
    """``mmlora experiment ...``."""
    return _run_cli


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """All arms on synthetic rows, run by the command line in two processes; tests must not change it."""
    folder = tmp_path_factory.mktemp("tiny")
    (file := folder / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMLORA_HOME", str(folder / "var"))
        patch.chdir(folder)
        done = _run_cli("run", file, "--workers", 2, "--json")
    assert done.exit_code == 0, done.output
    yield Ran(file, folder / "var", json.loads(done.stdout))
