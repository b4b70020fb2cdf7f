"""What the demos share: the nightly job on a data set through Airflow, and its results.

Everything is stored in the demo's workspace (``MMLORA_HOME``, by default a folder in the working directory),
which later runs reuse.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import typer

from mmlora.errors import MmloraError
from mmlora_cli.output import note, print_table

if TYPE_CHECKING:
    from mmlora.pipeline.training_summary import TrainingSummary


@dataclass(frozen=True)
class Demo:
    """A demo.

    Attributes:
        home: the workspace, unless ``MMLORA_HOME`` is set.
        as_of: the day of training.
        night: the date that is scored.
        load: imports the data.
        show: prints the results, given the summary of the training run.
        next_steps: commands to try afterwards, without ``MMLORA_HOME``.
    """

    home: str
    as_of: date
    night: date
    load: Callable[[], None]
    show: Callable[[TrainingSummary], None]
    next_steps: tuple[str, ...]


def run_demo(demo: Demo) -> None:
    """Import, train as of a day, score a night, and show the results."""
    begun = time.monotonic()
    os.environ.setdefault("MMLORA_HOME", demo.home)
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    home = os.environ["MMLORA_HOME"]
    try:
        demo.load()
        trained = _finished_run(demo)
        if trained and _published(demo):
            note(f"{demo.night} is already published; to start afresh: rm -rf {home}")
        else:
            _run_dags(demo)
            trained = _finished_run(demo)
        assert trained is not None  # the training DAG has ended
        demo.show(trained)
    except MmloraError as error:
        note(f"demo: {error}")
        sys.exit(error.exit_code)
    prefix = "" if home == "var" else f"MMLORA_HOME={home} "
    note(f"\nThe demo took {time.monotonic() - begun:.0f} s. Try next:")
    for command in demo.next_steps:
        note(f"  {prefix}{command}")


def _run_dags(demo: Demo) -> None:
    from mmlora.airflow_plugin.local import run_dag, use_airflow_home
    from mmlora.workspace import open_workspace

    use_airflow_home(open_workspace().home / "airflow-demo")
    _show_steps()
    for dag_id, day in (("training", demo.as_of), ("nightly_scoring", demo.night)):
        note(f"Airflow: {dag_id} for {day}")
        begun = time.monotonic()
        outcome = run_dag(dag_id, date=day.isoformat())
        failed = [f"{task.task_id} {task.label}" for task in outcome.tasks if task.state == "failed"]
        note(f"  {dag_id}: {outcome.state}, {len(outcome.tasks)} tasks, {time.monotonic() - begun:.0f} s")
        if outcome.state != "success":
            note(f"demo: tasks failed: {', '.join(failed)}")
            sys.exit(1)


def _show_steps() -> None:
    """Print the log messages of each step, but not those of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("  %(message)s"))
    logger = logging.getLogger("mmlora.pipeline")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def _finished_run(demo: Demo) -> TrainingSummary | None:
    """Return the summary of the run registered as of the demo's day, if there is one."""
    from mmlora.pipeline.train import summary
    from mmlora.runs.state import Run
    from mmlora.workspace import open_workspace

    for folder in sorted((open_workspace().home / "runs").glob("*")):
        run = Run(folder)
        if run.result("registered") and run.config.as_of == demo.as_of:
            return summary(run.run_id)
    return None


def _published(demo: Demo) -> bool:
    from mmlora.workspace import open_workspace

    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        published = warehouse.publications(start=demo.night, end=demo.night)
    return len(published) == len(workspace.expected_domains())


def show_training(trained: TrainingSummary, night: date) -> None:
    """Print the night's verdicts, the training phases, the test metrics and the judgement."""
    from mmlora.runs.verdicts import stored_verdicts
    from mmlora.workspace import open_workspace
    from mmlora_cli.train import print_training
    from mmlora_cli.validate import print_verdicts

    print_verdicts(stored_verdicts(open_workspace(), night))
    print_training(trained)


def show_scores(domain: str, night: date) -> None:
    """Print a domain's first rows, and the number of pairs scored and rows published for all domains."""
    from mmlora.pipeline.read import read_scores
    from mmlora.workspace import open_workspace

    with open_workspace().open_warehouse() as warehouse:
        loads = [load for load in warehouse.loads(states=("published",)) if load.score_date == night]
    sizes = [load.checks for load in loads if load.checks is not None]
    pairs, seconds = sum(s.pairs or 0 for s in sizes), sum(s.seconds or 0.0 for s in sizes)
    rows = sum(load.rows or 0 for load in loads)
    with read_scores(domain, limit=10) as reader:
        columns = ("domain_id", "score_date", "user_id", "position", "item_id", "score", "model_version")
        first = [
            [str(r[c]) if c == "user_id" else r[c] for c in columns] for r in reader.read_all().to_pylist()
        ]
    print_table("the first ten rows of scores_latest", columns, first)
    typer.echo(
        f"{pairs:,} pairs of {len(loads)} domains scored, {pairs / max(seconds, 1e-9):,.0f} per second; "
        f"{rows:,} rows published for {night}"
    )
