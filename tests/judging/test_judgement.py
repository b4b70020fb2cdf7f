"""What is said of a model: the interval decides, and what can't be known isn't made up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmlora.judgement import ContenderRow, Difference, Judgement, ListRow, below_baseline
from mmlora.judging.comparison import best_baseline, cold, compared
from mmlora.judging.contest import MODEL, Contender
from mmlora.judging.judgement import judge, judged_rows, nothing_judged
from mmlora.judging.lists import Panel, list_row, panels, popular_lists
from mmlora.judging.popularity import ItemRates
from mmlora.judging.shown import held_out, shown_figures
from mmlora.judging.verdict import sentence, verdict_of
from mmlora.metrics import Interval, compare, domain_metrics


def _scores(rows, strength, seed=0):
    """Scores of the sorted test rows that know the labels, the more the stronger."""
    label = rows.label(np.sort(rows.test))
    noise = np.random.default_rng(seed).normal(0, 1, len(label))
    return 1 / (1 + np.exp(-(strength * (label - 0.3) + noise)))


def _judged(rows, strengths):
    contenders = [
        Contender(name, _scores(rows, strength, n)) for n, (name, strength) in enumerate(strengths.items())
    ]
    return judge(rows, contenders, np.sort(rows.test), rows.test, None)


@pytest.mark.parametrize(
    ("strength", "verdict", "words"),
    [
        (2.0, "above", "is better than its best baseline, good"),
        (0.2, "below", "is below its best baseline, good, which would score better"),
        (1.0, "level", "within noise"),
    ],
)
def test_the_interval_of_the_difference_to_the_best_baseline_decides(rows, strength, verdict, words):
    judgement = _judged(rows, {MODEL: strength, "poor": 0.1, "good": 1.0})
    assert judgement.best_baseline == "good"
    assert judgement.verdict == verdict
    assert words in judgement.sentence
    assert (below_baseline(judgement) is None) == (verdict != "below")
    assert f"{len(rows.test):,} test rows" in judgement.sentence
    stored = json.dumps(judgement.to_json(), allow_nan=False)
    assert Judgement.from_json(json.loads(stored)) == judgement


def test_figures_equal_those_of_the_metrics_package(rows):
    judgement = _judged(rows, {MODEL: 1.0, "other": 0.5})
    label, domain = rows.label(np.sort(rows.test)), rows.domain(np.sort(rows.test))
    model, other = judgement.contenders
    plain = domain_metrics(label, _scores(rows, 1.0, 0), domain)
    assert (model.wauc, model.auc) == pytest.approx((plain.wauc, plain.pooled.auc))
    assert model.by_domain["b"].calibration == pytest.approx(plain.by_domain[1].calibration)
    paired = compare(label, _scores(rows, 1.0, 0), _scores(rows, 0.5, 1), domain)
    assert other.difference.wauc.value == pytest.approx(paired.wauc.value)
    assert other.difference.wauc.low == pytest.approx(paired.wauc.low)
    assert other.difference.by_domain["a"].value == pytest.approx(paired.by_domain[0].value)
    assert model.difference is None


def test_a_contender_without_scores_keeps_its_row(rows):
    contenders = [Contender(MODEL, _scores(rows, 1.0)), Contender("LightGBM", None, "not installed")]
    judgement = judge(rows, contenders, np.sort(rows.test), rows.test, None)
    assert judgement.contenders[1].to_json() == {
        "name": "LightGBM",
        "note": "not installed",
        "seconds": 0.0,
    }


def test_test_rows_with_one_label_decide_nothing(make_rows):
    label = np.random.default_rng(0).integers(0, 2, 6000).astype(np.int8)
    label[4800:] = 0
    rows = make_rows(label=label, split=np.repeat([0, 1, 2], [3600, 1200, 1200]))
    judgement = _judged(rows, {MODEL: 1.0, "good": 1.0})
    assert judgement.verdict == "unknown"
    assert "was not compared" in judgement.sentence
    stored = json.dumps(judgement.to_json(), allow_nan=False)
    assert Judgement.from_json(json.loads(stored)) == judgement


def test_a_judgement_without_comparison_has_every_part(rows):
    nothing = nothing_judged("no rows")
    assert nothing.to_json().keys() == _judged(rows, {MODEL: 1.0, "good": 1.0}).to_json().keys()
    assert Judgement.from_json(nothing.to_json()) == nothing


def _row(name, wauc, interval=None):
    nothing = Interval(None, None, None, 0)
    difference = None if name == MODEL else Difference(interval or nothing, nothing, nothing, {})
    return ContenderRow(name, "", 0.0, wauc, by_domain={}, difference=difference)


def test_the_sentence_describes_the_interval():
    assert verdict_of(None) == verdict_of(Interval(None, None, None, 0)) == "unknown"
    assert verdict_of(Interval(-0.1, -0.2, 0.0, 200)) == "level"
    slightly = Interval(-0.1, -0.2, 0.1, 200)
    said = sentence(_row(MODEL, 0.6), _row("it", 0.7, slightly), 10)
    assert "slightly below its best baseline, it, but within noise" in said


def test_the_best_baseline_is_the_one_of_highest_wauc():
    rows = [
        _row(MODEL, 0.9),
        _row("a", 0.7),
        _row("b", 0.8),
        _row("c", None),
    ]
    assert best_baseline(rows).name == "b"


def test_cold_rows_are_counted_by_training_rows():
    label, seen = np.array([0, 1, 0, 1, 1, 0]), np.array([0, 1, 3, 4, 20, 21])
    scores = np.array([0.1, 0.9, 0.2, 0.8, 0.7, 0.3])
    table = cold([Contender(MODEL, scores)], label, seen)
    assert [(row.training_rows, row.rows, row.clicks) for row in table] == [
        ("0", 1, 0),
        ("1-3", 2, 1),
        ("4-20", 2, 2),
        ("more", 1, 0),
    ]
    assert table[1].by[MODEL].auc == 1.0
    assert table[3].by[MODEL].auc is None


def test_rows_are_cold_by_their_own_user_and_item(rows):
    cold = _judged(rows, {MODEL: 1.0, "good": 1.0}).cold
    for bands in (cold.user, cold.item):
        assert sum(band.rows for band in bands) == len(rows.test)
    assert cold.user[3].rows == len(rows.test), "every user has more than 20 training rows"


class TestShown:
    def test_the_held_out_day_is_the_newest_whole_one(self, rows):
        chosen, day = held_out(rows, last_day=9)
        assert day == 9 and (rows.day[chosen] == 9).all()
        assert len(chosen) == (rows.day == 9).sum()

    def test_an_unfinished_day_is_not_whole(self, rows):
        assert held_out(rows, last_day=8)[1] == 8

    def test_without_a_whole_day_all_test_rows_are_taken(self, make_rows):
        mixed = make_rows(split=np.random.default_rng(0).integers(0, 3, 6000))
        chosen, day = held_out(mixed, last_day=9)
        assert day is None
        assert (chosen == mixed.data.rows("test")).all()

    def test_a_day_with_few_lists_gives_way_to_all_test_rows(self, make_rows):
        sparse = make_rows(rows=300)
        chosen, day = held_out(sparse, last_day=9)
        assert day is None and len(chosen) == len(sparse.test)

    def test_figures_equal_a_calculation_by_hand(self, make_rows):
        # One day of user 0 in domain a: four items, the second and the fourth clicked.
        made = make_rows(rows=6000)
        data = made.data
        same = np.flatnonzero(
            (np.asarray(data.user) == data.user[made.test[0]]) & (made.day == made.day[made.test[0]])
        )
        same = same[np.asarray(data.domain)[same] == data.domain[same[0]]]
        label = np.asarray(data.label)[same]
        perfect, worst = label + 0.0, 1.0 - label
        assert len(same) > 1 and 0 < label.sum() < len(same)
        for scores, expected in ((perfect, 1.0), (worst, None)):
            lists, (row,) = shown_figures([Contender(MODEL, scores)], made, same)
            assert lists == 1
            position = np.argsort(-scores, kind="stable")
            gain = (label[position][:5] / np.log2(np.arange(min(5, len(same))) + 2)).sum()
            ideal = (1 / np.log2(np.arange(min(5, int(label.sum()))) + 2)).sum()
            assert row.ndcg_at_5 == pytest.approx(expected or gain / ideal)
            assert row.ctr_at_1 == label[position][0]
            assert row.ctr_at_5 == pytest.approx(label[position][:5].mean())
            assert row.calibration == pytest.approx(scores.sum() / label.sum())

    def test_ties_are_broken_at_random_not_by_row_order(self, rows):
        equal = Contender(MODEL, np.full(len(rows.test), 0.5))
        _, (row,) = shown_figures([equal], rows, rows.test)
        assert row.ctr_at_1 == pytest.approx(rows.label(rows.test).mean(), abs=0.06)


class TestLists:
    def test_similarity_of_lists(self):
        panel = Panel(0, np.arange(3), np.arange(10), np.zeros(0, int), np.zeros(0, int))
        user, item = np.array([0, 0, 1, 1, 2, 2]), np.array([4, 5, 4, 6, 7, 4])
        assert list_row("a", MODEL, panel, user, item) == ListRow(
            domain="a",
            name=MODEL,
            users=3,
            items=10,
            most_common_first=pytest.approx(2 / 3),
            coverage=0.4,
        )

    def test_lists_of_no_users(self):
        none = np.zeros(0, int)
        row = list_row("a", MODEL, Panel(0, none, none, none, none), none, none)
        assert row.most_common_first is None and row.coverage is None

    def test_panels_have_the_domains_users_without_their_seen_items(self, rows):
        for panel in panels(rows):
            test = rows.test[rows.domain(rows.test) == panel.domain]
            assert set(panel.users) <= set(rows.data.user[test].tolist())
            pairs = set(zip(rows.data.user.tolist(), rows.item.tolist(), strict=True))
            had = {
                (panel.users[u], panel.items[i])
                for u, i in zip(panel.excluded_user, panel.excluded_item, strict=True)
            }
            assert had == {(u, i) for u, i in pairs if u in set(panel.users)}

    def test_popular_items_come_first_except_seen_ones(self, rows):
        panel, rates = panels(rows)[0], ItemRates.of(rows)
        user, item = popular_lists(panel, rates, seed=0)
        had = set(zip(panel.excluded_user.tolist(), panel.excluded_item.tolist(), strict=True))
        assert not had & set(zip(user.tolist(), item.tolist(), strict=True))
        rate = rates(np.zeros(len(item), int), panel.items[item])
        assert all((np.diff(rate[user == u]) <= 0).all() for u in np.unique(user))


def test_contenders_score_the_test_rows_and_the_day_together(rows):
    day, _ = held_out(rows, last_day=9)
    numbers = judged_rows(rows, day)
    assert set(numbers) == set(rows.test) | set(day)
    assert (np.diff(numbers) > 0).all()
    scored = [Contender(MODEL, _scores(rows, 1.0))]
    (row,) = compared(scored, rows.label(rows.test), rows.domain(rows.test), "ab", 0)
    assert row.by_domain is not None
