"""Compare a model with its baselines: figures, a verdict, and the verdict as a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from mmlora.judgement import Coldness, Judgement, ListRow, Shown
from mmlora.judging.comparison import best_baseline, cold, compared
from mmlora.judging.contest import MODEL, Contender
from mmlora.judging.rows import Rows
from mmlora.judging.shown import shown_figures
from mmlora.judging.verdict import sentence, verdict_of
from mmlora.training.epoch import RowNumbers
from mmlora.training.rows import blocks

_EPOCH = date(1970, 1, 1)
_COUNTED_ROWS = 1 << 20


def nothing_judged(why: str) -> Judgement:
    """Return the judgement of a model that could not be compared."""
    return Judgement(
        verdict="unknown",
        sentence=f"the model was not compared: {why}",
        best_baseline=None,
        test_rows=0,
        rows=0,
        contenders=(),
        shown=Shown(None, 0, 0, ()),
        lists=(),
        cold=Coldness(),
    )


def judged_rows(rows: Rows, day_rows: RowNumbers) -> RowNumbers:
    """Return the rows that contenders have to score, sorted: the test rows and those of the held-out day."""
    return np.union1d(rows.test, day_rows)


def judge(
    rows: Rows,
    contenders: Sequence[Contender],
    numbers: RowNumbers,
    day_rows: RowNumbers,
    day: int | None,
    lists: Sequence[ListRow] = (),
) -> Judgement:
    """Compare the model with its baselines.

    Args:
        rows: the training set.
        contenders: the model first; their scores are for the rows ``numbers``.
        numbers: see :func:`judged_rows`.
        day_rows: rows of the held-out day, see :func:`~mmlora.judging.shown.held_out`.
        day: the day, as days since 1970-01-01; None if ``day_rows`` are all test rows.
        lists: one row per domain and ranking, see :mod:`mmlora.judging.lists`.
    """
    names = [str(name) for name in rows.data.domains]
    on_test = _of(contenders, numbers, rows.test)
    label, domain = rows.label(rows.test), rows.domain(rows.test)
    table = compared(on_test, label, domain, names, rows.seed)
    best = best_baseline(table)
    shown, figures = shown_figures(_of(contenders, numbers, day_rows), rows, day_rows)
    compared_names = {MODEL} if best is None else {MODEL, best.name}
    model_and_best = [contender for contender in on_test if contender.name in compared_names]
    return Judgement(
        verdict=verdict_of(best.difference.wauc if best and best.difference else None),
        sentence=sentence(table[0], best, len(rows.test)),
        best_baseline=best.name if best else None,
        test_rows=len(rows.data.rows("test")),
        rows=len(rows.test),
        contenders=table,
        shown=Shown(
            day=None if day is None else _EPOCH + timedelta(days=day),
            rows=len(day_rows),
            lists=shown,
            contenders=figures,
        ),
        lists=tuple(lists),
        cold=Coldness(
            user=cold(model_and_best, label, _training_rows(rows, np.asarray(rows.data.user))),
            item=cold(model_and_best, label, _training_rows(rows, rows.item)),
        ),
    )


def _of(contenders: Sequence[Contender], numbers: RowNumbers, chosen: RowNumbers) -> list[Contender]:
    """Return the contenders with the scores of the chosen rows only."""
    index = np.searchsorted(numbers, chosen)
    return [
        replace(contender, scores=None if contender.scores is None else contender.scores[index])
        for contender in contenders
    ]


def _training_rows(rows: Rows, code: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return the number of training rows of each test row's user (or item), ``[N]``.

    Args:
        rows: the training set.
        code: the user's (or item's) code of every row.
    """
    count = np.zeros(int(code.max(initial=-1)) + 1, np.int64)
    for _, block in blocks(rows.data.rows("train"), _COUNTED_ROWS):
        count += np.bincount(code[block], minlength=len(count))
    return np.asarray(count[code[rows.test]])
