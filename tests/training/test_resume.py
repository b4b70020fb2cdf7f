"""A phase that is stopped after any epoch and called again ends with the bits of one that was not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmlora.training.checkpoint import CheckpointState, FileCheckpoint
from mmlora.training.observer import SilentObserver
from mmlora.training.phases import (
    Expert,
    PhaseResult,
    train_backbone,
    train_crosses,
    train_expert,
    train_gate,
)
from tests.offsets import OFFSETS, at_offset


class Elsewhere:
    """The same data, each batch at the next offset in memory."""

    def __init__(self, data) -> None:
        self._data, self._read = data, 0

    def __getattr__(self, name):
        return getattr(self._data, name)

    def batch(self, rows):
        self._read += 1
        return at_offset(self._data.batch(rows), self._read % len(OFFSETS))


class Stop(Exception):
    pass


class StopAt(SilentObserver):
    """Stops training once an epoch is done."""

    def __init__(self, epoch: int) -> None:
        self.epoch_to_stop_at = epoch

    def epoch(self, phase, domain, record) -> None:
        if record.epoch == self.epoch_to_stop_at:
            raise Stop


def outcome(result: PhaseResult):
    """All that a phase gives but what the clock decides."""
    report = result.report
    history = [(record.epoch, record.train_loss, record.metric) for record in report.history]
    bits = {name: value.numpy().tobytes() for name, value in result.state.items()}
    return bits, history, report.start_metric, report.best_metric, report.best_epoch


@pytest.fixture(scope="module")
def phases_of():
    """The phases by name, each as a function of (observer, checkpoint)."""
    kept = {}

    def make(spec, data, options):
        silent = SilentObserver()
        if not kept:
            kept["backbone"] = train_backbone(spec, data, options, silent).state
            kept["experts"] = [
                Expert(
                    d,
                    0,
                    train_expert(
                        spec, kept["backbone"], data, domain=d, options=options, observer=silent
                    ).state,
                )
                for d in (0, 1)
            ]
        backbone, experts = kept["backbone"], kept["experts"]
        return {
            "crosses": lambda observer, checkpoint: train_crosses(
                replace(spec, crosses=True), data, options, observer, checkpoint
            ),
            "backbone": lambda observer, checkpoint: train_backbone(
                spec, data, options, observer, checkpoint
            ),
            "expert": lambda observer, checkpoint: train_expert(
                spec, backbone, data, domain=1, options=options, observer=observer, checkpoint=checkpoint
            ),
            "gate": lambda observer, checkpoint: train_gate(
                spec, backbone, experts, data, options, observer, checkpoint
            ),
        }

    return make


@pytest.mark.parametrize("phase", ["crosses", "backbone", "expert", "gate"])
def test_stopped_after_each_epoch(data, make_training_spec, options, phases_of, tmp_path, phase):
    whole = phases_of(make_training_spec(), data, options)[phase](SilentObserver(), None)
    train = phases_of(make_training_spec(), Elsewhere(data), options)[phase]
    for epoch in {1, (whole.report.epochs + 1) // 2, whole.report.epochs}:
        checkpoint = FileCheckpoint(tmp_path / str(epoch))
        with pytest.raises(Stop):
            train(StopAt(epoch), checkpoint)
        torch.manual_seed(epoch)  # what the process did in between doesn't matter
        assert outcome(train(StopAt(epoch), checkpoint)) == outcome(whole)


def test_stopped_after_every_epoch(data, make_training_spec, options, phases_of, tmp_path):
    train = phases_of(make_training_spec(), data, options)["backbone"]
    checkpoint, epochs = FileCheckpoint(tmp_path / "c"), 0
    whole = train(SilentObserver(), None)
    while True:
        epochs += 1
        try:
            resumed = train(StopAt(epochs), checkpoint)
        except Stop:
            continue
        break
    assert outcome(resumed) == outcome(whole) and epochs == whole.report.epochs + 1


def test_seconds_count_from_the_first_start(data, make_training_spec, options, phases_of, tmp_path):
    train = phases_of(make_training_spec(), data, options)["expert"]
    checkpoint = FileCheckpoint(tmp_path / "c")
    train(SilentObserver(), checkpoint)
    state = checkpoint.load()
    assert state is not None and state.facts["seconds"] > 0
    checkpoint.save(CheckpointState(state.tensors, {**state.facts, "seconds": 1000.0}))
    assert 1000 < train(SilentObserver(), checkpoint).report.seconds < 1100
    del state.facts["seconds"]  # as of an older version
    checkpoint.save(state)
    assert 0 < train(SilentObserver(), checkpoint).report.seconds < 100


def test_a_checkpoint_of_other_parameters_is_not_used(data, make_training_spec, options, phases_of, tmp_path):
    train = phases_of(make_training_spec(), data, options)["backbone"]
    other = make_training_spec(embedding_dim=4)
    checkpoint = FileCheckpoint(tmp_path / "c")
    train_backbone(other, data, options, SilentObserver(), checkpoint)
    assert outcome(train(SilentObserver(), checkpoint)) == outcome(train(SilentObserver(), None))


def test_a_file_keeps_bits_and_facts_until_cleared(tmp_path):
    checkpoint = FileCheckpoint(tmp_path / "c")
    assert checkpoint.load() is None
    order = np.random.default_rng(3).bit_generator.state
    checkpoint.save(CheckpointState({"a/0": torch.tensor(float("nan"))}, {"first": True}))
    state = CheckpointState(
        {"a/0": torch.randn(3, 4).t(), "empty": torch.zeros(0, 2)}, {"order": order, "metric": 0.1}
    )
    checkpoint.save(state)
    found = checkpoint.load()
    assert found is not None and found.facts == state.facts and found.tensors.keys() == state.tensors.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in state.tensors.items())
    assert [file.name for file in (tmp_path / "c").iterdir()] == ["state.safetensors"]
    checkpoint.clear()
    assert checkpoint.load() is None and not list(tmp_path.iterdir())


def test_leftovers_of_a_killed_writer_are_ignored(tmp_path, caplog):
    checkpoint = FileCheckpoint(tmp_path / "c")
    checkpoint.save(CheckpointState({"a": torch.ones(2)}, {}))
    (tmp_path / "c" / ".state.safetensors.partial").write_bytes(b"half a file")
    found = checkpoint.load()
    assert found is not None and found.tensors["a"].tolist() == [1, 1]
    (tmp_path / "c" / "state.safetensors").write_bytes(b"not a file of tensors")
    assert checkpoint.load() is None and "training starts from scratch" in caplog.text
