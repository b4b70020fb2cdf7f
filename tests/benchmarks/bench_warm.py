"""Cold and warm retrainings, week after week: prints a Markdown table.

For each seed a made-up shop is imported. Each week its last eight weeks are trained on, cold and warm: the
warm model begins with the warm model of the week before, as judged, i.e. without that week's newest rows, so
that it has seen no row that is held out now. Both are trained with cross terms (the default) and without,
when the backbone learns all. ``14 days`` begins in the same way and reads the last two weeks only; wauc and
log loss are those of its own test rows.

Phases 0 and 1 are trained, on one thread; seconds are of CPU. ``difference`` is the wauc minus that of the
cold model on the same test rows, with a 95% interval by a paired bootstrap.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmlora.metrics.bootstrap import compare
from mmlora.models.builder import stored_model
from mmlora.models.ctr import State
from mmlora.pipeline.data import import_shop
from mmlora.runs.steps import prepare
from mmlora.runs.training_run import data_of, forgetful, open_run, options_of, spec_of
from mmlora.runs.training_set import rows_of
from mmlora.training.calibration import fit_calibration
from mmlora.training.evaluation import evaluate
from mmlora.training.loop import predict
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import train_backbone, train_crosses
from mmlora.training.warm import WarmStart

START, DAYS, WINDOW, SHORT = date(2026, 1, 1), 84, 56, 14
COLUMNS = ("model", "seed", "week", "start", "wauc", "log loss", "CPU seconds", "difference")
KEY = ("user_id", "item_id", "domain_id", "event_timestamp")


@dataclass
class Trained:
    """A model, the run that it was trained for, and its scores of the test rows by row."""

    run: str
    state: State
    seconds: float
    wauc: float
    logloss: float
    scores: dict[tuple[Any, ...], float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--weeks", type=int, default=3, choices=range(1, 4))
    options = parser.parse_args()
    _print(COLUMNS)
    _print(["---"] * len(COLUMNS))
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {"MMLORA_HOME": str(Path(folder) / "var"), "MMLORA_TRAINING__THREADS": "1"}
            import_shop(seed=seed, scale=options.scale, days=DAYS)
            for crosses in (True, False):
                for cells in _weeks(seed, options.weeks, crosses):
                    _print(["default" if crosses else "without cross terms", seed, *cells])


def _weeks(seed: int, weeks: int, crosses: bool) -> Iterator[list[Any]]:
    before: Trained | None = None
    for week in range(weeks + 1):
        as_of = START + timedelta(WINDOW + 7 * week)
        run = prepare(as_of, adaptation="none", seed=seed, crosses=crosses, window_days=WINDOW)
        cold = _train(run)
        if before is None:  # the first model has nothing to begin with
            before = cold
            continue
        yield [week, "cold", *_figures(cold), ""]
        warm = _train(run, before)
        yield [week, "warm", *_figures(warm), _difference(warm, cold)]
        if crosses:
            short = _train(prepare(as_of, adaptation="none", seed=seed, window_days=SHORT), before)
            yield [week, f"{SHORT} days", *_figures(short), _difference(short, cold)]
        before = warm


def _train(run_id: str, before: Trained | None = None) -> Trained:
    """Train phases 0 and 1, and measure them on the test rows."""
    workspace, run = open_run(run_id)
    data, spec, options = data_of(workspace, run), spec_of(workspace, run), options_of(workspace, run)
    warm = None
    if before is not None:
        _, run_before = open_run(before.run)
        data_before = data_of(workspace, run_before)
        warm = WarmStart.of(spec_of(workspace, run_before), before.state, data_before.encoder, data.encoder)
        learned = _keys(rows_of(workspace, data_before), np.asarray(data_before.split) != 2)
        assert not learned & _keys(rows_of(workspace, data), np.asarray(data.split) != 0), "a leak"
    begun, common = time.process_time(), (spec, forgetful(workspace, run), options, SilentObserver())
    fitted = train_crosses(*common, warm=warm).state if spec.crosses else None
    state = train_backbone(*common, crosses=fitted, warm=warm).state
    seconds = time.process_time() - begun
    model = stored_model(spec, backbone=state)
    measured = evaluate(model, data, "test", fit_calibration(model, data), user=data.user).metrics
    test = data.rows("test")
    logits, _ = predict(model, data, test)
    rows = rows_of(workspace, data).take(np.asarray(test))
    keys = zip(*(rows[name].to_pylist() for name in (*KEY, "label")), strict=True)
    scores = dict(zip(keys, np.asarray(logits, np.float64).tolist(), strict=True))
    return Trained(run_id, state, seconds, measured.wauc or 0.0, measured.pooled.logloss or 0.0, scores)


def _keys(rows: pa.Table, chosen: NDArray[np.bool_]) -> set[tuple[Any, ...]]:
    return set(zip(*(rows.filter(pa.array(chosen))[name].to_pylist() for name in KEY), strict=True))


def _figures(trained: Trained) -> list[str]:
    return [f"{trained.wauc:.4f}", f"{trained.logloss:.4f}", f"{trained.seconds:.0f}"]


def _difference(one: Trained, cold: Trained) -> str:
    both = [key for key in one.scores if key in cold.scores]
    label = np.array([key[-1] for key in both])
    _, domain = np.unique([str(key[2]) for key in both], return_inverse=True)
    ours, theirs = (
        1 / (1 + np.exp(-np.array([trained.scores[key] for key in both]))) for trained in (one, cold)
    )
    found = compare(label, ours, theirs, domain, draws=400, level=0.95, seed=0).wauc
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _print(cells: Any) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
