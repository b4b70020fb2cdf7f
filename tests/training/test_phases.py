"""What the published code gets wrong: freezing, the gate's training, phases that start afresh."""

import json
from dataclasses import replace

import pytest
import torch

from mmlora.errors import DataError, UsageError
from mmlora.models.builder import BACKBONES, assemble_model, build_model
from mmlora.training.checkpoint import FileCheckpoint
from mmlora.training.observer import PhaseReport, SilentObserver
from mmlora.training.phases import Expert, train_backbone, train_crosses, train_expert, train_gate
from tests.offsets import assert_same_bits

SILENT = SilentObserver()
BOTH = pytest.mark.parametrize("backbone", sorted(BACKBONES))


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def trained_models(monkeypatch):
    """Every model that a phase builds, to look at after the phase."""
    seen = []

    def remember(build):
        def made(*args, **kwargs):
            seen.append(build(*args, **kwargs))
            return seen[-1]

        return made

    for phase in ("backbone", "expert"):
        monkeypatch.setattr(f"mmlora.training.phases.{phase}.build_model", remember(build_model))
    monkeypatch.setattr("mmlora.training.phases.gate.assemble_model", remember(assemble_model))
    return seen


@BOTH
def test_all_three_phases(data, make_training_spec, options, recorder, trained_models, backbone):
    spec = make_training_spec(backbone=backbone)
    first = train_backbone(spec, data, options, recorder)
    experts = []
    for domain in range(3):
        before = {name: value.clone() for name, value in first.state.items()}
        result = train_expert(spec, first.state, data, domain=domain, options=options, observer=recorder)
        # Frozen is bit-identical: in the model that was trained, and in the state that it was given.
        assert same(trained_models[-1].backbone_state(), before)
        assert same(first.state, before)
        experts.append(Expert(domain, 0, result.state))
    given = [{name: value.clone() for name, value in expert.state.items()} for expert in experts]
    gate = train_gate(spec, first.state, experts, data, options, recorder)
    model = trained_models[-1]
    assert same(model.backbone_state(), first.state)
    assert all(same(model.expert_state(e), given[e]) for e in range(3))

    assert [report.phase for report in recorder.reports] == ["backbone", *["expert"] * 3, "gate"]
    assert [report.domain for report in recorder.reports] == [None, 0, 1, 2, None]
    assert first.report.helped and first.report.best_metric > 0.6 > first.report.start_metric
    assert any(report.helped for report in recorder.reports[1:4])
    for report in recorder.reports:
        assert report.epochs == len(report.history) <= 3
        assert report.best_metric >= report.start_metric
        assert PhaseReport.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert [epoch for _, _, epoch in recorder.epochs] == [e for r in recorder.reports for e in r.history]
    assert "table" in gate.state


@pytest.mark.parametrize("gate", ["domain", "sample", "both"])
def test_the_gate_is_trained_and_loaded_as_saved(data, make_training_spec, options, gate):
    spec = make_training_spec(gate=gate)
    backbone = train_backbone(spec, data, options, SILENT).state
    # Domain 2 has no expert of its own; the gate finds out whose taste it shares.
    experts = [
        Expert(d, 0, train_expert(spec, backbone, data, domain=d, options=options, observer=SILENT).state)
        for d in (0, 1)
    ]
    pairs = [(expert.domain, expert.state) for expert in experts]
    untrained = assemble_model(spec, backbone=backbone, experts=pairs)
    result = train_gate(spec, backbone, experts, data, replace(options, patience=3), SILENT)
    again = assemble_model(spec, backbone=backbone, experts=pairs, gate=result.state)
    batch = data.batch(data.rows("validation"))
    assert result.report.helped
    for name, value in untrained.gate.named_parameters():
        assert not torch.equal(value, result.state[name])
    assert not torch.equal(again.gate_weights(batch), untrained.gate_weights(batch))
    assert same(again.gate_state(), result.state)
    torch.testing.assert_close(again.gate_weights(batch).sum(1), torch.ones(len(batch)))


def test_experts_know_their_domain_better_than_the_backbone(data, make_training_spec, options, recorder):
    spec = make_training_spec(adaptation="mlora")
    longer = replace(options, max_epochs=8)
    backbone = train_backbone(spec, data, options, SILENT).state
    for domain in range(3):
        train_expert(spec, backbone, data, domain=domain, options=longer, observer=recorder)
    gains = [report.best_metric - report.start_metric for report in recorder.reports]
    assert gains[1] > 0.02  # the one that the backbone, trained on all, serves worst
    assert min(gains) >= 0


