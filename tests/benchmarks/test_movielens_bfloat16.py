"""What scoring in bfloat16 moves on MovieLens-1M: the auc of the newest rows, and each user's ten best.

Run it by ``.venv/bin/pytest -m slow tests/benchmarks/test_movielens_bfloat16.py -s``; it prints its findings.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from mmlora.metrics.ranking import auc
from mmlora.nights.load import score
from mmlora.pipeline.data import import_movielens
from mmlora.pipeline.train import train
from mmlora.scoring import devices
from mmlora.scoring.staging import part_files
from mmlora.workspace import open_workspace

AS_OF = date(2003, 3, 1)
DOMAIN = "F"
MOST_AUC = 1e-4
MOST_LISTS = 0.05
"""Share of users whose ten best hold another item."""
MOST_ITEMS = 0.005
"""Share of all lists' items that are others."""


def staged(precision: str, monkeypatch: pytest.MonkeyPatch, pairs: Path | None, top_k: int) -> pa.Table:
    monkeypatch.setenv("MMLORA_SCORING__PRECISION", precision)
    folder = open_workspace().staging_folder(score(AS_OF, DOMAIN, pairs=pairs, top_k=top_k))
    return pa.concat_tables(pq.read_table(part) for part in part_files(folder))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not devices.has_bfloat16("cpu"), reason="the processor has no bfloat16")
@pytest.mark.parametrize("backbone", ["wdl", "deepfm"])
def test_auc_and_lists_stay(backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("MMLORA_CHECKS__WINDOW_DAYS", "2000")
    monkeypatch.setenv("MMLORA_CANDIDATES__ACTIVE_DAYS", "2000")
    monkeypatch.setenv("MMLORA_TRAINING__MAX_EPOCHS", "2")
    import_movielens(domain_by="gender")
    train(AS_OF, backbone=backbone, features="profiles", adaptation="none", split="time")

    rows = ds.dataset(open_workspace().offline / "interactions").to_table(
        filter=pc.field("domain_id") == DOMAIN, columns=["user_id", "item_id", "label", "event_timestamp"]
    )
    rows = rows.sort_by("event_timestamp").slice(rows.num_rows * 9 // 10)
    pq.write_table(rows.select(["user_id", "item_id"]), tmp_path / "pairs.parquet")
    label = rows.select(["user_id", "item_id", "label"])
    aucs = {}
    for precision in ("float32", "bfloat16"):
        found = staged(precision, monkeypatch, tmp_path / "pairs.parquet", 0)
        joined = label.join(found, ["user_id", "item_id"], join_type="inner")
        assert joined.num_rows == rows.num_rows > 20_000
        aucs[precision] = auc(joined["label"].to_numpy(), joined["score"].to_numpy())
    best = [
        staged(precision, monkeypatch, None, 10)["item_id"].to_numpy()
        for precision in ("float32", "bfloat16")
    ]
    lists = [items.reshape(-1, 10) for items in best]  # every user here has ten items left
    kept = np.array([len(np.intersect1d(*pair)) for pair in zip(*lists, strict=True)])
    in_order = float((lists[0] == lists[1]).all(1).mean())
    moved = abs(aucs["float32"] - aucs["bfloat16"])
    print(
        f"{backbone}: auc {aucs['float32']:.6f} in float32, moved by {moved:.1e}; of {len(kept):,} lists "
        f"{(kept < 10).mean():.1%} hold another item ({1 - kept.mean() / 10:.2%} of all items), "
        f"{in_order:.1%} are the same in their order"
    )
    assert aucs["float32"] > 0.7
    assert moved < MOST_AUC
    assert (kept < 10).mean() < MOST_LISTS
    assert 1 - kept.mean() / 10 < MOST_ITEMS
