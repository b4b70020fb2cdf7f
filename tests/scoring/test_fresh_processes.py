"""A load scored in process after process, each with a memory of its own, is the same by hash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RUNS = 10
ROOT = Path(__file__).parents[2]


def score_every_backbone(run: int, folder: Path) -> dict[str, str]:
    """Score with a model of every backbone, with other allocations in between; return the hashes."""
    import pyarrow as pa
    import torch

    from mmlora.models.builder import BACKBONES
    from mmlora.schema import IdTypes
    from tests.scoring.conftest import make_grid, make_world

    torch.set_num_threads(1 + run % 2)
    draw, kept, hashes = np.random.default_rng(run), list[Any](), {}
    users, items = pa.array(range(70)), pa.array(range(100, 300))
    for backbone in draw.permutation(sorted(BACKBONES)):
        for size in draw.integers(1, 200_000, 20):
            kept.append(np.empty(size, np.uint8) if size % 2 else torch.empty(int(size)))
        for place in draw.permutation(len(kept))[: len(kept) // 2]:  # holes, for the next to lie in
            kept[place] = None
        world = make_world(users, items, IdTypes(), str(backbone))
        how = {"threads": int(draw.integers(1, 4)), "memory": int(draw.integers(1, 1 << 20))}
        staged = world.score(make_grid(users, items), folder / str(backbone), top_k=0, block_rows=1024, **how)
        hashes[str(backbone)] = staged.content_hash
    return hashes


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_fresh_processes_score_the_same_bits_with_every_backbone(tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from tests.scoring.test_fresh_processes import *\n"
        "print(json.dumps(score_every_backbone(int(sys.argv[1]), Path(sys.argv[2]))))"
    )
    clean = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    found: dict[str, set[str]] = {}
    for run in range(RUNS):
        command = [sys.executable, "-c", code, str(run), str(tmp_path / str(run))]
        done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for backbone, content_hash in json.loads(done.stdout).items():
            found.setdefault(backbone, set()).add(content_hash)
    assert len(found) == 10
    assert {backbone: len(hashes) for backbone, hashes in found.items()} == dict.fromkeys(found, 1)
