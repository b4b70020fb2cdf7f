"""Train the arms.

All arms that adapt a backbone adapt the same one, and arms with experts share these as well, so that arms
differ only in what they are compared for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mmlora.errors import DataError, UsageError
from mmlora.experiments.arms import PLACEBO_FAULT, ArmName
from mmlora.experiments.lab import Lab, Mixing, RowView, TrainedArm, TrainedPhase, as_experts
from mmlora.models.builder import assemble_model, build_model
from mmlora.models.ctr import CTRModel, State
from mmlora.schema import DOMAIN_ID
from mmlora.training.controls import (
    OneDomain,
    ShuffledDomains,
    WithoutFields,
    random_gate,
    trainable_domains,
    uniform_gate,
)
from mmlora.training.epoch import RowNumbers
from mmlora.training.loop import predict
from mmlora.training.phases import batch_size_for


def pooled_domain(lab: Lab) -> TrainedArm:
    """One backbone for all domains, with the domain as an input."""
    return _backbone_alone(lab, lab.view)


def pooled(lab: Lab) -> TrainedArm:
    """One backbone for all domains, without the domain and all fields keyed by it."""
    fields = lab.spec.fields
    by_domain = {f.name for f in lab.training_set.manifest.contract.fields if DOMAIN_ID in f.keys}
    data = WithoutFields(lab.training_set, fields, frozenset(by_domain))
    return _backbone_alone(lab, RowView("without domain", data, replace(lab.spec, fields=data.kept)))


def separate(lab: Lab) -> TrainedArm:
    """One backbone per domain, trained on its rows only, with the batch size of the domain's expert.

    A domain without training or validation rows has no backbone: its logits are 0.
    """
    plain, models, phases = replace(lab.spec, adaptation="none"), {}, []
    for domain in range(lab.training_set.num_domains):
        data = OneDomain(lab.training_set, domain)
        if len(data.rows("train")) and len(data.rows("validation")):
            batch_size = batch_size_for(lab.options.batch_size, len(data.rows("train")))
            own = replace(lab, options=replace(lab.options, batch_size=batch_size))
            phases.append(own.backbone(RowView(f"domain {domain}", data, lab.spec)))
            models[domain] = assemble_model(plain, backbone=phases[-1].state)
    if not phases:
        raise DataError("training set", "no domain has both training and validation rows")

    def score(rows: RowNumbers) -> npt.NDArray[np.float32]:
        logits = np.zeros(len(rows), np.float32)
        own = np.asarray(lab.training_set.domain[rows])
        for domain, model in models.items():
            of_domain = np.flatnonzero(own == domain)
            if len(of_domain):
                logits[of_domain] = predict(model, lab.training_set, rows[of_domain])[0]
        return logits

    reports = (replace(phase.report, domain=domain) for domain, phase in zip(models, phases, strict=True))
    return TrainedArm(
        score=score,
        phases=tuple(reports),
        parameters={"backbone": sum(_count(phase.state) for phase in phases), "experts": 0, "gate": 0},
        parts={"backbone": [phase.part for phase in phases]},
    )


def mlora(lab: Lab) -> TrainedArm:
    """The backbone, and one expert per domain for that domain only."""
    return _mlora(lab, lab.view)


def placebo_mlora(lab: Lab) -> TrainedArm:
    """``mlora`` with each row adapted as if it were of another row's domain; the backbone is the same."""
    return _mlora(lab, _shuffled(lab))


def mlora_matched(lab: Lab) -> TrainedArm:
    """``mlora`` with the training budget of ``moe_mlora``.

    Each domain has as many restarts as ``moe_mlora`` has experts per domain, of which the best on validation
    rows is kept; it is then trained for as many further epochs as the gate was, on the domain's own rows.
    """
    view = lab.view
    backbone = lab.backbone(view)
    restarts = _experts(lab, view, backbone, lab.spec.experts_per_domain)
    gate = lab.gate(view, backbone, restarts)
    kept, continued = [], []
    for domain in dict.fromkeys(expert.report.domain for expert in restarts):
        assert domain is not None  # they are experts
        best = max((expert for expert in restarts if expert.report.domain == domain), key=_goodness)
        if gate.report.epochs:
            continued.append(lab.continue_expert(view, backbone, domain, best, gate.report.epochs))
        kept.append(continued[-1] if continued else best)
    result = _adapted(view, backbone, kept, None)
    return replace(result, phases=(backbone.report, *(expert.report for expert in (*restarts, *continued))))


def moe_mlora(lab: Lab) -> TrainedArm:
    """The backbone, experts of every domain, and a gate trained to mix them."""
    return _moe_mlora(lab, lab.view)


def placebo_moe_mlora(lab: Lab) -> TrainedArm:
    """``moe_mlora`` with each row adapted as if it were of another row's domain; the backbone is the same."""
    return _moe_mlora(lab, _shuffled(lab))


def uniform_gate_arm(lab: Lab) -> TrainedArm:
    """The experts of ``moe_mlora``, all of them with equal weights."""
    view, backbone, experts = _with_experts(lab)
    view = replace(view, spec=replace(view.spec, gate_top_k=None))
    gate = uniform_gate(view.spec, backbone.state, as_experts(experts), view.data)
    return _adapted(view, backbone, experts, gate)


