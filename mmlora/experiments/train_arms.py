"""Training the arms: what each trains, and how its model scores.

All that adapt one backbone use the very same one; those with experts share the experts as well, so that they
differ in nothing but what they are compared for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mmlora.errors import DataError, UsageError
from mmlora.experiments.arms import PLACEBO_FAULT, ArmName
from mmlora.experiments.lab import Lab, Mixing, RowView, Stored, Trained, as_experts
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


def pooled_domain(lab: Lab) -> Trained:
    """One backbone for all domains, the domain being an input."""
    return _backbone_alone(lab, lab.view)


def pooled(lab: Lab) -> Trained:
    """One backbone for all domains that doesn't see the domain, nor any field keyed by it."""
    fields = lab.spec.fields
    by_domain = {f.name for f in lab.training_set.manifest.contract.fields if DOMAIN_ID in f.keys}
    data = WithoutFields(lab.training_set, fields, frozenset(by_domain))
    return _backbone_alone(lab, RowView("without domain", data, replace(lab.spec, fields=data.kept)))


def separate(lab: Lab) -> Trained:
    """A backbone for each domain, trained on its rows alone, in batches as small as its expert's.

    A domain without training or validation rows can't have one: its logits are 0.
    """
    plain, models, stored = replace(lab.spec, adaptation="none"), {}, []
    for domain in range(lab.training_set.num_domains):
        data = OneDomain(lab.training_set, domain)
        if len(data.rows("train")) and len(data.rows("validation")):
            batch_size = batch_size_for(lab.options.batch_size, len(data.rows("train")))
            own = replace(lab, options=replace(lab.options, batch_size=batch_size))
            stored.append(own.backbone(RowView(f"domain {domain}", data, lab.spec)))
            models[domain] = assemble_model(plain, backbone=stored[-1].state)
    if not stored:
        raise DataError("training set", "no domain has both training and validation rows")

    def score(rows: RowNumbers) -> npt.NDArray[np.float32]:
        logits = np.zeros(len(rows), np.float32)
        own = np.asarray(lab.training_set.domain[rows])
        for domain, model in models.items():
            places = np.flatnonzero(own == domain)
            if len(places):
                logits[places] = predict(model, lab.training_set, rows[places])[0]
        return logits

    return Trained(
        score=score,
        phases=tuple(replace(one.report, domain=domain) for domain, one in zip(models, stored, strict=True)),
        parameters={"backbone": sum(_count(one.state) for one in stored), "experts": 0, "gate": 0},
        parts={"backbone": [one.part for one in stored]},
    )


def mlora(lab: Lab) -> Trained:
    """The backbone, and one expert a domain that serves it alone."""
    return _mlora(lab, lab.view)


def placebo_mlora(lab: Lab) -> Trained:
    """``mlora`` with each row adapted as another's domain; the backbone is the same."""
    return _mlora(lab, _shuffled(lab))


def mlora_matched(lab: Lab) -> Trained:
    """``mlora`` given what ``moe_mlora`` gets.

    As many restarts a domain as that has experts a domain, of which the best on validation rows is kept; then
    as many epochs more as the gate was trained for, over each domain's own rows.
    """
    view = lab.view
    backbone = lab.backbone(view)
    tried = _experts(lab, view, backbone, lab.spec.experts_per_domain)
    gate = lab.gate(view, backbone, tried)
    kept, further = [], []
    for domain in dict.fromkeys(one.report.domain for one in tried):
        assert domain is not None  # they are experts
        best = max((one for one in tried if one.report.domain == domain), key=_goodness)
        if gate.report.epochs:
            further.append(lab.further(view, backbone, domain, best, gate.report.epochs))
        kept.append(further[-1] if further else best)
    result = _adapted(view, backbone, kept, None)
    return replace(result, phases=(backbone.report, *(one.report for one in (*tried, *further))))


def moe_mlora(lab: Lab) -> Trained:
    """The backbone, experts of every domain, and a gate that was trained to mix them."""
    return _moe_mlora(lab, lab.view)


def placebo_moe_mlora(lab: Lab) -> Trained:
    """``moe_mlora`` with each row adapted as another's domain; the backbone is the same."""
    return _moe_mlora(lab, _shuffled(lab))


def uniform_gate_arm(lab: Lab) -> Trained:
    """``moe_mlora``'s experts, all weighing the same, however many a trained gate would keep."""
    view, backbone, experts = _with_experts(lab)
    view = replace(view, spec=replace(view.spec, gate_top_k=None))
    gate = uniform_gate(view.spec, backbone.state, as_experts(experts), view.data)
    return _adapted(view, backbone, experts, gate)


