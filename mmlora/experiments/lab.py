"""What an arm works with: rows, the model's specification, and phases that are trained once for all cells.

A phase's key follows from everything that decides its result: the training set, how the rows are seen, the
specification and options as far as the phase reads them, and the parts that it was trained on. So cells share
a backbone or an expert exactly when theirs can't differ.
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
class Stored:
    """A trained phase.

    Attributes:
        part: the hash of its tensors.
        state: the tensors.
        report: how it went.
    """

    part: str
    state: State
    report: PhaseReport


@dataclass(frozen=True)
class RowView:
    """The rows as an arm sees them.

    Attributes:
        name: of the way of seeing; part of every key.
        data: the rows.
        spec: of the arm's model on them.
    """

    name: str
    data: TrainingData
    spec: ModelSpec


@dataclass(frozen=True)
class Trained:
    """A trained arm, ready to be tested.

    Attributes:
        score: logits of rows.
        phases: what was trained for it, shared or not.
        parameters: numbers of parameters: ``backbone``, ``experts``, ``gate``.
        parts: hashes of what it is made of, by the same names.
        mixing: the model whose gate is worth looking at; None for an arm without one.
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
        data: the rows as it sees them.
        experts: (domain index, slot) of each expert, in the gate's order.
    """

    model: CTRModel
    data: TrainingData
    experts: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Lab:
    """Rows, specification and options of one cell; phases are shared with the others.

    Attributes:
        workspace: the experiment's, where phases are kept.
        training_set: the rows.
        training_set_id: their name.
        spec: of the cell's model.
        options: how to train.
    """

    workspace: Workspace
    training_set: TrainingSet
    training_set_id: str
    spec: ModelSpec
    options: TrainingOptions

    @property
    def view(self) -> RowView:
        """The rows as they are."""
        return RowView("all", self.training_set, self.spec)

    def backbone(self, view: RowView) -> Stored:
        """Phase 1: the backbone, on the cross terms where there are any."""
        spec = replace(_without_gate(view.spec), adaptation="none", rank=1, alpha=1.0)
        options = _defaults(self.options, "expert_learning_rate", "gate_learning_rate")
        crosses, parts = self._crosses(view)

        def compute(checkpoint: Checkpoint) -> PhaseResult:
            return train_backbone(spec, view.data, options, SilentObserver(), checkpoint, crosses)

        return self._once("backbone", view, spec, options, parts, compute)

    def _crosses(self, view: RowView) -> tuple[State | None, dict[str, str]]:
        """Phase 0, where the model has cross terms: their state, and the part it is."""
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

        stored = self._once("crosses", view, spec, options, {}, compute)
        return stored.state, {"crosses": stored.part}

    def expert(self, view: RowView, backbone: Stored, domain: int, slot: int) -> Stored:
        """Phase 2, for one expert."""
        return self._expert(view, backbone, domain, slot, None, self.options)

    def further(self, view: RowView, backbone: Stored, domain: int, start: Stored, epochs: int) -> Stored:
        """Train an expert for so many epochs more; where they don't help, it stays as it was."""
        options = replace(self.options, max_epochs=epochs, patience=epochs + 1)
        return self._expert(view, backbone, domain, start.report.slot, start, options)

    def gate(self, view: RowView, backbone: Stored, experts: Sequence[Stored]) -> Stored:
        """Phase 3: the gate, on trained experts."""
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
        return self._once("gate", view, view.spec, options, parts, compute)

    def joint(self, view: RowView, expert_domains: Sequence[int]) -> Stored:
        """All parts at once, from scratch."""
        options = _defaults(self.options, "expert_learning_rate", "gate_learning_rate")
        crosses, parts = self._crosses(view)

        def compute(checkpoint: Checkpoint) -> PhaseResult:
            return train_joint(
                view.spec, expert_domains, view.data, options, SilentObserver(), checkpoint, crosses
            )

        decisive = {"experts": list(expert_domains), **parts}
        return self._once("joint", view, view.spec, options, decisive, compute)

    def _expert(
        self,
        view: RowView,
        backbone: Stored,
        domain: int,
        slot: int,
        start: Stored | None,
        options: TrainingOptions,
    ) -> Stored:
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
        return self._once("expert", view, spec, options, parts, compute)

    def _once(
        self,
        step: str,
        view: RowView,
        spec: ModelSpec,
        options: TrainingOptions,
        parts: Mapping[str, object],
        compute: Callable[[Checkpoint], PhaseResult],
    ) -> Stored:
        how = {k: value for k, value in as_kept(asdict(options)).items() if k not in read_by("machine")}
        decisive = {
            "step": step,
            "training_set": self.training_set_id,
            "view": view.name,
            "spec": spec.to_dict(),
            "options": how,
            "parts": dict(parts),
            "code_version": mmlora.__version__,
        }
        record = shared_step(self.workspace, decisive, compute, f"{step} ({view.name})")
        return Stored(
            part=record.part,
            state=self.workspace.parts.tensors(record.part),
            report=record.report,
        )


def as_experts(stored: Iterable[Stored]) -> list[Expert]:
    """Return trained experts as the gate's phase takes them."""
    experts = []
    for one in stored:
        assert one.report.domain is not None  # it is an expert
        experts.append(Expert(one.report.domain, one.report.slot, one.state))
    return experts


def _defaults(options: TrainingOptions, *names: str) -> TrainingOptions:
    """Put options that a phase doesn't read to their defaults, so that its key doesn't depend on them."""
    defaults: dict[str, Any] = {f.name: f.default for f in fields(TrainingOptions) if f.name in names}
    return replace(options, **defaults)


def _without_gate(spec: ModelSpec) -> ModelSpec:
    """Put what only a gate reads to one value, for the same reason."""
    return replace(
        spec, experts_per_domain=1, gate="domain", gate_per_layer=False, gate_top_k=None, balance=0.0
    )
