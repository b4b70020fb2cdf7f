"""A load scored by trees: whole rows' scores, and the same rows however the work is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmlora.candidates.pairs import Candidates
from mmlora.models.spec import FieldShape
from mmlora.models.trees.columns import TreeColumns
from mmlora.models.trees.convert import tree_state
from mmlora.models.trees.model import TreeModel
from tests.scoring.test_score import as_list, read

lightgbm = pytest.importorskip("lightgbm")


@pytest.fixture(scope="module")
def tree_world(world: Any) -> Any:
    """The made-up world, whose model is trees that split on every column."""
    fields = [FieldShape(*shape) for shape in world.encoder.field_shapes()]
    columns, rng, rows = TreeColumns(fields), np.random.default_rng(0), 3000
    size = {field.name: field.size for field in fields}
    x = rng.normal(size=(rows, len(columns)))
    for number, column in enumerate(columns.columns[: columns.categories]):
        x[:, number] = rng.integers(0, size[column.field], rows)
    label = rng.random(rows) < 1 / (1 + np.exp(-x.sum(1) / x.std()))
    data = lightgbm.Dataset(x, label, categorical_feature=list(range(columns.categories)))
    options = {"objective": "binary", "verbosity": -1, "num_threads": 1, "feature_fraction": 0.3}
    booster = lightgbm.train({**options, "min_data_per_group": 5}, data, 30)
    assert (booster.feature_importance() > 0).all()
    return replace(world, model=TreeModel(fields, tree_state(booster.dump_model())))


def test_pairs_have_the_scores_of_whole_rows(tree_world: Any, grid: Candidates, tmp_path: Path) -> None:
    expected = tree_world.all_scores(grid)
    table = read(tree_world.score(grid, tmp_path / "load", top_k=0).folder)
    users, items = table.column("user_id").to_numpy(), table.column("item_id").to_numpy() - 100
    assert table.column("score").to_numpy() == pytest.approx(expected[users, items], abs=1e-7)
    assert np.ptp(expected) > 0.01


def test_a_load_is_the_same_to_the_last_bit_however_it_is_cut(
    tree_world: Any, grid: Candidates, tmp_path: Path
) -> None:
    ways: tuple[dict[str, Any], ...] = (
        {"threads": 1},
        {"threads": 3, "memory": 20_000},
        {"block_rows": 512},
        {"block_rows": 1024, "threads": 2, "memory": 60_000},
    )
    hashes = {
        tree_world.score(grid, tmp_path / str(number), **way).content_hash for number, way in enumerate(ways)
    }
    hashes.add(tree_world.score(as_list(grid), tmp_path / "listed", memory=60_000).content_hash)
    assert len(hashes) == 1