def test_weights_depend_on_seed_and_slot_only(data, make_training_spec, options):
    spec = make_training_spec()
    one, two = (train_backbone(spec, data, options, SILENT) for _ in range(2))
    assert same(one.state, two.state)
    other = train_backbone(spec, data, replace(options, seed=1), SILENT)
    assert not same(one.state, other.state)

    def expert(slot):
        return train_expert(
            spec, one.state, data, domain=1, slot=slot, options=options, observer=SILENT
        ).state

    assert same(expert(0), expert(0))
    assert not torch.equal(expert(0)["tower.layers.0.lora_a"], expert(1)["tower.layers.0.lora_a"])


def test_smoothed_labels_make_a_phase_learn_other_weights(data, make_training_spec, options):
    spec, smoothed = make_training_spec(), replace(options, label_smoothing=0.4)
    first = train_backbone(spec, data, options, SILENT)
    assert not same(first.state, train_backbone(spec, data, smoothed, SILENT).state)
    one, other = (
        train_expert(spec, first.state, data, domain=0, options=how, observer=SILENT)
        for how in (options, smoothed)
    )
    assert not same(one.state, other.state)
    # The smoothed loss has a floor, which the loss of labels as they are has not.
    floor = 0.5004  # the entropy of 0.2 and 0.8
    assert min(epoch.train_loss for epoch in other.report.history) >= floor


def test_training_leaves_torchs_random_state_and_threads_alone(data, make_training_spec, options):
    threads = torch.get_num_threads()
    before = torch.get_rng_state()
    train_backbone(make_training_spec(), data, replace(options, max_epochs=1, threads=2), SILENT)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_a_phase_that_does_not_help_keeps_its_start_and_reports_it(data, make_training_spec, options):
    spec = make_training_spec()
    backbone = train_backbone(spec, data, options, SILENT).state
    # Validation says the opposite of training: the more an expert learns, the worse it gets.
    validation = data.rows("validation")
    data.label[validation] = 1 - data.label[validation]
    result = train_expert(spec, backbone, data, domain=1, options=options, observer=SILENT)
    # Without any gain over the start it stops an epoch sooner than patience says.
    assert result.report.epochs == options.patience - 1
    assert not result.report.helped
    assert result.report.best_epoch == 0
    assert result.report.best_metric == result.report.start_metric
    assert result.state["tower.layers.0.lora_b"].abs().sum() == 0
    assert result.state["tower.layers.0.lora_c"].abs().sum() == 0


class _StopAfterTheFirstEpoch(SilentObserver):
    def epoch(self, phase, domain, record) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("changes", [{}, {"gate": "both", "gate_per_layer": True}], ids=["one", "per layer"])
def test_a_gate_that_does_not_help_leaves_each_domain_to_its_own_experts(
    data, make_training_spec, options, tmp_path, changes, resumed
):
    spec, options = make_training_spec(**changes), replace(options, weight_decay=1e-5)
    backbone = train_backbone(spec, data, options, SILENT).state
    experts = [  # domain 2 has none
        Expert(d, s, train_expert(spec, backbone, data, domain=d, options=options, observer=SILENT).state)
        for d, s in ((0, 0), (0, 1), (1, 0))
    ]
    states = [(expert.domain, expert.state) for expert in experts]
    own = assemble_model(replace(spec, adaptation="mlora"), backbone=backbone, experts=states)
    # Validation wants what phase 2 says, so that nothing can beat it.
    validation = data.rows("validation")
    with torch.no_grad():
        data.label[validation] = (own(data.batch(validation)) > 0).float()
    checkpoint = FileCheckpoint(tmp_path)
    if resumed:
        with pytest.raises(KeyboardInterrupt):
            train_gate(spec, backbone, experts, data, options, _StopAfterTheFirstEpoch(), checkpoint)
    gate = train_gate(spec, backbone, experts, data, options, SILENT, checkpoint)
    assert gate.report.start_metric == 1.0
    assert gate.report.epochs == options.patience and not gate.report.helped and gate.report.note == ""
    assert gate.report.history[0].metric < 1.0, "training begins elsewhere"
    mixed = assemble_model(spec, backbone=backbone, experts=states, gate=gate.state)
    batch = data.batch(data.rows("test"))
    assert_same_bits(mixed, batch, own(batch))
    _, weights = mixed.forward_with_gates(batch)
    for found in weights:
        assert torch.equal(found, own.gate_weights(batch))


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"gate": "sample"}, "all experts mixed equally"),
        ({"gate_top_k": 1, "experts_per_domain": 2}, "1 of each domain's 2 experts"),
    ],
)
def test_a_gate_that_cannot_start_from_phase_two_logs_why(data, make_training_spec, options, changes, note):
    spec = make_training_spec(**changes)
    backbone = train_backbone(spec, data, options, SILENT).state
    state = build_model(spec, expert_domains=[0]).expert_state(0)
    state = {name: torch.full_like(value, 0.01) for name, value in state.items()}
    experts = [Expert(0, 0, state), Expert(0, 1, state)]
    report = train_gate(spec, backbone, experts, data, replace(options, max_epochs=1), SILENT).report
    assert note in report.note


