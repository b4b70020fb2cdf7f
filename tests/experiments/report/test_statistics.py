from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mmlora.experiments.cell import Cell
from mmlora.experiments.report.reading import CellResult, Domain, Results, ScoredRows
from mmlora.experiments.report.statistics import Evidence, Term, auc_influence, combine
from mmlora.metrics import compare, wauc
from mmlora.metrics.ranking import Ranking


def cell(key: str, scores: np.ndarray, data_key: str = "rows", seed: int = 0) -> CellResult:
    trained = Cell("made", "ids", "wdl", "mlora", 1, None, "random", seed)
    return CellResult(key, trained, data_key, scores, {"test": {}})


def rows_of(label: list[int], domain: list[int], user: list[int]) -> ScoredRows:
    names = [Domain(f"d{i}", 10, 10, 5, 5, 0.1) for i in range(max(domain) + 1)]
    return ScoredRows(np.array(label), np.array(domain), np.array(user), tuple(names))


def made_rows(rows: int = 4000, users: int = 400, seed: int = 0) -> tuple[ScoredRows, np.ndarray]:
    random = np.random.default_rng(seed)
    user = random.integers(0, users, rows)
    domain = (user % 3 == 0).astype(int)
    logit = random.normal(size=rows) + np.random.default_rng(9).normal(size=users)[user]
    label = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int8)
    domains = (Domain("a", 1, 1, 1, 1, 0.1), Domain("b", 1, 1, 1, 1, 0.1))
    return ScoredRows(label, domain, user, domains), logit


def test_influence_with_a_tie_equals_a_calculation_by_hand() -> None:
    # Negatives 0.1 and 0.3, positives 0.3 and 0.5: 3.5 of 4 pairs are in order.
    positive, scores = np.array([0, 0, 1, 1]) > 0, np.array([0.1, 0.3, 0.3, 0.5])
    aucs, influence = auc_influence(positive, scores, np.zeros(4, int), 1)
    assert aucs == pytest.approx([0.875])
    expected = [(1 - 0.875) / 2, (0.75 - 0.875) / 2, (0.75 - 0.875) / 2, (1 - 0.875) / 2]
    assert influence == pytest.approx(expected)


def test_a_domain_with_one_label_has_no_auc_and_no_weight_in_wauc() -> None:
    rows = rows_of([0, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 1, 2, 3, 4])
    first = cell("a", np.array([0.2, 0.9, 0.5, 0.5, 0.5]))
    evidence = Evidence(Results((first,), {"rows": rows}, ()))
    assert evidence.wauc(first) == 1.0
    assert evidence.auc(first, "d1") is None
    assert evidence.estimate([Term(first, 1.0)], "d1") is None
    assert evidence.estimate([Term(first, 1.0)], "no such domain") is None


def test_wauc_equals_that_of_the_metrics() -> None:
    rows, logit = made_rows()
    first = cell("a", logit.round(1))
    evidence = Evidence(Results((first,), {"rows": rows}, ()))
    assert evidence.wauc(first) == pytest.approx(wauc(rows.label, logit.round(1), rows.domain), abs=1e-12)


def test_the_interval_equals_a_calculation_by_hand() -> None:
    # Three users add 0.01, -0.01 and 0.02: V = 3/2 * 0.0006; the seeds' variance is 0.0001.
    estimate = combine([0.01, 0.02, 0.03], np.array([0.01, -0.01, 0.02, 0.0]))
    rows, between = 1.5 * 0.0006, 0.0001 / 3
    freedom = (rows + between) ** 2 / (rows**2 / 2 + between**2 / 2)
    from scipy.stats import t

    assert estimate.value == pytest.approx(0.02)
    assert estimate.half == pytest.approx(t.ppf(0.975, freedom) * math.sqrt(rows + between))
    assert estimate.seed_spread == pytest.approx(0.01)
    assert estimate.rows_error == pytest.approx(math.sqrt(rows))
    assert estimate.seeds == 3
    assert estimate.sign == 0


def test_one_seed_covers_rows_only_and_one_user_gives_no_interval() -> None:
    alone = combine([0.5], np.array([0.1, -0.1]))
    assert alone.seed_spread is None
    assert alone.half is not None
    assert combine([0.5, 0.6], np.array([0.0, 0.3])).low is None


