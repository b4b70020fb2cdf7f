"""Run both DAGs, in one process, on a workspace in FOLDER/home; print how they ended, as JSON.

Usage: run_dags.py FOLDER WAREHOUSE_URL, where FOLDER holds interactions.csv and users.csv; the URL may be
empty. See test_runs.py.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mmlora.airflow_plugin.local import run_dag, use_airflow_home
from tests.dags.receiver import webhook

EXAMPLES = Path(__file__).parents[2] / "examples"
DOMAINS = ("comedy", "drama", "short")
TRAINED, NIGHT, NEXT_NIGHT = "2024-03-12", "2024-03-13", "2024-03-14"


def both_dags(folder: Path, home: Path, warehouse_url: str) -> dict[str, Any]:
    """Import, train, score a night; return how the DAGs ended and what readers get."""
    from mmlora.pipeline.data import import_tables
    from mmlora.pipeline.read import read_scores

    os.environ.update(MMLORA_HOME=str(home), MMLORA_WAREHOUSE_URL=warehouse_url)
    import_tables(folder / "interactions.csv", users=folder / "users.csv")
    runs = [
        run_dag("training", date=TRAINED, adaptation="moe_mlora", seed=1),
        run_dag("nightly_scoring", date=NIGHT, top_k=5),
    ]
    published = {}
    for domain in DOMAINS:
        with read_scores(domain) as reader:
            published[domain] = reader.read_all().select(["user_id", "position", "score"]).to_pylist()
    return {"runs": [asdict(run) for run in runs], "published": published}


def register_the_ranking_example() -> None:
    """Let Airflow know the DAG of examples/, as if a ranking team had put it into a bundle of its own."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    (bundle,) = (one for one in manager.get_all_dag_bundles() if one.name == "ranking")
    bundle.initialize()
    bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
    assert bag.import_errors == {}
    sync_bag_to_db(bag, bundle.name, bundle.version)


def run_the_ranking_example(folder: Path) -> dict[str, Any]:
    """Do what the scheduler does after the night: create the run that the Assets trigger; then run it."""
    import pyarrow.parquet as pq
    from airflow.dag_processing.dagbag import DagBag
    from airflow.jobs.job import Job
    from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
    from airflow.models.dag import DagModel
    from airflow.models.dagrun import DagRun
    from airflow.sdk import DagRunState
    from airflow.utils.session import create_session

    os.environ["RANKING_LISTS"] = str(folder / "lists")
    dag = DagBag(str(EXAMPLES)).dags["ranking_lists"]
    dag.get_task("write").python_callable.__globals__["FIRST"] = 3
    with create_session() as session:
        model = session.get(DagModel, "ranking_lists")
        SchedulerJobRunner(Job())._create_dag_runs_asset_triggered(dag_models=[model], session=session)

    def triggered(*, dag: Any, session: Any, **_: Any) -> DagRun:
        run = session.query(DagRun).filter(DagRun.dag_id == "ranking_lists").one()
        run.dag, run.state = dag, DagRunState.RUNNING
        return run

    with patch("airflow.models.dagrun.get_or_create_dagrun", triggered):
        run = dag.test()
    files = sorted((folder / "lists").rglob("*"))
    return {
        "state": str(run.state),
        "type": str(run.run_type),
        "labels": sorted(task.rendered_map_index or "" for task in run.get_task_instances()),
        "files": {
            str(path.relative_to(folder / "lists")): pq.read_table(path).to_pylist()
            for path in files
            if path.is_file()
        },
    }


def a_domain_and_a_batch_fail(home: Path) -> dict[str, Any]:
    """Score the next night, which the data ends before, with each domain in a batch of its own.

    The warehouse refuses the loads of `drama`, and the batch of `short` dies.
    """
    os.environ.update(MMLORA_HOME=str(home), MMLORA_WAREHOUSE_URL="", MMLORA_SCORING__BATCH_PAIRS="1")
    from mmlora.pipeline.outcomes import NightOutcome
    from mmlora.pipeline.score import score_and_publish

    connection = sqlite3.connect(home / "warehouse.db")
    connection.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON score_loads WHEN NEW.domain_id = 'drama' "
        "BEGIN SELECT RAISE(ABORT, 'no drama tonight'); END"
    )
    connection.close()

    def dying(on: date, *, domains: Sequence[str], **options: Any) -> NightOutcome:
        if list(domains) == ["short"]:
            raise MemoryError("the batch of short dies")
        return score_and_publish(on, domains=domains, **options)

    with patch("mmlora.pipeline.score.score_and_publish", dying):
        return asdict(run_dag("nightly_scoring", date=NEXT_NIGHT, allow_stale=True))


def late(run_id: str) -> None:
    """Do what Airflow does when a run isn't done by its deadline."""
    from airflow.sdk.execution_time.callback_supervisor import execute_callback
    from structlog import get_logger

    from mmlora.airflow_plugin.alerts import nightly_deadline

    (deadline,) = nightly_deadline()
    run = {"dag_id": "nightly_scoring", "dag_run_id": run_id, "conf": None, "run_after": f"{NIGHT}T01:00:00Z"}
    context = {"dag_run": {**run, "data_interval_end": None}, "deadline": {}}
    kwargs = {**deadline.callback.kwargs, "context": context}
    done = execute_callback(deadline.callback.path, kwargs, Path(), None, get_logger())
    assert done == (True, None), done


def asset_events() -> list[dict[str, Any]]:
    """Return what the events of the Asset said, oldest first."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        return [event.extra for event in session.query(AssetEvent).order_by(AssetEvent.id)]


def main(folder: Path, warehouse_url: str) -> None:
    """Run everything and print it on the last line."""
    bundles = [
        {"name": name, "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": kwargs}
        for name, kwargs in (("dags-folder", {}), ("ranking", {"path": str(EXAMPLES)}))
    ]
    os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(bundles)
    os.environ["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "False"
    use_airflow_home(folder / "airflow")
    register_the_ranking_example()
    with webhook() as (address, alerts):
        os.environ["MMLORA_ALERTS__WEBHOOK"] = address
        results = both_dags(folder, folder / "home", warehouse_url)
        results["ranking"] = run_the_ranking_example(folder)
        if not warehouse_url:
            results["failures"] = a_domain_and_a_batch_fail(folder / "home")
            late("a-run")
    results["alerts"] = alerts
    results["asset_events"] = asset_events()
    sys.stdout.write("\n" + json.dumps(results) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
