"""Rank the lists shown on a held-out day by each contender's scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mmlora.judgement import ShownRow
from mmlora.judging.contest import Contender
from mmlora.judging.rows import MOST_JUDGED_ROWS, Rows
from mmlora.training.epoch import RowNumbers
from mmlora.training.rows import blocks

_MOST = 5
"""Number of positions of a list that count for CTR and NDCG."""
_LEAST_LISTS = 30


def held_out(rows: Rows, last_day: int) -> tuple[RowNumbers, int | None]:
    """Return the test rows of the newest whole day and the day, or all test rows and None.

    A day is whole if all of its rows are test rows and it had ended when rows were read. It must have at
    least 30 lists with both a click and a row without one.

    Args:
        rows: the training set.
        last_day: the last day that had ended, as days since 1970-01-01 UTC.
    """
    test = rows.data.rows("test")
    earlier = [_days(rows, rows.data.rows(part)) for part in ("train", "validation")]
    days = np.setdiff1d(_days(rows, test), np.concatenate(earlier))
    days = days[days <= last_day]
    if len(days):
        chosen = _whole_lists(rows, test[rows.day[test] == days[-1]])
        if _rankable(rows, chosen) >= _LEAST_LISTS:
            return chosen, int(days[-1])
    return _whole_lists(rows, test), None


def shown_figures(
    contenders: Sequence[Contender], rows: Rows, numbers: RowNumbers
) -> tuple[int, tuple[ShownRow, ...]]:
    """Return the number of lists, and one row per contender with scores.

    A list has the items that a user was shown in a domain on a day, two or more.

    Args:
        contenders: contenders with scores of the rows ``numbers``.
        rows: the training set.
        numbers: numbers of rows that form complete lists.
    """
    listed = _lists(rows, numbers)
    place, count = np.unique(listed, return_inverse=True, return_counts=True)[1:]
    kept = count[place] > 1
    label = rows.label(numbers)
    table = []
    for each in contenders:
        if each.scores is None:
            continue
        position, clicked = _positions(place[kept], label[kept], each.scores[kept], rows.seed)
        table.append(
            ShownRow(
                name=each.name,
                ctr_at_1=_ctr(clicked[position < 1]),
                ctr_at_5=_ctr(clicked[position < _MOST]),
                ndcg_at_5=_ndcg(place[kept], label[kept], position, clicked),
                calibration=float(each.scores.sum() / label.sum()) if label.any() else None,
            )
        )
    return int((count > 1).sum()), tuple(table)


def _ctr(clicked: npt.NDArray[Any]) -> float | None:
    return float(clicked.mean()) if len(clicked) else None


def _ndcg(
    place: npt.NDArray[Any], label: npt.NDArray[Any], position: npt.NDArray[Any], clicked: npt.NDArray[Any]
) -> float | None:
    gain = np.where(position < _MOST, 1 / np.log2(position + 2.0), 0.0)
    # The ideal order has a list's clicks first.
    lists, clicks = np.unique(place[label > 0], return_counts=True)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(_MOST) + 2.0))])[np.minimum(clicks, _MOST)]
    order = np.sort(place, kind="stable")
    gained = np.bincount(order, gain * clicked, minlength=int(place.max(initial=-1)) + 1)[lists]
    return float((gained / ideal).mean()) if len(lists) else None


def _positions(
    place: npt.NDArray[Any], label: npt.NDArray[Any], scores: npt.NDArray[Any], seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Return each row's position in its list (from 0) and its label, in the lists' order; ties are random."""
    chance = np.random.default_rng(seed).random(len(place))
    order = np.lexsort((chance, -scores, place))
    ordered = place[order]
    first = np.searchsorted(ordered, ordered)
    return np.arange(len(order)) - first, label[order]


def _days(rows: Rows, numbers: RowNumbers) -> npt.NDArray[np.int32]:
    """Return the sorted days of the rows."""
    days = [np.unique(rows.day[block]) for _, block in blocks(numbers, 1 << 20)]
    return np.unique(np.concatenate([*days, np.zeros(0, np.int32)]))


def _rankable(rows: Rows, numbers: RowNumbers) -> int:
    """Return the number of lists with both a click and a row without one."""
    place, count = np.unique(_lists(rows, numbers), return_inverse=True, return_counts=True)[1:]
    clicks = np.bincount(place, rows.label(numbers), len(count))
    return int(((clicks > 0) & (clicks < count)).sum())


def _lists(rows: Rows, numbers: RowNumbers) -> npt.NDArray[np.int64]:
    """Return a number per row that identifies its list, i.e. its user, domain and day."""
    user = np.asarray(rows.data.user[numbers]).astype(np.int64)
    day = rows.day[numbers] - rows.day[numbers].min(initial=0)
    days = int(day.max(initial=0)) + 1
    return np.asarray((user * rows.data.num_domains + rows.domain(numbers)) * days + day)


def _whole_lists(rows: Rows, numbers: RowNumbers) -> RowNumbers:
    """Return the rows of a sample of users, small enough to score."""
    if len(numbers) <= MOST_JUDGED_ROWS:
        return numbers
    chance = np.random.default_rng(rows.seed).random(int(rows.data.user.max()) + 1)
    return np.asarray(numbers[chance[rows.data.user[numbers]] < MOST_JUDGED_ROWS / len(numbers)])
