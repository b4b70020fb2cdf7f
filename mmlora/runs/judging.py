"""Judge a run's model against baselines, between evaluation and registration.

The baselines are in :mod:`mmlora.judging`. This module provides what other packages have: the rows as they
were read, the champion, and the lists that a night would give to a sample of users.
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
from mmlora.runs.champions import CHAMPION
from mmlora.runs.panels import Ranker
from mmlora.runs.state import Run
from mmlora.runs.steps import evaluation_of
from mmlora.runs.training_run import data_of, models_of, open_run, refitted, rounded
from mmlora.runs.training_set import features_of
from mmlora.schema import EVENT_TIMESTAMP, midnight
from mmlora.workspace import Progress, Workspace, silent

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.encoding import Encoder
    from mmlora.judging.contest import Contender
    from mmlora.judging.rows import Floats, Rows
    from mmlora.models.builder import Model
    from mmlora.models.calibration import Calibration
    from mmlora.registry.bundle import Bundle
    from mmlora.training.dataset import TrainingSet
    from mmlora.training.epoch import RowNumbers

logger = logging.getLogger(__name__)


def judge(run_id: str, *, progress: Progress = silent) -> Judgement:
    """Compare a run's final model with baselines and the champion on the test rows, once.

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
    progress("judge", 0, 4)
    contenders = [_model(model, calibration, data, numbers)]
    progress("judge", 1, 4)
    contenders += baselines_of(workspace, run, judged)
    progress("judge", 2, 4)
    contenders += _champion(workspace, data, judged.table, numbers)
    progress("judge", 3, 4)
    ranker = Ranker(workspace, run.config.as_of, data, judged.ids, model, calibration)
    judgement = judge(rows, contenders, numbers, judged.shown, judged.day, list(_lists(ranker, rows)))
    progress("judge", 4, 4)
    refit = refitted(run) is not run
    until = _trained_until(data, judged.table, refit=refit)
    return replace(judgement, model=phase, refit=refit, trained_until=until)


def _calibration(workspace: Workspace, run: Run) -> Calibration:
    from mmlora.models.calibration import Calibration

    evaluation = evaluation_of(run)
    assert evaluation is not None  # evaluation comes before judging
    return Calibration.from_json(workspace.parts.json(evaluation.calibration))


def _trained_until(data: TrainingSet, table: pa.Table, *, refit: bool) -> str:
    """Return the last moment of the registered model's training rows, ISO 8601."""
    import pyarrow as pa
    import pyarrow.compute as pc

    chosen = np.asarray(data.split) == 0
    newest: datetime = pc.max(table[EVENT_TIMESTAMP].filter(pa.array(chosen | refit))).as_py()
    return newest.isoformat()


def _model(model: Model, calibration: Calibration, data: TrainingSet, numbers: RowNumbers) -> Contender:
    import torch

    from mmlora.judging.contest import MODEL, Contender
    from mmlora.training.loop import predict

    begun = time.monotonic()
    logits, _ = predict(model, data, numbers)
    domain = torch.from_numpy(np.asarray(data.domain[numbers], np.int64))
    scores = calibration.apply(torch.from_numpy(np.array(logits)).double(), domain).numpy()
    return Contender(MODEL, scores, "calibrated", time.monotonic() - begun)


def _champion(
    workspace: Workspace, data: TrainingSet, table: pa.Table, numbers: RowNumbers
) -> Iterator[Contender]:
    """Yield the present champion, if there is one: with scores, or with why it wasn't compared."""
    from mmlora.judging.contest import CHAMPION as NAME
    from mmlora.judging.contest import Contender

    with workspace.open_warehouse() as warehouse:
        version = warehouse.current(CHAMPION)
    if version is None:
        return
    begun, bundle = time.monotonic(), workspace.bundles.load(version)
    if why := _incomparable(bundle, data):
        logger.info("%s %s: not compared: %s", NAME, version, why)
        yield Contender(NAME, None, f"{version}: {why}")
        return
    scores = _scores_of(workspace, bundle, data, table, numbers)
    seen = _has_seen(bundle, data, table)
    note = (
        f"{version}; it may have been trained on some of these rows, which flatters it" if seen else version
    )
    yield Contender(NAME, scores, note, time.monotonic() - begun, decides=not seen)


def _incomparable(bundle: Bundle, data: TrainingSet) -> str:
    """Return why a bundle can't score the rows of a training set; empty when it can.

    It can if every field that it reads is a field of the training set with the same definition.
    """
    available = {field.name: field for field in data.manifest.contract.fields}
    missing = [f.name for f in bundle.contract.fields if available.get(f.name) != f]
    if not missing:
        return ""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    named = ", ".join(missing[:3]) + more
    return f"it reads features that these rows don't have, or not by the same definition: {named}"


def _has_seen(bundle: Bundle, data: TrainingSet, table: pa.Table) -> bool:
    """Return whether some of the test rows may have been training rows of a bundle."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first: datetime = pc.min(table[EVENT_TIMESTAMP].filter(pa.array(np.asarray(data.split) == 2))).as_py()
    judgement = bundle.manifest.judgement
    if judgement is None or judgement.trained_until is None:
        return midnight(bundle.manifest.as_of) > first
    return datetime.fromisoformat(judgement.trained_until).astimezone(UTC) >= first


def _scores_of(
    workspace: Workspace, bundle: Bundle, data: TrainingSet, table: pa.Table, numbers: RowNumbers
) -> Floats:
    """Score rows with the bundle of another run, from the retrieved features."""
    encoder, model = bundle.encoder(), bundle.model()
    scores, start = np.empty(len(numbers)), 0
    for features in features_of(workspace, data, table):
        first, last = np.searchsorted(numbers, [start, start + features.num_rows])
        chosen = features.take(numbers[first:last] - start)
        scores[first:last] = _probabilities(chosen, encoder, model, bundle.calibration.of_sample)
        start += features.num_rows
    return scores


def _probabilities(table: pa.Table, encoder: Encoder, model: Model, calibration: Calibration) -> Floats:
    import torch

    from mmlora.training.rows import blocks

    encoded, out = encoder.encode(table), np.empty(table.num_rows)
    for target, block in blocks(np.arange(table.num_rows)):
        batch = encoder.assemble([(encoded, block)])
        with torch.inference_mode():
            out[target] = calibration.apply(model(batch).double(), batch.domain).numpy()
    return out


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