def random_gate_arm(lab: Lab) -> Trained:
    """``moe_mlora``'s experts, mixed by a gate of random logits that nobody trains."""
    view, backbone, experts = _with_experts(lab)
    seed = lab.options.seed
    gate = random_gate(view.spec, backbone.state, as_experts(experts), view.data, seed=seed)
    return _adapted(view, backbone, experts, gate)


def joint(lab: Lab) -> Trained:
    """``moe_mlora``'s model with all parameters trained together from scratch."""
    view = lab.view
    domains = [domain for domain in _domains(lab, view) for _ in range(lab.spec.experts_per_domain)]
    stored = lab.joint(view, domains)
    model = build_model(view.spec, expert_domains=domains)
    model.load_state_dict(stored.state)
    model.eval()
    parameters = {
        "backbone": sum(value.numel() for value in model.backbone_parameters()),
        "experts": sum(value.numel() for value in model.expert_parameters()),
        "gate": sum(value.numel() for value in model.gate_parameters()),
    }
    slots = tuple((domain, number % lab.spec.experts_per_domain) for number, domain in enumerate(domains))
    return Trained(
        score=_scorer(model, view),
        phases=(stored.report,),
        parameters=parameters,
        parts={"joint": stored.part},
        mixing=Mixing(model, view.data, slots),
    )


TRAINERS: dict[ArmName, Callable[[Lab], Trained]] = {
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


def _backbone_alone(lab: Lab, view: RowView) -> Trained:
    return _adapted(replace(view, spec=replace(view.spec, adaptation="none")), lab.backbone(view), (), None)


def _mlora(lab: Lab, view: RowView) -> Trained:
    backbone = lab.backbone(lab.view)
    return _adapted(view, backbone, _experts(lab, view, backbone, 1), None)


def _moe_mlora(lab: Lab, view: RowView) -> Trained:
    backbone = lab.backbone(lab.view)
    experts = _experts(lab, view, backbone, lab.spec.experts_per_domain)
    gate = lab.gate(view, backbone, experts)
    result = _adapted(view, backbone, experts, gate.state)
    return replace(result, phases=(*result.phases, gate.report), parts={**result.parts, "gate": gate.part})


def _with_experts(lab: Lab) -> tuple[RowView, Stored, list[Stored]]:
    view = lab.view
    backbone = lab.backbone(view)
    return view, backbone, _experts(lab, view, backbone, lab.spec.experts_per_domain)


def _shuffled(lab: Lab) -> RowView:
    if lab.spec.crosses:
        raise UsageError(PLACEBO_FAULT)
    return RowView("shuffled domains", ShuffledDomains(lab.training_set, lab.options.seed), lab.spec)


def _domains(lab: Lab, view: RowView) -> list[int]:
    found = trainable_domains(view.data, lab.training_set.label)
    if not found:
        raise DataError("training set", "no domain's training rows hold both classes of label")
    return found


def _experts(lab: Lab, view: RowView, backbone: Stored, slots: int) -> list[Stored]:
    return [
        lab.expert(view, backbone, domain, slot) for domain in _domains(lab, view) for slot in range(slots)
    ]


def _adapted(view: RowView, backbone: Stored, experts: Sequence[Stored], gate: State | None) -> Trained:
    """Put a model together; without a gate's state, each domain's experts serve it alone."""
    spec = view.spec
    if experts:
        spec = replace(spec, adaptation="mlora" if gate is None else "moe_mlora")
    own = as_experts(experts)
    model = assemble_model(
        spec, backbone=backbone.state, experts=[(e.domain, e.state) for e in own], gate=gate
    )
    return Trained(
        score=_scorer(model, view),
        phases=(backbone.report, *(one.report for one in experts)),
        parameters={
            "backbone": _count(backbone.state),
            "experts": sum(_count(one.state) for one in experts),
            "gate": sum(value.numel() for value in model.gate_parameters()),
        },
        parts={"backbone": backbone.part, "experts": [one.part for one in experts]},
        mixing=None if gate is None else Mixing(model, view.data, tuple((e.domain, e.slot) for e in own)),
    )


def _scorer(model: CTRModel, view: RowView) -> Callable[[RowNumbers], npt.NDArray[np.float32]]:
    return lambda rows: predict(model, view.data, rows)[0]


def _count(state: State) -> int:
    return sum(value.numel() for value in state.values())


def _goodness(expert: Stored) -> float:
    """Return what its phase decided by, higher being better; one that wasn't trained comes last."""
    value = expert.report.best_metric
    if value is None:
        return float("-inf")
    return -value if expert.report.metric == "logloss" else value