def test_equal_scores_have_no_difference() -> None:
    rows, logit = made_rows()
    first, second = cell("a", logit), cell("b", logit)
    evidence = Evidence(Results((first, second), {"rows": rows}, ()))
    estimate = evidence.estimate([Term(first, 1.0), Term(second, -1.0)])
    assert estimate is not None
    assert (estimate.low, estimate.value, estimate.high, estimate.sign) == (0.0, 0.0, 0.0, 0)


def test_with_one_row_per_user_intervals_agree_with_a_paired_bootstrap_of_rows() -> None:
    rows, logit = made_rows()
    rows = ScoredRows(rows.label, rows.domain, np.arange(len(rows.label)), rows.domains)
    random = np.random.default_rng(1)
    better, worse = (
        1 / (1 + np.exp(-(logit + sigma * random.normal(size=len(logit))))) for sigma in (0.5, 0.8)
    )
    first, second = cell("a", better), cell("b", worse)
    estimate = Evidence(Results((first, second), {"rows": rows}, ())).estimate(
        [Term(first, 1.0), Term(second, -1.0)]
    )
    drawn = compare(rows.label, better, worse, rows.domain, draws=400).wauc
    assert estimate is not None and drawn.low is not None and drawn.high is not None
    assert estimate.value == pytest.approx(drawn.value)
    assert estimate.half == pytest.approx((drawn.high - drawn.low) / 2, rel=0.15)


def test_with_many_rows_per_user_intervals_agree_with_a_bootstrap_of_users() -> None:
    rows, logit = made_rows(rows=6000, users=60)
    random = np.random.default_rng(2)
    taste = random.normal(0, 0.8, 60)[rows.user]  # the error of a model for a user, on all rows of that user
    first, second = cell("a", logit), cell("b", logit + taste)
    estimate = Evidence(Results((first, second), {"rows": rows}, ())).estimate(
        [Term(first, 1.0), Term(second, -1.0)]
    )
    assert estimate is not None and estimate.rows_error is not None
    share = np.bincount(rows.domain) / len(rows.label)
    rankings = [Ranking(rows.domain, tested.scores) for tested in (first, second)]

    def drawn(weight: np.ndarray) -> float:
        above, below = weight * (rows.label > 0), weight * (rows.label == 0)
        first, second = (share @ ranking.auc(above, below) for ranking in rankings)
        return float(first - second)

    draws = [drawn(random.multinomial(60, np.full(60, 1 / 60))[rows.user]) for _ in range(500)]
    assert estimate.rows_error == pytest.approx(np.std(draws), rel=0.2)
    alone = ScoredRows(rows.label, rows.domain, np.arange(len(rows.label)), rows.domains)
    by_row = Evidence(Results((first, second), {"rows": alone}, ())).estimate(
        [Term(first, 1.0), Term(second, -1.0)]
    )
    assert by_row is not None and by_row.rows_error is not None
    assert estimate.rows_error > 1.3 * by_row.rows_error


def test_test_rows_shared_by_seeds_count_once() -> None:
    rows, logit = made_rows()
    cells = [cell(f"s{seed}", logit, seed=seed) for seed in range(4)]
    evidence = Evidence(Results(tuple(cells), {"rows": rows}, ()))
    once, four = evidence.estimate([Term(cells[0], 1.0)]), evidence.estimate([Term(c, 1.0) for c in cells])
    assert once is not None and four is not None
    assert four.rows_error == pytest.approx(once.rows_error)


def test_intervals_of_three_seeds_cover_the_truth() -> None:
    random, users, covered = np.random.default_rng(3), 200, 0
    for _ in range(1500):
        own = random.normal(0, 1, (3, users))  # each seed's test users are others
        values = own.sum(1) / users + random.normal(0, 0.07, 3)
        added = np.concatenate(own - own.mean(1, keepdims=True)) / users / 3
        estimate = combine(list(values), added)
        covered += (
            estimate.low is not None and estimate.high is not None and estimate.low <= 0 <= estimate.high
        )
    assert covered / 1500 >= 0.94


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    from mmlora.errors import UsageError
    from mmlora.experiments.report.reading import read_results

    with pytest.raises(UsageError, match="run the experiment first"):
        read_results(tmp_path)
