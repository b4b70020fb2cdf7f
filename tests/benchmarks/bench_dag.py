"""The nightly DAG on many small domains: prints a Markdown table.

Made-up domains of 50 users and 100 items, so 5,000 pairs each, scored by Airflow's ``dag.test()`` in one
process. ``--batch-pairs 1`` gives each domain a scoring task of its own, as without batches; a real executor
then loads the libraries for each, which this process does only once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

USERS, ITEMS, DAYS, ROWS = 50, 100, 20, 200  # per domain
START = datetime(2024, 3, 1, tzinfo=UTC)


def write_rows(path: Path, domains: int) -> None:
    rng = np.random.default_rng(0)
    domain = np.repeat(np.arange(domains), ROWS)
    user, item = rng.integers(0, USERS, len(domain)), rng.integers(0, ITEMS, len(domain))
    per_domain = np.arange(len(domain)) % ROWS
    user[per_domain < USERS] = per_domain[per_domain < USERS]
    item[per_domain < ITEMS] = per_domain[per_domain < ITEMS]
    seconds = rng.integers(0, DAYS * 86_400, len(domain))
    like = rng.random(len(domain)) < np.where((user + item + domain) % 2, 0.5, 0.2)
    pq.write_table(
        pa.table(
            {
                "user_id": user,
                "item_id": item,
                "domain_id": [f"d{number:03}" for number in domain],
                "event_timestamp": [START + timedelta(seconds=int(second)) for second in seconds],
                "label": like.astype(np.int8),
            }
        ),
        path,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=200)
    parser.add_argument("--batch-pairs", type=int, default=20_000_000)
    options = parser.parse_args()
    from mmlora.airflow_plugin.local import run_dag, use_airflow_home

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ.update(
            MMLORA_HOME=str(home / "var"),
            MMLORA_SCORING__BATCH_PAIRS=str(options.batch_pairs),
            MMLORA_CANDIDATES__EXCLUDE="none",
            MMLORA_CHECKS__VOLUME_MIN_RATIO="0",
        )
        use_airflow_home(home / "airflow")
        from mmlora.pipeline.data import import_tables
        from mmlora.pipeline.train import train

        write_rows(home / "rows.parquet", options.domains)
        import_tables(home / "rows.parquet")
        trained = (START + timedelta(days=DAYS)).date()
        train(trained, adaptation="none", max_epochs=1)
        began = time.perf_counter()
        outcome = run_dag("nightly_scoring", date=trained.isoformat())
        seconds = time.perf_counter() - began
    print(f"{outcome.state} in {seconds:.1f} s, {seconds / options.domains:.2f} s per domain\n")
    print("| task | instances | seconds |")
    print("|---|---|---|")
    spent: dict[str, float] = defaultdict(float)
    for task in outcome.tasks:
        spent[task.task_id] += task.seconds
    counts = Counter((task.task_id, task.state) for task in outcome.tasks)
    for (task_id, state), count in counts.items():
        print(f"| {task_id} | {count} {state} | {spent[task_id]:.1f} |")


if __name__ == "__main__":
    main()
