"""The rows, specification and options of a cell, and its phases, which are trained once for all cells.

A phase's key follows from everything that determines its result: the training set, the view of the rows, the
specification and options that the phase reads, and the parts that it was trained on. So cells share a
backbone or an expert exactly when theirs cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import mmlora
from mmlora.hyperparameters import as_kept, read_by
from mmlora.models.ctr import CTRModel, State
from mmlora.models.spec import ModelSpec
from mmlora.runs.training_run import shared_step
from mmlora.training.epoch import RowNumbers, TrainingData
from mmlora.training.loop import TrainingOptions
from mmlora.training.observer import PhaseReport, SilentObserver
from mmlora.training.phases import (
    Expert,
    PhaseResult,
    train_backbone,
    train_crosses,
    train_expert,
    train_gate,
    train_joint,
)
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mmlora.training.checkpoint import Checkpoint
    from mmlora.training.dataset import TrainingSet


@dataclass(frozen=True)
class TrainedPhase:
    """A trained phase.

    Attributes:
        part: hash of its tensors.
        state: the tensors.
        report: the report of its training.
    """

    part: str
    state: State
    report: PhaseReport


@dataclass(frozen=True)
class RowView:
    """The rows as an arm sees them.

    Attributes:
        name: name of the view, which is part of every key.
        data: the rows.
        spec: specification of the arm's model on these rows.
    """

    name: str
    data: TrainingData
    spec: ModelSpec


@dataclass(frozen=True)
class TrainedArm:
    """A trained arm, ready to be tested.

    Attributes:
        score: returns the logits of rows.
        phases: reports of its phases, shared with other cells or not.
        parameters: numbers of parameters: ``backbone``, ``experts``, ``gate``.
        parts: hashes of its parts, by the same names.
        mixing: the model that mixes experts by a gate; None for an arm without a gate.
    """

    score: Callable[[RowNumbers], npt.NDArray[np.float32]]
    phases: tuple[PhaseReport, ...]
    parameters: Mapping[str, int]
    parts: Mapping[str, object]
    mixing: Mixing | None = None


@dataclass(frozen=True)
class Mixing:
    """A model that mixes experts.

    Attributes:
        model: the model.
        data: the rows as the model sees them.
        experts: (domain index, slot) of each expert, in the order of the gate's weights.
    """

    model: CTRModel
    data: TrainingData
    experts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Lab:
    """The rows, specification and options of a cell. Its phases are shared with other cells.

    Attributes:
        workspace: the experiment's workspace, which keeps the phases.
        training_set: the rows.
        training_set_id: id of the training set.
        spec: specification of the cell's model.
        options: training options.
    """

    workspace: Workspace
    training_set: TrainingSet
    training_set_id: str
    spec: ModelSpec
    options: TrainingOptions

    @property
    def view(self) -> RowView:
        """The rows unchanged."""
        return RowView("all", self.training_set, self.spec)

    def backbone(self, view: RowView) -> TrainedPhase:
        """Phase 1: train the backbone, on the cross terms if the model has any."""
        spec = replace(_without_gate(view.spec), adaptation="none", rank=1, alpha=1.0)
        options = _defaults(self.options, "expert_learning_rate", "gate_learning_rate")
        crosses, parts = self._crosses(view)

        def compute(checkpoint: Checkpoint) -> PhaseResult:
            return train_backbone(spec, view.data, options, SilentObserver(), checkpoint, crosses)

        return self._train_once("backbone", view, spec, options, parts, compute)

    def _crosses(self, view: RowView) -> tuple[State | None, dict[str, str]]:
        """Phase 0: train the cross terms if the model has any; return their state and part."""
        if not view.spec.crosses:
            return None, {}
        fields, domains = view.spec.fields, view.spec.num_domains
        spec = ModelSpec(
            "wdl", "none", fields, domains, crosses=True, embedding_dim=1, hidden_units=(1,), rank=1
        )
        own = self.options
        options = TrainingOptions(
            seed=own.seed, device=own.device, threads=own.threads, expert_confidence=0.0
        )

        def compute(checkpoint: Checkpoint) -> PhaseResult:
            return train_crosses(spec, view.data, options, SilentObserver(), checkpoint)

        phase = self._train_once("crosses", view, spec, options, {}, compute)
        return phase.state, {"crosses": phase.part}

    def expert(self, view: RowView, backbone: TrainedPhase, domain: int, slot: int) -> TrainedPhase:
        """Phase 2: train one expert."""
        return self._expert(view, backbone, domain, slot, None, self.options)

    def continue_expert(
        self, view: RowView, backbone: TrainedPhase, domain: int, start: TrainedPhase, epochs: int
    ) -> TrainedPhase:
        """Train an expert for more epochs; it keeps its weights if they do not help."""
        options = replace(self.options, max_epochs=epochs, patience=epochs + 1)
        return self._expert(view, backbone, domain, start.report.slot, start, options)

    def gate(self, view: RowView, backbone: TrainedPhase, experts: Sequence[TrainedPhase]) -> TrainedPhase:
        """Phase 3: train the gate on trained experts."""
        options = _defaults(self.options, "learning_rate", "expert_learning_rate")
        own = as_experts(experts)

        def compute(checkpoint: Checkpoint) -> PhaseResult:
            return train_gate(
                view.spec, backbone.state, own, view.data, options, SilentObserver(), checkpoint
            )

        parts = {
            "backbone": backbone.part,
            "experts": [(e.domain, e.slot) for e in own],
            "states": [expert.part for expert in experts],
        }
        return self._train_once("gate", view, view.spec, options, parts, compute)

    def joint(self, view: RowView, expert_domains: Sequence[int]) -> TrainedPhase:
        """Train all parts together from scratch."""
        options = _defaults(self.options, "expert_learning_rate", "gate_learning_rate")
        crosses, parts = self._crosses(view)

        def compute(checkpoint: Checkpoint) -> PhaseResult:
            return train_joint(
                view.spec, expert_domains, view.data, options, SilentObserver(), checkpoint, crosses
            )

        key_parts = {"experts": list(expert_domains), **parts}
        return self._train_once("joint", view, view.spec, options, key_parts, compute)

    def _expert(
        self,
        view: RowView,
        backbone: TrainedPhase,
        domain: int,
        slot: int,
        start: TrainedPhase | None,
        options: TrainingOptions,
    ) -> TrainedPhase:
        spec = replace(_without_gate(view.spec), adaptation="mlora")
        options = _defaults(options, "learning_rate", "gate_learning_rate")

        def compute(checkpoint: Checkpoint) -> PhaseResult:
            return train_expert(
                spec,
                backbone.state,
                view.data,
                domain=domain,
                slot=slot,
                options=options,
                observer=SilentObserver(),
                start=start.state if start else None,
                checkpoint=checkpoint,
            )

        parts = {"backbone": backbone.part, "domain": domain, "slot": slot, "start": start and start.part}
        return self._train_once("expert", view, spec, options, parts, compute)

    def _train_once(
        self,
        step: str,
        view: RowView,
        spec: ModelSpec,
        options: TrainingOptions,
        parts: Mapping[str, object],
        compute: Callable[[Checkpoint], PhaseResult],
    ) -> TrainedPhase:
        kept = {k: value for k, value in as_kept(asdict(options)).items() if k not in read_by("machine")}
        key = {
            "step": step,
            "training_set": self.training_set_id,
            "view": view.name,
            "spec": spec.to_dict(),
            "options": kept,
            "parts": dict(parts),
            "code_version": mmlora.__version__,
        }
        record = shared_step(self.workspace, key, compute, f"{step} ({view.name})")
        return TrainedPhase(
            part=record.part,
            state=self.workspace.parts.tensors(record.part),
            report=record.report,
        )


def as_experts(phases: Iterable[TrainedPhase]) -> list[Expert]:
    """Return trained experts in the form that training a gate takes."""
    experts = []
    for phase in phases:
        assert phase.report.domain is not None  # it is an expert
        experts.append(Expert(phase.report.domain, phase.report.slot, phase.state))
    return experts


def _defaults(options: TrainingOptions, *names: str) -> TrainingOptions:
    """Reset options that a phase does not read to their defaults, so that its key does not depend on them."""
    defaults: dict[str, Any] = {f.name: f.default for f in fields(TrainingOptions) if f.name in names}
    return replace(options, **defaults)


def _without_gate(spec: ModelSpec) -> ModelSpec:
    """Reset what only a gate reads, for the same reason."""
    return replace(
        spec, experts_per_domain=1, gate="domain", gate_per_layer=False, gate_top_k=None, balance=0.0
    )
