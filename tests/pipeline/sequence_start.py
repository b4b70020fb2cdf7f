"""What a sequence of commands begins with: two models, verdicts, and the score of every pair."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.nights.load import score
from mmlora.scoring.staging import part_files
from mmlora.workspace import open_workspace

ON = date(2001, 4, 9)
FIRST, LAST = ON - timedelta(days=3), ON + timedelta(days=3)
DOMAINS = ("news", "rare", "sport")


def store_another(version: str) -> str:
    """Store a model with the same order of items, but other scores."""
    workspace = open_workspace()
    bundle = workspace.bundles.load(version)
    halved = replace(bundle.calibration, scale=bundle.calibration.scale / 2)
    part = workspace.parts.put_json(halved.to_json())
    return workspace.bundles.save(replace(bundle.manifest, calibration=part))


def score_of_pairs(version: str, folder: Path) -> dict[tuple[str, str, int], float]:
    """Score every pair of every domain."""
    users, items = [f"u{n:02d}" for n in range(60)], range(100, 140)
    pairs = {"user_id": [u for u in users for _ in items], "item_id": [i for _ in users for i in items]}
    pq.write_table(pa.table(pairs), folder / "pairs.parquet")
    scores = {}
    for domain in DOMAINS:
        load_id = score(ON, domain, pairs=str(folder / "pairs.parquet"), top_k=0, model_version=version)
        for file in part_files(open_workspace().staging_folder(load_id)):
            for row in pq.read_table(file).to_pylist():
                scores[domain, row["user_id"], row["item_id"]] = float(row["score"])
    return scores
