import numpy as np
import pytest

from mmlora.training.order import ShuffledRows


def shuffled(rows, seed, *, copied_rows=1):
    return ShuffledRows(rows, np.random.default_rng(seed), copied_rows=copied_rows)


@pytest.mark.parametrize("size", [2, 3, 5, 100, 101, 9999, 10_000, 10_001, 123_457])
@pytest.mark.parametrize("copied_rows", [1, 200_000])
def test_every_row_occurs_once(size, copied_rows):
    rows = np.arange(7, 7 + size)
    order = shuffled(rows, 0, copied_rows=copied_rows)
    taken = np.concatenate([order[start : start + 512] for start in range(0, size, 512)])
    assert len(order) == size
    np.testing.assert_array_equal(np.sort(taken), rows)


def test_no_rows_and_one_row():
    assert len(shuffled(np.zeros(0, np.int64), 0)[0:5]) == 0
    assert shuffled(np.array([4]), 0)[0:5].tolist() == [4]


def test_the_seed_determines_the_order_and_a_generator_continues():
    rows, generator = np.arange(50_000), np.random.default_rng(0)
    first, second = (ShuffledRows(rows, generator, copied_rows=1)[0:50_000] for _ in range(2))
    np.testing.assert_array_equal(first, shuffled(rows, 0)[0:50_000])
    assert (first == second).sum() < 10, "each epoch has an order of its own"


def test_a_computed_order_looks_like_a_random_one():
    """Over many seeds, places are even, neighbours part, and fixed points are as many as by chance."""
    size, draws, bins = 20_011, 200, 20
    counts, neighbours, correlation, fixed = np.zeros((bins, bins)), [], [], []
    place = np.arange(size)
    for seed in range(draws):
        row = shuffled(place, seed)[0:size]
        np.add.at(counts, (place * bins // size, row * bins // size), 1)
        neighbours.append((np.abs(np.diff(row)) == 1).sum())
        correlation.append(np.corrcoef(row[:-1], row[1:])[0, 1])
        fixed.append((row == place).sum())
    expected = counts.mean()
    chi_squared = ((counts - expected) ** 2 / expected).sum() / (bins - 1) ** 2
    assert chi_squared == pytest.approx(1, abs=0.35)  # 5 standard deviations of chance
    assert np.mean(neighbours) == pytest.approx(2, abs=5 * np.sqrt(2 / draws))
    assert abs(np.mean(correlation)) < 5 / np.sqrt(size * draws)
    assert np.mean(fixed) == pytest.approx(1, abs=5 * np.sqrt(1 / draws))
