"""Train the baselines on a run's training set.

Baselines depend only on the training set, so they are trained once for all runs on the same rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mmlora
from mmlora.files import locked
from mmlora.runs.judged_rows import JudgedRows, judged_rows_of
from mmlora.runs.state import Run
from mmlora.runs.training_run import data_of, open_run, run_of
from mmlora.schema import fingerprint
from mmlora.training import TRAINING_REVISION
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    from mmlora.judging.contest import Contender


def train_baselines(run_id: str) -> str:
    """Train a run's baselines and store their scores of the judged rows, unless they exist.

    Args:
        run_id: a prepared run.

    Raises:
        DataError: the stored interactions no longer match the training set.
    """
    workspace, run = open_run(run_id)
    data = data_of(workspace, run)
    if len(data.rows("test")):
        baselines_of(workspace, run, judged_rows_of(workspace, run, data))
    return run_id


def baselines_of(workspace: Workspace, run: Run, judged: JudgedRows) -> list[Contender]:
    """Return the baselines with their scores of the judged rows, and train those that are missing.

    The run refers to the results, which runs on the same rows share.
    """
    import torch

    from mmlora.judging import contest
    from mmlora.training.boosting import installed

    shared = run_of(workspace, "steps")
    decisive = {
        "step": "baselines",
        "training_set": judged.rows.data.path.name,
        "seed": judged.rows.seed,
        "day": judged.day,
        "lightgbm": installed(),
        "code_version": mmlora.__version__,
        "training_revision": TRAINING_REVISION,
    }
    key = fingerprint(decisive)[:24]
    waiting = "baselines: another process trains them; waiting for it"
    with locked(shared.folder / f"{key}.lock", waiting=waiting):
        if (record := shared.result(key)) is None:
            threads = workspace.settings.training.threads
            trained = contest.train_baselines(judged.rows, judged.numbers, threads)
            scores = {each.name: torch.from_numpy(each.scores) for each in trained if each.scores is not None}
            part = workspace.parts.put_tensors(scores) if scores else None
            rows = [{"name": each.name, "note": each.note, "seconds": each.seconds} for each in trained]
            record = shared.record(key, {"part": part, "contenders": rows})
    run.record("baselines", record)
    scores = workspace.parts.tensors(record["part"]) if record["part"] else {}
    return [
        contest.Contender(
            row["name"],
            scores[row["name"]].numpy() if row["name"] in scores else None,
            row["note"],
            row["seconds"],
        )
        for row in record["contenders"]
    ]
