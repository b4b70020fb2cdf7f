import numpy as np
import pytest

from mmlora.errors import DataError
from mmlora.metrics import wauc
from mmlora.metrics.packed import pack, packed_wauc


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 18])
@pytest.mark.parametrize("distinct", [1, 5, 10_000])
def test_equals_the_ranking_of_all_rows(block, distinct):
    """With few scores, ties are longer than a block and go on over many."""
    draw = np.random.default_rng(distinct)
    score = (draw.integers(0, distinct, 500) / distinct * 8 - 4).astype(np.float32)
    label, group = draw.random(500) < 0.3, draw.choice([0, 1, 4, 1000], 500)
    label[group == 4] = True  # one class: left out
    found = packed_wauc(pack(label, score, group), block=block)
    assert found == pytest.approx(wauc(label, score, group), rel=1e-14)


def test_packed_rows_sort_by_group_then_score_then_label():
    score = np.array([-np.inf, -1e30, -2.5, -1e-45, 0, 1e-45, 2.5, 1e30, np.inf], np.float32)
    label, group = np.tile([0, 1], 18), np.repeat([0, 2**31 - 1], 18)
    packed = pack(label, np.tile(np.repeat(score, 2), 2), group)
    assert (np.diff(packed.astype(object)) > 0).all()


def test_zeros_of_both_signs_tie():
    score = np.array([0.0, -0.0, -0.0, 0.0], np.float32)
    assert packed_wauc(pack(np.array([0, 1, 0, 1]), score, np.zeros(4))) == 0.5


def test_undefined_without_both_classes_and_without_rows():
    assert packed_wauc(pack(np.ones(3), np.arange(3), np.array([0, 0, 1]))) is None
    assert packed_wauc(np.zeros(0, np.uint64)) is None


def test_scores_without_an_order_are_refused():
    with pytest.raises(DataError, match="1 of 2 are NaN"):
        pack(np.ones(2), np.array([0.5, np.nan]), np.zeros(2))
