"""The published protocol on MovieLens-1M, by gender: does training reach the published figures?

Random 60/20/20 split inside each domain, label rating == 5; the test split is read once, at the end.
Run it by ``.venv/bin/pytest -m slow tests/benchmarks/test_movielens_protocol.py -s``; it prints the table of
``docs/benchmarks.md``.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from mmlora.pipeline.data import import_movielens
from mmlora.runs.steps import evaluate, expert_domains, prepare, train_backbone, train_expert, train_gate

AS_OF = date(2003, 3, 1)
SEEDS = (0, 1, 2)


def _wauc(features: str, adaptation: str, seed: int) -> dict[str, float]:
    """Train and return the test wauc of each phase."""
    run = prepare(AS_OF, features=features, adaptation=adaptation, split="random", seed=seed, backbone="wdl")
    train_backbone(run)
    for domain in expert_domains(run):
        train_expert(run, domain)
    train_gate(run)
    return {phase: metrics.wauc for phase, metrics in evaluate(run).items()}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("features", "target"), [("ids", 0.809), ("profiles", 0.813)])
def test_wauc_reaches_the_target(
    features: str, target: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    monkeypatch.setenv(
        "MMLORA_CHECKS__WINDOW_DAYS", "2000"
    )  # all rows decide the verdicts, as in the protocol
    import_movielens(domain_by="gender")
    for adaptation, phase in (("mlora", "experts"), ("moe_mlora", "gate")):
        found = [_wauc(features, adaptation, seed) for seed in SEEDS]
        for seed, waucs in zip(SEEDS, found, strict=True):
            print(
                f"{features} {adaptation} seed {seed}: " + ", ".join(f"{p} {w:.4f}" for p, w in waucs.items())
            )
        assert np.mean([waucs[phase] for waucs in found]) >= target