def random_gate_arm(lab: Lab) -> TrainedArm:
    """The experts of ``moe_mlora``, mixed by a gate with random logits that is not trained."""
    view, backbone, experts = _with_experts(lab)
    seed = lab.options.seed
    gate = random_gate(view.spec, backbone.state, as_experts(experts), view.data, seed=seed)
    return _adapted(view, backbone, experts, gate)


def joint(lab: Lab) -> TrainedArm:
    """The model of ``moe_mlora`` with all parameters trained together from scratch."""
    view = lab.view
    domains = [domain for domain in _domains(lab, view) for _ in range(lab.spec.experts_per_domain)]
    phase = lab.joint(view, domains)
    model = build_model(view.spec, expert_domains=domains)
    model.load_state_dict(phase.state)
    model.eval()
    parameters = {
        "backbone": sum(value.numel() for value in model.backbone_parameters()),
        "experts": sum(value.numel() for value in model.expert_parameters()),
        "gate": sum(value.numel() for value in model.gate_parameters()),
    }
    slots = tuple((domain, number % lab.spec.experts_per_domain) for number, domain in enumerate(domains))
    return TrainedArm(
        score=_scorer(model, view),
        phases=(phase.report,),
        parameters=parameters,
        parts={"joint": phase.part},
        mixing=Mixing(model, view.data, slots),
    )


TRAINERS: dict[ArmName, Callable[[Lab], TrainedArm]] = {
    "pooled": pooled,
    "pooled_domain": pooled_domain,
    "separate": separate,
    "mlora": mlora,
    "mlora_matched": mlora_matched,
    "moe_mlora": moe_mlora,
    "placebo_mlora": placebo_mlora,
    "placebo_moe_mlora": placebo_moe_mlora,
    "uniform_gate": uniform_gate_arm,
    "random_gate": random_gate_arm,
    "joint": joint,
}


def _backbone_alone(lab: Lab, view: RowView) -> TrainedArm:
    return _adapted(replace(view, spec=replace(view.spec, adaptation="none")), lab.backbone(view), (), None)


def _mlora(lab: Lab, view: RowView) -> TrainedArm:
    backbone = lab.backbone(lab.view)
    return _adapted(view, backbone, _experts(lab, view, backbone, 1), None)


def _moe_mlora(lab: Lab, view: RowView) -> TrainedArm:
    backbone = lab.backbone(lab.view)
    experts = _experts(lab, view, backbone, lab.spec.experts_per_domain)
    gate = lab.gate(view, backbone, experts)
    result = _adapted(view, backbone, experts, gate.state)
    return replace(result, phases=(*result.phases, gate.report), parts={**result.parts, "gate": gate.part})


def _with_experts(lab: Lab) -> tuple[RowView, TrainedPhase, list[TrainedPhase]]:
    view = lab.view
    backbone = lab.backbone(view)
    return view, backbone, _experts(lab, view, backbone, lab.spec.experts_per_domain)


def _shuffled(lab: Lab) -> RowView:
    if lab.spec.crosses:
        raise UsageError(PLACEBO_FAULT)
    return RowView("shuffled domains", ShuffledDomains(lab.training_set, lab.options.seed), lab.spec)


def _domains(lab: Lab, view: RowView) -> list[int]:
    domains = trainable_domains(view.data, lab.training_set.label)
    if not domains:
        raise DataError("training set", "no domain's training rows have both labels")
    return domains


def _experts(lab: Lab, view: RowView, backbone: TrainedPhase, slots: int) -> list[TrainedPhase]:
    return [
        lab.expert(view, backbone, domain, slot) for domain in _domains(lab, view) for slot in range(slots)
    ]


def _adapted(
    view: RowView, backbone: TrainedPhase, experts: Sequence[TrainedPhase], gate: State | None
) -> TrainedArm:
    """Assemble a model; without the state of a gate, a domain's experts serve that domain only."""
    spec = view.spec
    if experts:
        spec = replace(spec, adaptation="mlora" if gate is None else "moe_mlora")
    own = as_experts(experts)
    model = assemble_model(
        spec, backbone=backbone.state, experts=[(e.domain, e.state) for e in own], gate=gate
    )
    return TrainedArm(
        score=_scorer(model, view),
        phases=(backbone.report, *(expert.report for expert in experts)),
        parameters={
            "backbone": _count(backbone.state),
            "experts": sum(_count(expert.state) for expert in experts),
            "gate": sum(value.numel() for value in model.gate_parameters()),
        },
        parts={"backbone": backbone.part, "experts": [expert.part for expert in experts]},
        mixing=None if gate is None else Mixing(model, view.data, tuple((e.domain, e.slot) for e in own)),
    )


def _scorer(model: CTRModel, view: RowView) -> Callable[[RowNumbers], npt.NDArray[np.float32]]:
    return lambda rows: predict(model, view.data, rows)[0]


def _count(state: State) -> int:
    return sum(value.numel() for value in state.values())


def _goodness(expert: TrainedPhase) -> float:
    """Return an expert's metric on validation rows, higher is better; an untrained expert comes last."""
    value = expert.report.best_metric
    if value is None:
        return float("-inf")
    return -value if expert.report.metric == "logloss" else value
