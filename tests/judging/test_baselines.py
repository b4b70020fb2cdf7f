"""The baselines: what each finds, what it can't know, and what is said when there is none."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from mmlora.judging import contest, popularity, regression
from mmlora.judging.boosting import fit_boosting
from mmlora.judging.contest import BOOSTING, ITEM_CTR, REGRESSION, train_baselines
from mmlora.judging.crosses import Crosses
from mmlora.judging.popularity import PRIOR_ROWS, ItemRates
from mmlora.judging.regression import fit_regression
from mmlora.judging.rows import Fields
from mmlora.metrics import auc
from mmlora.models.trees import columns
from mmlora.training.rows import sample
from tests.judging.conftest import CONTRACT


def _auc(rows, predict):
    return auc(rows.label(rows.test), predict(rows.test))


def test_an_items_rate_is_shrunk_towards_its_domains_rate(rows):
    train = rows.data.rows("train")
    domain, item, label = rows.domain(train), rows.item[train], rows.label(train)
    own = (domain == 1) & (item == 7)
    everywhere = label.mean()
    base = (label[domain == 1].sum() + PRIOR_ROWS * everywhere) / ((domain == 1).sum() + PRIOR_ROWS)
    expected = (label[own].sum() + PRIOR_ROWS * base) / (own.sum() + PRIOR_ROWS)
    rates = ItemRates.of(rows)
    assert rates(np.array([1]), np.array([7])) == pytest.approx([expected])


def test_an_item_without_training_rows_has_its_domains_rate(make_rows):
    rows = make_rows(split=np.repeat([0, 1, 2], 2000))
    late = rows.item.copy()
    late[4000:] = 40  # an item of the test rows only
    rates = ItemRates.of(type(rows)(rows.data, late, rows.day))
    assert rates(np.array([0, 1]), np.array([40, 40])) == pytest.approx(rates.base)


def test_rates_are_the_same_with_too_many_items_for_a_table(rows, monkeypatch):
    whole = ItemRates.of(rows)
    monkeypatch.setattr(popularity, "MOST_CELLS", 0)
    sparse = ItemRates.of(rows)
    assert (sparse.keys == whole.keys).all()
    assert sparse.rates == pytest.approx(whole.rates)


def test_regression_learns_crosses_that_no_single_column_shows(rows, monkeypatch):
    predict, note = fit_regression(rows)
    assert _auc(rows, predict) > 0.68
    assert note.startswith("C ")
    monkeypatch.setattr("mmlora.judging.crosses.crossed_pairs", lambda fields: [])
    plain, _ = fit_regression(rows)
    assert _auc(rows, plain) < 0.55


def test_a_row_of_the_matrix_does_not_depend_on_the_others(rows):
    crosses = Crosses(rows.data, rows.data.rows("train"))
    together = crosses.matrix(rows.test[:50]).toarray()
    alone = np.concatenate([crosses.matrix(rows.test[n : n + 1]).toarray() for n in range(50)])
    assert (together == alone).all()
    assert together.shape == (50, crosses.width)
    assert crosses.matrix(rows.test[:0]).shape == (0, crosses.width)


def test_history_lists_and_unknown_kinds_are_skipped(rows):
    fields = Fields.of(rows.data)
    read = {
        field.name for kind in (fields.categorical, fields.dense, fields.bag, fields.vector) for field in kind
    }
    assert {field.name for field in CONTRACT.fields} - read == {"user__met", "user__met_lift"}


def test_columns_that_few_training_rows_have_are_dropped(rows, monkeypatch):
    whole = Crosses(rows.data, rows.data.rows("train"))
    monkeypatch.setattr("mmlora.judging.crosses._LEAST_ROWS", 1000)
    few = Crosses(rows.data, rows.data.rows("train"))
    assert few.width < whole.width
    count = np.asarray((few.matrix(rows.data.rows("train"))[:, : few.width - 3] > 0).sum(0)).ravel()
    assert (count >= 1000).all(), "but for the three numbers, each column has its rows"


def test_a_matrix_that_is_too_large_uses_a_sample_and_notes_it(rows, monkeypatch):
    monkeypatch.setattr(regression, "MOST_ENTRIES", 20_000)
    predict, note = fit_regression(rows)
    trained = int(note.split(", ")[-1].removesuffix(" rows").replace(",", ""))
    assert 100 < trained < 2000
    assert np.isfinite(predict(rows.test)).all()


def test_boosting_learns_without_the_ids(rows, monkeypatch):
    predict, note = fit_boosting(rows, threads=1)
    assert _auc(rows, predict) > 0.65
    # domain, age, category; price; two of the vector; the tags and the two reserved indices.
    assert f"{3 + 1 + 2 + 5} columns" in note
    monkeypatch.setattr(columns, "MOST_BAG_COLUMNS", 4)
    assert "6 columns" in fit_boosting(rows, threads=1)[1], "a bag of many values is left out"


def test_boosting_is_reproducible(rows):
    first, second = (fit_boosting(rows, threads=1)[0](rows.test) for _ in range(2))
    assert (first == second).all()


def test_every_baseline_scores_the_rows_that_are_asked_for(rows):
    contenders = train_baselines(rows, rows.test, threads=1)
    assert [each.name for each in contenders] == [ITEM_CTR, REGRESSION, BOOSTING]
    for each in contenders:
        assert each.scores.shape == rows.test.shape
        assert ((each.scores > 0) & (each.scores < 1)).all()


def test_a_baseline_that_is_not_installed_says_how_to_install_it(rows, monkeypatch, caplog):
    monkeypatch.setattr(contest, "installed", lambda: False)
    with caplog.at_level(logging.INFO, "mmlora"):
        *_, missing = train_baselines(rows, rows.test, threads=1)
    assert missing.scores is None
    assert "pip install 'mmlora[baselines]'" in missing.note
    assert "LightGBM: not compared" in caplog.text


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"split": np.repeat([0, 2], [4800, 1200])}, "no validation rows"),
        ({"label": np.zeros(6000, np.int8)}, "one label only"),
    ],
)
def test_untrainable_rows_are_noted(make_rows, columns, why):
    rows = make_rows(**columns)
    assert all(why in each.note for each in train_baselines(rows, rows.test, threads=1))


def test_a_sample_keeps_the_order_and_the_domains_shares():
    rows = np.arange(10, 100_010)
    chosen = sample(rows, 1000, seed=3)
    assert len(np.unique(chosen)) == 1000
    assert (np.diff(chosen) > 0).all()
    assert (np.histogram(chosen, 10, (10, 100_010))[0] == 100).all()
    assert (sample(rows, 1000, seed=3) == chosen).all()
    assert sample(rows, 100_000, seed=3) is rows
