"""A night of which 5% of the users have changed, and the same night in full: prints a Markdown table.

Made-up users and items with profiles, one domain, all users x all items. A night is published; then profiles
of some users change, and the night is scored again, by turns in full and with carrying over. The content
hashes are compared. `fingerprint` is the part that finds out what has changed, whether or not anything can be
carried over.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ON = date(2020, 2, 1)
DOMAIN = "only"


def write_tables(folder: Path, users: int, items: int, rows: int) -> None:
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    user[:users] = np.arange(users)
    item[:items] = np.arange(items)
    taste = rng.normal(size=users)[user] * rng.normal(size=items)[item]
    seconds = np.sort(rng.choice(31 * 86_400, rows, replace=False))
    start = datetime(2020, 1, 1, tzinfo=UTC)
    pq.write_table(
        pa.table(
            {
                "user_id": user,
                "item_id": item,
                "domain_id": [DOMAIN] * rows,
                "event_timestamp": [start + timedelta(seconds=int(second)) for second in seconds],
                "label": (rng.random(rows) < 1 / (1 + np.exp(1 - taste))).astype(np.int8),
            }
        ),
        folder / "interactions.parquet",
    )
    pq.write_table(pa.table(profiles(np.arange(users), rng)), folder / "users.parquet")
    kinds = rng.choice(["a", "b", "c", "d"], items)
    pq.write_table(pa.table({"item_id": np.arange(items), "kind": kinds}), folder / "items.parquet")


def profiles(users: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    cities = [f"city {number}" for number in range(50)]
    columns = {f"trait_{number}": rng.random(len(users)) for number in range(8)}
    return {
        "user_id": users,
        "age": rng.integers(18, 70, len(users)),
        "city": rng.choice(cities, len(users)),
    } | columns


@contextmanager
def timed(seconds: dict[str, list[float]], name: str) -> Any:
    began = time.perf_counter()
    yield
    seconds[name].append(time.perf_counter() - began)


def measured(seconds: dict[str, list[float]], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def timing(*given: Any, **options: Any) -> Any:
        with timed(seconds, name):
            return call(*given, **options)

    return timing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=4000)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--changed", type=float, default=0.05, help="share of the users whose profile changes"
    )
    parser.add_argument("--top-k", type=int, default=100)
    parser.add_argument("--backbone", default="deepfm")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "MMLORA_HOME": str(Path(folder) / "var"),
            "MMLORA_CANDIDATES__EXCLUDE": "none",
            "MMLORA_CANDIDATES__USERS": "all",
            "MMLORA_SCORING__TOP_K": str(asked.top_k),
            "MMLORA_TRAINING__CROSSES": "false",
            "MMLORA_TRAINING__ITEM_HISTORY": "false",
        }
        compare(Path(folder), asked)


def compare(folder: Path, asked: argparse.Namespace) -> None:
    from mmlora.nights import load_job
    from mmlora.nights.load import score
    from mmlora.pipeline.data import import_tables
    from mmlora.pipeline.score import score_and_publish
    from mmlora.pipeline.train import train
    from mmlora.pipeline.validate import validate
    from mmlora.scoring import fingerprint
    from mmlora.workspace import open_workspace

    write_tables(folder, asked.users, asked.items, asked.rows)
    tables = {name: folder / f"{name}.parquet" for name in ("users", "items")}
    import_tables(folder / "interactions.parquet", **tables)
    train(ON, features="profiles", adaptation="none", backbone=asked.backbone, max_epochs=1)
    validate(ON)
    now = datetime.now(UTC)
    (published,) = score_and_publish(ON, known_as_of=now).loads
    assert published.state == "published", published.reason
    changed = np.random.default_rng(1).choice(asked.users, int(asked.users * asked.changed), replace=False)
    table = profiles(np.sort(changed), np.random.default_rng(2))
    day = datetime(ON.year, ON.month, ON.day, tzinfo=UTC) - timedelta(days=1)
    dates = pa.array([day] * len(changed))
    pq.write_table(pa.table({**table, "event_timestamp": dates}), folder / "changed.parquet")
    import_tables(users=folder / "changed.parquet")

    seconds: dict[str, list[float]] = defaultdict(list)
    fingerprint.fingerprint_load = measured(seconds, "fingerprint", fingerprint.fingerprint_load)
    load_job.find_carried = measured(seconds, "finding and copying rows", load_job.find_carried)
    hashes, facts = set(), None
    for _ in range(asked.repeats):
        for name, carry in (("in full", "false"), ("carried over", "true")):
            os.environ["MMLORA_SCORING__CARRY_OVER"] = carry
            with timed(seconds, name):
                load_id = score(ON, DOMAIN, known_as_of=datetime.now(UTC))
            with open_workspace().open_warehouse() as warehouse:
                load = warehouse.load(load_id)
            hashes.add(load.content_hash)
            facts = load.checks
    assert len(hashes) == 1, "the hashes differ"
    assert facts is not None and facts.carried is not None
    medians = {name: statistics.median(v for v in values if v > 0.001) for name, values in seconds.items()}
    print(f"{facts.pairs:,} pairs of {facts.users:,} users; {facts.carried.users:,} users carried over\n")
    print("| what | seconds (median) | share of a night in full |")
    print("|---|---|---|")
    for name, value in medians.items():
        print(f"| {name} | {value:.2f} | {value / medians['in full']:.1%} |")


if __name__ == "__main__":
    main()
