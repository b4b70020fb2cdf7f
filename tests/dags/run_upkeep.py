"""Run `maintenance` and `backfill` on the workspace of the environment; print how they ended, as JSON.

Usage: run_upkeep.py AIRFLOW_HOME. See test_upkeep.py.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from mmlora.airflow_plugin.local import DagOutcome, run_dag, use_airflow_home
from tests.dags.receiver import webhook

NIGHTS = {"start": "2001-04-08", "end": "2001-04-09"}
NEXT_DAY = "2001-04-10"


def main(airflow_home: Path) -> None:
    """Run everything and print it on the last line."""
    use_airflow_home(airflow_home)
    runs: dict[str, DagOutcome] = {"nothing published": run_dag("maintenance", date=NEXT_DAY, late_days=3)}
    runs["plan"] = run_dag("backfill", **NIGHTS, domains=["news"], plan_only=True)
    runs["filled"] = run_dag("backfill", **NIGHTS, domains=["news", "sport"])
    runs["healthy"] = run_dag("maintenance", date=NEXT_DAY, late_days=3)
    os.environ.update(MMLORA_QUALITY__MIN_AUC="0.99", MMLORA_QUALITY__MIN_CLICKS="1")
    runs["poor"] = run_dag("maintenance", date=NEXT_DAY)
    with (
        webhook() as (address, alerts),
        closing(sqlite3.connect(Path(os.environ["MMLORA_HOME"]) / "warehouse.db")) as database,
    ):
        os.environ["MMLORA_ALERTS__WEBHOOK"] = address
        database.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON score_loads WHEN NEW.domain_id = 'sport' "
            "BEGIN SELECT RAISE(ABORT, 'no sport tonight'); END"
        )
        runs["refused"] = run_dag("backfill", **NIGHTS, domains=["news", "sport"], top_k=4)
        database.execute("DROP TRIGGER refuse")
    results = {"runs": {name: asdict(run) for name, run in runs.items()}, "alerts": alerts}
    sys.stdout.write("\n" + json.dumps(results) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
