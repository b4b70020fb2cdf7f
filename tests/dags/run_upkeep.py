"""Run `maintenance` and `backfill` on the workspace of the environment; print how they ended, as JSON.

Usage: run_upkeep.py AIRFLOW_HOME. See test_upkeep.py.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from mmlora.airflow_plugin.local import DagOutcome, run_dag, use_airflow_home

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
    sys.stdout.write("\n" + json.dumps({name: asdict(run) for name, run in runs.items()}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
