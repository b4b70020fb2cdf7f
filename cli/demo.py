"""``make demo``: the nightly job, end to end, on MovieLens-1M by occupation, through both DAGs.

Everything lies in the workspace (``MMLORA_HOME``, ``./var`` by default), so running it again reuses it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from datetime import date
from typing import Any

import typer

from cli.output import note, print_table
from mmlora.errors import MmloraError

AS_OF = date(2000, 12, 30)
NIGHT = date(2000, 12, 31)


def main() -> None:
    """Import, train as of a day, score the next night, and show what came of it."""
    begun = time.monotonic()
    os.environ.setdefault("MMLORA_HOME", "var")
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    try:
        _import()
        trained = _finished_run()
        if trained and _published():
            note(f"{NIGHT} is published already; `rm -rf {os.environ['MMLORA_HOME']}` for a fresh start")
        else:
            _run_dags()
            trained = _finished_run()
        assert trained is not None  # the training DAG has ended
        _show(trained)
    except MmloraError as error:
        note(f"demo: {error}")
        sys.exit(error.exit_code)
    note(f"\nThe demo took {time.monotonic() - begun:.0f} s. Try next:")
    note("  .venv/bin/mmlora read --domain farmer --limit 10")
    note("  .venv/bin/mmlora backfill --domain farmer --start 2000-12-28 --end 2000-12-30")
    note("  make airflow")


def _import() -> None:
    from mmlora.pipeline.importing import import_movielens

    note("MovieLens-1M (research use, https://grouplens.org/datasets/movielens/1m/), domains by occupation")
    report = import_movielens(domain_by="occupation")
    note(f"  {report['interactions']:,} interactions imported, {report['unchanged']:,} were there")


def _run_dags() -> None:
    from mmlora.airflow_plugin.local import run_dag, use_airflow_home
    from mmlora.pipeline.workspace import open_workspace

    use_airflow_home(open_workspace().home / "airflow-demo")
    _show_steps()
    for dag_id, day in (("training", AS_OF), ("nightly_scoring", NIGHT)):
        note(f"Airflow: {dag_id} for {day}")
        begun = time.monotonic()
        outcome = run_dag(dag_id, date=day.isoformat())
        failed = [f"{task.task_id} {task.label}" for task in outcome.tasks if task.state == "failed"]
        note(f"  {dag_id}: {outcome.state}, {len(outcome.tasks)} tasks, {time.monotonic() - begun:.0f} s")
        if outcome.state != "success":
            note(f"demo: tasks failed: {', '.join(failed)}")
            sys.exit(1)


def _show_steps() -> None:
    """Print what each step logs, and nothing of the libraries below."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("  %(message)s"))
    logger = logging.getLogger("mmlora.pipeline")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def _finished_run() -> dict[str, Any] | None:
    """Return the summary of the run registered as of the demo's day, if there is one."""
    from mmlora.pipeline.runs import Run
    from mmlora.pipeline.training import summary
    from mmlora.pipeline.workspace import open_workspace

    for folder in sorted((open_workspace().home / "runs").glob("*")):
        run = Run(folder)
        if run.result("registered") and run.config["as_of"] == AS_OF.isoformat():
            return summary(run.run_id)
    return None


def _published() -> bool:
    from mmlora.pipeline.workspace import open_workspace

    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        published = warehouse.publications(start=NIGHT, end=NIGHT)
    return len(published) == len(workspace.expected_domains())


def _show(trained: dict[str, Any]) -> None:
    from cli.train import print_training
    from cli.validate import print_verdicts
    from mmlora.pipeline.validation import stored_verdicts

    print_verdicts(stored_verdicts(NIGHT))
    print_training(trained)
    _show_scores()


def _show_scores() -> None:
    from mmlora.pipeline.reading import read_scores
    from mmlora.pipeline.workspace import open_workspace

    with open_workspace().open_warehouse() as warehouse:
        loads = [load for load in warehouse.loads(states=("published",)) if load.score_date == NIGHT]
    sizes = [load.checks or {} for load in loads]
    pairs, seconds = sum(s["pairs"] for s in sizes), sum(s["seconds"] for s in sizes)
    rows = sum(load.rows or 0 for load in loads)
    with read_scores("artist", limit=10) as reader:
        columns = ("domain_id", "score_date", "user_id", "position", "item_id", "score", "model_version")
        first = [
            [str(r[c]) if c == "user_id" else r[c] for c in columns] for r in reader.read_all().to_pylist()
        ]
    print_table("scores_latest, ten rows", columns, first)
    typer.echo(
        f"{pairs:,} pairs of {len(loads)} domains scored, {pairs / max(seconds, 1e-9):,.0f} a second; "
        f"{rows:,} rows published for {NIGHT}"
    )


if __name__ == "__main__":
    main()
