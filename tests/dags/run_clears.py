"""Airflow in a process that runs DAGs and clears tasks of finished runs, as asked by lines of JSON on stdin.

Usage: run_clears.py AIRFLOW_HOME. Each answer is a line on stdout that begins with ``ANSWER``. See
test_clears.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmlora.airflow_plugin.local import run_dag, use_airflow_home
from mmlora.resources import resource

ANSWER = "answer: "


def run(dag_id: str, form: Mapping[str, Any]) -> dict[str, Any]:
    """Run a DAG; return the id of the run, how it ended and its tasks."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    outcome = run_dag(dag_id, **form)
    with create_session() as session:
        run_id = (
            session.query(DagRun).filter(DagRun.dag_id == dag_id).order_by(DagRun.id.desc()).first().run_id
        )
    tasks = sorted({task.task_id for task in outcome.tasks})
    return {"run_id": run_id, "state": outcome.state, "tasks": tasks}


def clear(dag_id: str, run_id: str, tasks: Sequence[str], downstream: bool) -> dict[str, Any]:
    """Clear tasks of a run, as Airflow's API does, and run what is cleared; return how the run ended.

    In place of the scheduler, which would take the run up, ``dag.test()`` is given it instead of a new one.
    """
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DagRunState
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.session import create_session

    dag = DagBag(str(resource("dags"))).dags[dag_id]
    dag.deadline = []
    stored = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    names = set(tasks)
    if downstream:
        names |= set(stored.partial_subset(names, include_downstream=True, include_upstream=False).task_dict)
    with create_session() as session:
        cleared = stored.clear(run_id=run_id, task_ids=sorted(names), session=session)

    def taken_up(*, dag: Any, session: Any, **_: Any) -> DagRun:
        run = session.query(DagRun).filter(DagRun.dag_id == dag_id, DagRun.run_id == run_id).one()
        assert run.state == DagRunState.QUEUED
        run.dag, run.state = dag, DagRunState.RUNNING
        return run

    with patch("airflow.models.dagrun.get_or_create_dagrun", taken_up):
        ended = dag.test()
    states = {f"{task.task_id} {task.map_index}": str(task.state) for task in ended.get_task_instances()}
    return {"state": str(ended.state), "names": sorted(names), "cleared": cleared, "states": states}


def main(airflow_home: Path) -> None:
    """Answer each line of stdin."""
    use_airflow_home(airflow_home)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = clear(**asked) if "run_id" in asked else run(**asked)
        sys.stdout.write(f"\n{ANSWER}{json.dumps(answer)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
