"""Run the DAG `nightly_scoring` in this process: run_night.py FOLDER DATE DOMAIN. See test_lineage.py."""

import sys
from pathlib import Path

from mmlora.airflow_plugin.local import run_dag, use_airflow_home

use_airflow_home(Path(sys.argv[1]))
outcome = run_dag("nightly_scoring", date=sys.argv[2], domains=[sys.argv[3]])
for task in outcome.tasks:
    sys.stdout.write(f"{task.task_id} {task.state}\n")
