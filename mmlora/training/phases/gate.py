"""Phase 3: the gate on all domains, backbone and experts frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch

from mmlora.errors import UsageError
from mmlora.models.builder import assemble_model
from mmlora.models.ctr import State, is_zero
from mmlora.models.gate import SoftmaxGate
from mmlora.models.spec import ModelSpec
from mmlora.training.checkpoint import Checkpoint
from mmlora.training.epoch import TrainingData
from mmlora.training.loop import TrainingOptions, reproducible
from mmlora.training.observer import Observer
from mmlora.training.phases.phase import GATE_SEED, Expert, Phase, PhaseResult, all_domains
from mmlora.training.rows import domains_of


def train_gate(
    spec: ModelSpec,
    backbone: State,
    experts: Sequence[Expert],
    data: TrainingData,
    options: TrainingOptions,
    observer: Observer,
    checkpoint: Checkpoint | None = None,
    *,
    epochs: int | None = None,
) -> PhaseResult:
    """Phase 3: train the gate on all domains, backbone and experts frozen; ``wauc`` decides.

    It starts from phase 2's model, and keeps that if mixing doesn't help: each domain's own experts alone,
    and the backbone for a domain without experts. A gate that doesn't see the domain, or keeps fewer experts
    than a domain has, can't represent that model; the report's note then says what it started from. There is
    no
    dropout: the gate learns to mix the experts as they will score. Domains without training rows are marked,
    and get the backbone alone. If all experts are zero, the gate is not trained.

    Raises:
        UsageError: the adaptation has no gate, or there are no experts to mix.
        DataError: there are no training rows, or no validation rows.
    """
    if spec.adaptation != "moe_mlora" or not experts:
        raise UsageError(
            f"adaptation {spec.adaptation} with {len(experts)} experts has no gate to train: "
            "use moe_mlora and train an expert first"
        )
    rows, validation = all_domains(data, refit=epochs is not None)
    with reproducible(options, GATE_SEED) as generator:
        model = assemble_model(
            spec, backbone=backbone, experts=[(expert.domain, expert.state) for expert in experts]
        )
        seen = torch.from_numpy(domains_of(data, rows))
        gates = [cast(SoftmaxGate, gate) for gate in model.gates]
        for gate in gates:
            gate.use_own_only(seen)

        def leave_start() -> None:
            for gate in gates:
                gate.start(seen)

        model.to(options.torch_device)
        validation = replace(validation, note="; ".join(filter(None, (validation.note, _other_start(spec)))))
        useless = (
            ""
            if any(not is_zero(expert.state) for expert in experts)
            else "no expert was kept, so there is nothing to mix"
        )
        run = Phase("gate", None, 0, rows, validation, options, observer, checkpoint, epochs, useless)
        report = run.train(
            model,
            list(model.gate_parameters()),
            options.gate_learning_rate,
            generator,
            dropout=False,
            balance=spec.balance,
            leave_start=leave_start,
            also_moved=[gate.present for gate in gates],
        )
    return PhaseResult(model.gate_state(), report)


def _other_start(spec: ModelSpec) -> str:
    """Return what a gate started from if it can't give each domain all of its own experts."""
    if spec.gate == "sample":
        return "it doesn't see the domain, so it started from all experts mixed equally"
    if spec.gate_top_k is not None and spec.gate_top_k < spec.experts_per_domain:
        return f"it started from {spec.gate_top_k} of each domain's {spec.experts_per_domain} experts"
    return ""
