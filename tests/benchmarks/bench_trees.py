"""Trees: LightGBM's own prediction beside whole rows and sides as tensors, pairs a second; a Markdown table.

Every way computes on one thread, and the ways take turns; figures are medians of processor time. Sides are
scored in blocks of a night's size, each user with all items; what a side costs once is not counted.
``make bench BENCH=trees ARGS="--trees 300"``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mmlora.batch import Batch
from mmlora.models.side_plans.pairs import GridPairs
from mmlora.models.side_plans.trees import TreePairs
from mmlora.models.spec import FieldShape
from mmlora.models.trees.columns import TreeColumns
from mmlora.models.trees.convert import tree_state
from mmlora.models.trees.model import TreeModel
from mmlora.scoring.work import CPU_BLOCK_ROWS

USERS, ITEMS, TRAINED = 4, 4_096, 50_000
FIELDS = tuple(
    FieldShape(f"{side}_{kind}{number}", kind, size, side)  # type: ignore[arg-type]
    for side in ("user", "item")
    for kind, size, count in (("categorical", 50, 4), ("dense", 1, 12))
    for number in range(count)
)


def draw(rows: int, side: str, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    own = [field for field in FIELDS if side in ("both", field.side)]
    categorical = [rng.integers(0, field.size, rows) for field in own if field.kind == "categorical"]
    dense = rng.normal(size=(rows, sum(field.kind == "dense" for field in own))).astype(np.float32)
    return Batch(
        categorical=torch.from_numpy(np.stack(categorical, 1)),
        dense=torch.from_numpy(dense),
        domain=torch.zeros(rows, dtype=torch.int64),
    )


def boosted(trees: int) -> Any:
    import lightgbm

    columns, rng = TreeColumns(FIELDS), np.random.default_rng(0)
    x = columns(draw(TRAINED, "both", 1)).numpy()
    logit = x @ rng.normal(size=x.shape[1]) / 10 + x[:, 8] * x[:, -1] + np.sin(x[:, 9] * x[:, -2])
    label = rng.random(TRAINED) < 1 / (1 + np.exp(-logit + logit.mean()))
    data = lightgbm.Dataset(x, label, categorical_feature=list(range(columns.categories)))
    options = {"objective": "binary", "learning_rate": 0.05, "verbosity": -1, "num_threads": 1}
    return lightgbm.train(options, data, trees)


def ways(trees: int) -> dict[str, tuple[Callable[[], object], int]]:
    """Return what scores some rows, and how many."""
    booster, rows = boosted(trees), CPU_BLOCK_ROWS["float32"]
    model, batch = TreeModel(FIELDS, tree_state(booster.dump_model())), draw(rows, "both", 2)
    columns, plan = model.columns(batch).numpy(), TreePairs(model)
    user, item = plan.side(draw(USERS, "user", 3), "user"), plan.side(draw(ITEMS, "item", 4), "item")
    pairs = GridPairs(ITEMS // 2 + 7, rows, rows, ITEMS)
    return {
        "LightGBM": (lambda: booster.predict(columns, raw_score=True, num_threads=1), rows),
        "whole rows": (lambda: model(batch), rows),
        "sides": (lambda: plan.logits(pairs, user, item), rows),
    }


@torch.inference_mode()
def rates(trees: int, repeats: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {}
    found = ways(trees)
    for _ in range(repeats + 1):  # the first warms up
        for name, (score, rows) in found.items():
            began = time.process_time()
            score()
            taken.setdefault(name, []).append((time.process_time() - began) / rows)
    return {name: 1 / statistics.median(each[1:]) for name, each in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", nargs="+", type=int, default=[100, 300, 600])
    parser.add_argument("--repeats", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("\n| trees | LightGBM | whole rows | sides |\n|---|---|---|---|")
    for trees in asked.trees:
        found = rates(trees, asked.repeats)
        cells = [f"{rate / 1e3:,.0f}k ({rate / found['LightGBM']:.1f}x)" for rate in found.values()]
        print(f"| {trees} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