def test_a_domain_with_one_validation_label_is_decided_by_logloss(data, make_training_spec, options):
    spec = make_training_spec()
    backbone = train_backbone(spec, data, options, SILENT).state
    data.label[(torch.from_numpy(data.domain) == 2) & torch.from_numpy(data.split == 1)] = 0
    report = train_expert(spec, backbone, data, domain=2, options=options, observer=SILENT).report
    assert report.metric == "logloss"
    assert "the same label" in report.note
    assert report.best_metric <= report.start_metric
    assert train_backbone(spec, data, options, SILENT).report.metric == "wauc"


@pytest.mark.parametrize(("split", "name"), [(0, "training"), (1, "validation")])
def test_a_domain_without_rows_gets_an_expert_that_changes_nothing(
    data, make_training_spec, options, split, name
):
    spec = make_training_spec()
    backbone = train_backbone(spec, data, options, SILENT).state
    data.split[(data.domain == 2) & (data.split == split)] = 2
    result = train_expert(spec, backbone, data, domain=2, options=options, observer=SILENT)
    assert not result.report.helped
    assert f"no {name} rows" in result.report.note
    assert result.report.epochs == 0 and result.report.start_metric is None
    assert result.state["tower.layers.1.lora_b"].abs().sum() == 0


def test_a_domain_absent_at_the_gates_training_gets_the_backbone(data, make_training_spec, options):
    spec = make_training_spec()
    backbone = train_backbone(spec, data, options, SILENT).state
    state = build_model(spec, expert_domains=[0]).expert_state(0)
    data.split[(data.domain == 2) & (data.split == 0)] = 2
    experts = [Expert(domain, 0, state) for domain in (0, 1, 2)]
    gate = train_gate(spec, backbone, experts, data, options, SILENT)
    assert gate.state["present"].tolist() == [1.0, 1.0, 0.0]


def test_training_without_rows_is_an_error(data, make_training_spec, options):
    data.split[data.split == 1] = 0
    with pytest.raises(DataError, match="no validation rows"):
        train_backbone(make_training_spec(), data, options, SILENT)


def test_missing_gate_or_expert_is_an_error(data, make_training_spec, options):
    with pytest.raises(UsageError, match="mlora with 0 experts has no gate"):
        train_gate(make_training_spec(adaptation="mlora"), {}, [], data, options, SILENT)
    with pytest.raises(UsageError, match="adaptation none has no experts"):
        train_expert(
            make_training_spec(adaptation="none"), {}, data, domain=0, options=options, observer=SILENT
        )


def test_a_gate_without_kept_experts_is_not_trained(data, make_training_spec, options, recorder):
    spec = make_training_spec()
    first = train_backbone(spec, data, options, recorder)
    zero = build_model(spec, expert_domains=[0]).expert_state(0)
    gate = train_gate(spec, first.state, [Expert(0, 0, zero), Expert(1, 0, zero)], data, options, recorder)
    assert (gate.report.epochs, gate.report.helped) == (0, False)
    assert "no expert was kept" in gate.report.note
    alone = assemble_model(replace(spec, adaptation="none"), backbone=first.state)
    mixed = assemble_model(spec, backbone=first.state, experts=[(0, zero), (1, zero)], gate=gate.state)
    batch = data.batch(data.rows("test")[:50])
    assert torch.equal(alone(batch), mixed(batch))


def test_experts_of_a_zero_tower_adapt_only_the_cross_terms(data, make_training_spec, options):
    spec = make_training_spec(adaptation="mlora", crosses=True)
    fitted = train_crosses(spec, data, options, SILENT).state
    silent = build_model(replace(spec, adaptation="none"))
    silent.load_crosses(fitted)
    result = train_expert(spec, silent.backbone_state(), data, domain=1, options=options, observer=SILENT)
    moved = {name for name, value in result.state.items() if name.endswith("lora_b") and bool(value.any())}
    assert moved == {"crosses.lora_b"}
