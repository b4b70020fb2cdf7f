import numpy as np
import pytest
import torch

from mmlora.errors import UsageError
from mmlora.models.builder import build_model
from mmlora.training.loop import TrainingOptions, fit, predict, reproducible


def test_all_faults_of_the_options_are_reported():
    with pytest.raises(UsageError, match=r"batch_size is 0.*weight_decay.*patience is -1.*threads"):
        TrainingOptions(batch_size=0, patience=-1, weight_decay=-1.0, threads=0)
    with pytest.raises(UsageError, match="'gpu' is unknown: use one of auto, cpu, cuda"):
        TrainingOptions(device="gpu")


def test_predict_gives_each_row_its_own_logit_and_label(data, make_training_spec):
    model = build_model(make_training_spec(adaptation="none")).eval()
    rows = data.rows("test")[::-1]
    logits, labels = predict(model, data, rows.copy())
    with torch.no_grad():
        expected = model(data.batch(rows.copy()))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, data.label.numpy()[rows])


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_stops_after_patience_and_keeps_the_best_epoch(data, make_training_spec, options, higher_is_better):
    """The metric improves at epochs 1 and 2, then never: 2 + patience epochs run, and epoch 2 is kept."""
    values = iter([0.5, 0.6, 0.7, 0.7, 0.65])
    seen = []

    def measure(model):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        value = next(values)
        return value if higher_is_better else -value

    with reproducible(options) as generator:
        model = build_model(make_training_spec(adaptation="none"))
        result = fit(
            model,
            list(model.backbone_parameters()),
            data,
            data.rows("train"),
            measure=measure,
            higher_is_better=higher_is_better,
            learning_rate=1e-2,
            dropout=True,
            options=TrainingOptions(max_epochs=50, patience=2, device="cpu"),
            generator=generator,
            on_epoch=lambda record: None,
        )
    assert (len(result.history), result.best_epoch) == (4, 2)
    assert all(torch.equal(seen[2][name], value) for name, value in model.state_dict().items())
    assert [record.train_loss for record in result.history] == sorted(
        (record.train_loss for record in result.history), reverse=True
    )


def test_every_row_is_trained_on_once_per_epoch(data, make_training_spec, options):
    read = []
    batch = data.batch

    def spy(rows):
        read.append(rows)
        return batch(rows)

    data.batch = spy
    rows = data.rows("train")
    with reproducible(options) as generator:
        model = build_model(make_training_spec(adaptation="none"))
        fit(
            model,
            list(model.backbone_parameters()),
            data,
            rows,
            measure=lambda model: 0.0,
            higher_is_better=True,
            learning_rate=1e-3,
            dropout=False,
            options=TrainingOptions(max_epochs=1, batch_size=500, device="cpu"),
            generator=generator,
            on_epoch=lambda record: None,
        )
    order = np.concatenate(read)
    assert not np.array_equal(order, rows)
    np.testing.assert_array_equal(np.sort(order), rows)
    assert all(len(block) % 500 == 0 for block in read[:-1]), "whole batches"
