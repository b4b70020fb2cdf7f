"""Ids count as unknown in training as often as they are unknown in validation rows."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from mmlora.encoding import Encoder
from mmlora.schema import FeatureContract, FeatureField
from mmlora.training.dataset import EncodedRows, TrainingSet
from mmlora.training.unknown_ids import MOST, OUT_OF_VOCABULARY, ForgetfulData, in_pass, unknown_shares

NAMES = ("user_id", "item_id", "domain_id")
ROWS = 4000


@pytest.fixture
def data(tmp_path) -> TrainingSet:
    """Half of the validation rows are of users that training never saw; all items are known."""
    draw, split = np.random.default_rng(0), np.arange(ROWS) * 2 // ROWS
    users = np.where((split == 1) & (np.arange(ROWS) % 2 == 0), 1000, 0) + draw.integers(0, 50, ROWS)
    table = pa.table({"user_id": users, "item_id": np.arange(ROWS) % 40, "domain_id": ["a"] * ROWS})
    fields = tuple(FeatureField(name, "", (name,), "STRING", "categorical", ()) for name in NAMES)
    encoder = Encoder.fit(FeatureContract("all", fields), table.slice(0, ROWS // 2), domains=["a"])
    chunk = EncodedRows(
        encoder.encode(table), (users % 2).astype(np.int8), split.astype(np.int8), np.zeros(ROWS)
    )
    return TrainingSet.write(tmp_path / "set", [chunk], encoder=encoder, fingerprint="f")


def test_the_share_of_unknown_ids_is_from_validation_rows(data):
    assert unknown_shares(data) == {"user_id": 0.5}


def test_some_rows_always_train_the_ids_own_weights(data):
    data.rows("validation")
    only_new = ForgetfulData(data, {"user_id": MOST}).in_pass(0)
    known = only_new.batch(data.rows("train")).categorical[:, 0] != OUT_OF_VOCABULARY
    assert 0.05 < known.float().mean() < 0.15


def test_each_epoch_drops_other_ids_and_repeats_them_when_resumed(data):
    rows, forgetful = data.rows("train"), ForgetfulData(data, {"user_id": 0.5})
    first, again, second = (in_pass(forgetful, number).batch(rows) for number in (0, 0, 1))
    forgotten = first.categorical[:, 0] == OUT_OF_VOCABULARY
    assert forgotten.float().mean() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(first.categorical, again.categorical)
    both = forgotten & (second.categorical[:, 0] == OUT_OF_VOCABULARY)
    assert both.float().mean() == pytest.approx(0.25, abs=0.05)
    plain = data.batch(rows)
    assert torch.equal(first.categorical[:, 1:], plain.categorical[:, 1:])
    assert torch.equal(first.categorical[~forgotten], plain.categorical[~forgotten])
    assert torch.equal(first.label, plain.label)
    # A row's draw does not depend on the batch that it is in.
    assert torch.equal(in_pass(forgetful, 0).batch(rows[7:9]).categorical, first.categorical[7:9])


def test_metrics_use_the_known_ids(data):
    rows = data.rows("validation")
    assert torch.equal(
        ForgetfulData(data, {"user_id": 0.5}).batch(rows).categorical, data.batch(rows).categorical
    )
