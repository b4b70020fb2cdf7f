"""Run a DAG here and now: every task in this process, in order, without a scheduler or server.

It uses Airflow's ``dag.test()`` with its own small database, for the demo and the tests.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mmlora.resources import resource


@dataclass(frozen=True)
class TaskOutcome:
    """How one task instance ended.

    Attributes:
        task_id: the task, e.g. ``score``.
        label: the domains of a mapped instance, e.g. those of its batch; otherwise empty.
        state: ``success``, ``failed``, ``upstream_failed``, ``skipped``.
        seconds: how long it ran.
    """

    task_id: str
    label: str
    state: str
    seconds: float


@dataclass(frozen=True)
class DagOutcome:
    """How a run of a DAG ended: ``success`` or ``failed``, and each of its task instances in order."""

    dag_id: str
    state: str
    tasks: tuple[TaskOutcome, ...]


def use_airflow_home(folder: Path) -> None:
    """Make Airflow use mmlora's DAGs, and ``folder``, created if needed, for its database and logs.

    Raises:
        RuntimeError: Airflow was already imported, so it has read its settings.
    """
    if "airflow" in sys.modules:
        raise RuntimeError("call use_airflow_home before anything imports Airflow")
    os.environ.update(
        AIRFLOW_HOME=str(folder.resolve()),
        AIRFLOW__CORE__DAGS_FOLDER=str(resource("dags")),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
    )
    # Failures only: detailed task logs are for Airflow's UI.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    from airflow.utils.db import upgradedb

    upgradedb()


def run_dag(dag_id: str, **params: object) -> DagOutcome:
    """Run one DAG with the Params of its form; call :func:`use_airflow_home` first."""
    from airflow.dag_processing.dagbag import DagBag

    dag = DagBag(str(resource("dags"))).dags[dag_id]
    dag.deadline = []  # nobody watches for it here, and `dag.test()` of Airflow 3.3 can't store it
    for task in dag.tasks:
        # When `dag.test()` of Airflow 3.3 calls back, it wants a value in the task for each required field.
        task.params.update(params)
    run = dag.test(run_conf=params)
    instances = sorted(
        run.get_task_instances(), key=lambda ti: (str(ti.start_date), ti.task_id, ti.map_index)
    )
    return DagOutcome(
        dag_id,
        str(run.state),
        tuple(
            TaskOutcome(ti.task_id, ti.rendered_map_index or "", str(ti.state), ti.duration or 0.0)
            for ti in instances
        ),
    )
