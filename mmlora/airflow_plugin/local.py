"""Run a DAG here and now: every task in this process, in order, without a scheduler or server.

It is Airflow's ``dag.test()`` with a small database of its own, for the demo and the tests.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlora.resources import resource


@dataclass(frozen=True)
class TaskOutcome:
    """How one task instance ended.

    Attributes:
        task_id: the task, e.g. ``domain.score``.
        label: the domain of a mapped instance, else empty.
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
    """Have Airflow keep its database and logs under ``folder``, made when new, and take the DAGs of mmlora.

    Raises:
        RuntimeError: Airflow was imported before, and so has read its settings.
    """
    if "airflow" in sys.modules:
        raise RuntimeError("use_airflow_home comes before anything that imports Airflow")
    os.environ.update(
        AIRFLOW_HOME=str(folder.resolve()),
        AIRFLOW__CORE__DAGS_FOLDER=str(resource("dags")),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
    )
    # Failures only: a line for everything that a task does is for Airflow's UI.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    from airflow.utils.db import upgradedb

    upgradedb()


def run_dag(dag_id: str, **params: Any) -> DagOutcome:
    """Run one DAG with the Params of its form; :func:`use_airflow_home` comes first."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(resource("dags")))
    run = bag.dags[dag_id].test(run_conf=params)
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
