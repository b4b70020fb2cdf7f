"""Judge a run's model against baselines, between evaluation and registration.

The baselines are in :mod:`mmlora.judging`. This module provides what other packages have: the rows as they
were read, and the lists that a night would give to a sample of users. :mod:`mmlora.runs.held_out` compares
with the champion.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from mmlora.judgement import Judgement, ListRow, below_baseline
from mmlora.runs.panels import Ranker
from mmlora.runs.starting import begun_with
from mmlora.runs.state import Run
from mmlora.runs.steps import evaluation_of
from mmlora.runs.training_run import base_of, data_of, models_of, open_run, refitted, rounded
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, Id
from mmlora.workspace import Progress, Workspace, silent

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.judging.contest import Contender
    from mmlora.judging.rows import Rows
    from mmlora.models.builder import Model
    from mmlora.models.calibration import Calibration
    from mmlora.training.dataset import TrainingSet
    from mmlora.training.epoch import RowNumbers

logger = logging.getLogger(__name__)


def judge(run_id: str, *, progress: Progress = silent) -> Judgement:
    """Compare a run's final model with baselines on the test rows, once.

    Args:
        run_id: an evaluated run.
        progress: called after each contender.

    Raises:
        DataError: the stored interactions no longer match the training set.
    """
    workspace, run = open_run(run_id)
    if (done := judgement_of(run)) is not None:
        return done
    judgement = compute_judgement(workspace, run, progress)
    run.record("judgement", judgement.to_json())
    _log(judgement)
    return judgement


def judgement_of(run: Run) -> Judgement | None:
    """Return a run's judgement; None when it isn't judged yet."""
    stored = run.result("judgement")
    return None if stored is None else Judgement.from_json(stored)


def compute_judgement(workspace: Workspace, run: Run, progress: Progress) -> Judgement:
    """Compute a run's judgement; see :func:`judge`."""
    from mmlora.judging.judgement import judge, nothing_judged
    from mmlora.runs.baselines import baselines_of
    from mmlora.runs.judged_rows import judged_rows_of

    data = data_of(workspace, run)
    if not len(data.rows("test")):
        return nothing_judged("the split leaves no test rows")
    judged = judged_rows_of(workspace, run, data)
    rows, numbers = judged.rows, judged.numbers
    *_, (phase, model) = models_of(workspace, run)
    calibration = _calibration(workspace, run)
    progress("judge", 0, 3)
    contenders = [_model(model, calibration, data, numbers)]
    progress("judge", 1, 3)
    contenders += baselines_of(workspace, run, judged)
    progress("judge", 2, 3)
    ranker = Ranker(workspace, run.config.as_of, data, judged.ids, model, calibration)
    judgement = judge(rows, contenders, numbers, judged.shown, judged.day, list(_lists(ranker, rows)))
    progress("judge", 3, 3)
    refit = refitted(run) is not run
    seen_until = _seen_until(workspace, run, data, judged.table)
    return replace(judgement, model=phase, refit=refit, seen_until=seen_until)


def _calibration(workspace: Workspace, run: Run) -> Calibration:
    from mmlora.models.calibration import Calibration

    evaluation = evaluation_of(run)
    assert evaluation is not None  # evaluation comes before judging
    return Calibration.from_json(workspace.parts.json(evaluation.calibration))


def _seen_until(workspace: Workspace, run: Run, data: TrainingSet, table: pa.Table) -> dict[str, str]:
    """Return the last moment of each domain's training and validation rows (ISO 8601), and of a base's.

    A base, or the model that a run began with, may have seen rows of domains that this run has none of, e.g.
    to choose their mixtures.
    """
    import pyarrow as pa

    seen = table.select([DOMAIN_ID, EVENT_TIMESTAMP]).filter(pa.array(np.asarray(data.split) != 2))
    newest = seen.group_by(DOMAIN_ID).aggregate([(EVENT_TIMESTAMP, "max")]).to_pylist()
    last: dict[Id, datetime] = {row[DOMAIN_ID]: row[f"{EVENT_TIMESTAMP}_max"] for row in newest}
    if (base := base_of(workspace, run) or begun_with(workspace, run)) is not None:
        known = (*base.manifest.training_domains, *(m.domain for m in base.manifest.mixtures), *last)
        earlier = {domain: base.manifest.last_seen(domain) for domain in known}
        last = {domain: max(moment, last.get(domain, moment)) for domain, moment in earlier.items()}
    return {str(domain): moment.astimezone(UTC).isoformat() for domain, moment in last.items()}


def _model(model: Model, calibration: Calibration, data: TrainingSet, numbers: RowNumbers) -> Contender:
    import torch

    from mmlora.judging.contest import MODEL, Contender
    from mmlora.training.loop import predict

    begun = time.monotonic()
    logits, _ = predict(model, data, numbers)
    domain = torch.from_numpy(np.asarray(data.domain[numbers], np.int64))
    scores = calibration.apply(torch.from_numpy(np.array(logits)).double(), domain).numpy()
    return Contender(MODEL, scores, "calibrated", time.monotonic() - begun)


def _lists(ranker: Ranker, rows: Rows) -> Iterator[ListRow]:
    """Yield the diversity of the lists by the model, and by items' click rates, for a sample per domain."""
    from mmlora.judging.contest import ITEM_CTR, MODEL
    from mmlora.judging.lists import LIST_LENGTH, list_row, panels, popular_lists
    from mmlora.judging.popularity import ItemRates

    chosen, rates = panels(rows), ItemRates.of(rows)
    for panel, ranked in zip(chosen, ranker.lists(chosen, LIST_LENGTH), strict=True):
        domain = str(rows.data.domains[panel.domain])
        yield list_row(domain, MODEL, panel, *ranked)
        popular = popular_lists(panel, rates, rows.seed)
        yield list_row(domain, ITEM_CTR, panel, *popular)


def _log(judgement: Judgement) -> None:
    """Log one line per contender, then the sentence, as a warning if the model is below its baseline."""
    for row in judgement.compared:
        logger.info("judge, %s: wauc %s, %.0f s", row.name, rounded(row.wauc), row.seconds)
    level = logging.WARNING if below_baseline(judgement) else logging.INFO
    logger.log(level, "%s", judgement.sentence)
