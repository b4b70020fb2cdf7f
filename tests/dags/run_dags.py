"""Run both DAGs on the workspace that the environment names; print how they ended, as JSON. See test_runs.py."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from mmlora.airflow_plugin.local import run_dag, use_airflow_home

if __name__ == "__main__":
    home, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    use_airflow_home(home)
    outcomes = [asdict(run_dag(dag_id, **params)) for dag_id, params in runs]
    sys.stdout.write("\n" + json.dumps(outcomes) + "\n")
