"""Build a model from a specification and stored parts. Only this file sees the whole specification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from torch import Tensor, nn

from mmlora.errors import UsageError
from mmlora.models.crosses.terms import CrossTerms
from mmlora.models.ctr import CTRModel
from mmlora.models.embedding import FieldEmbedding
from mmlora.models.gate import FixedGate, OwnExpertGate, SoftmaxGate
from mmlora.models.spec import ModelSpec
from mmlora.models.tower import Tower
from mmlora.models.trees.model import TreeModel
from mmlora.names import NetworkName, valid_names
from mmlora.schema import DOMAIN_ID

Model = CTRModel | TreeModel
"""A model that scores rows: from a batch to logits ``[B]``."""

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    name: import_module(f"mmlora.models.backbones.{name}").build for name in valid_names(NetworkName)
}
"""The ``build`` of each backbone's module, by name.

It takes num_fields, embedding_dim and num_dense; the result has output_dim and maps Embedded to ([B], [B,
H0]).
"""


def build_model(spec: ModelSpec, *, expert_domains: Sequence[int] = ()) -> CTRModel:
    """Return a new model; initial values come from torch's current random state.

    Args:
        spec: the model's specification.
        expert_domains: the domain index of each expert; a domain may have several, or none.

    Raises:
        UsageError: there are experts that the adaptation can't use, or experts of domains that don't exist,
            or fewer experts than the gate should keep.
    """
    _check_experts(spec, expert_domains)
    embedding = FieldEmbedding(spec.fields, embedding_dim=spec.embedding_dim)
    backbone = BACKBONES[spec.backbone](
        num_fields=embedding.num_fields, embedding_dim=spec.embedding_dim, num_dense=embedding.num_dense
    )
    input_dim = int(backbone.output_dim)  # type: ignore[arg-type]  # every backbone has it, see ctr.Backbone
    tower = Tower(
        input_dim,
        spec.hidden_units,
        dropout=spec.dropout,
        num_experts=len(expert_domains),
        rank=spec.rank,
        alpha=spec.alpha,
    )
    return CTRModel(
        embedding=embedding,
        backbone=backbone,
        tower=tower,
        crosses=_crosses(spec, len(expert_domains)),
        gate=_gate(spec, expert_domains, [input_dim, *spec.hidden_units]),
        expert_domains=expert_domains,
    )


def assemble_model(
    spec: ModelSpec,
    *,
    backbone: Mapping[str, Tensor],
    experts: Sequence[tuple[int, Mapping[str, Tensor]]] = (),
    gate: Mapping[str, Tensor] | None = None,
) -> CTRModel:
    """Return the model assembled from trained parts, ready to score.

    Args:
        spec: the specification with which the parts were trained.
        backbone: the state of phase 1.
        experts: (domain index, state) of each expert of phase 2, in the gate's order.
        gate: the state of phase 3; None without a gate.

    Raises:
        ContractError: a part doesn't match the specification or the others.
    """
    model = build_model(spec, expert_domains=[domain for domain, _ in experts])
    model.load_backbone(backbone)
    for number, (_, state) in enumerate(experts):
        model.load_expert(number, state)
    if gate is not None:
        model.load_gate(gate)
    model.rest()
    return model.eval()


def assemble_mixture(
    spec: ModelSpec, *, backbone: Mapping[str, Tensor], experts: Sequence[tuple[float, Mapping[str, Tensor]]]
) -> CTRModel:
    """Return the model of one domain that mixes experts with fixed weights, whatever the adaptation's gate.

    It gives every row these weights, so it is used only for rows of that domain.

    Args:
        spec: the specification with which the parts were trained.
        backbone: the state of phase 1.
        experts: (weight, state) of each expert; without any, this is the backbone alone.

    Raises:
        ContractError: a part doesn't match the specification.
    """
    if not experts:
        return assemble_model(replace(spec, adaptation="none"), backbone=backbone)
    alone = replace(spec, adaptation="mlora", gate_top_k=None)
    model = assemble_model(alone, backbone=backbone, experts=[(0, state) for _, state in experts])
    model.gate = FixedGate([weight for weight, _ in experts])
    return model.eval()


def stored_model(
    spec: ModelSpec,
    *,
    backbone: Mapping[str, Tensor],
    experts: Sequence[tuple[int, Mapping[str, Tensor]]] = (),
    gate: Mapping[str, Tensor] | None = None,
) -> Model:
    """Return the model assembled from trained parts, a network or trees: see :func:`assemble_model`."""
    if spec.backbone == "gbdt":
        return TreeModel(spec.fields, backbone).eval()
    return assemble_model(spec, backbone=backbone, experts=experts, gate=gate)


def _crosses(spec: ModelSpec, num_experts: int) -> CrossTerms | None:
    """Return the cross terms; they see the domain only if it is among the inputs."""
    if not spec.crosses:
        return None
    sees_domain = any(field.name == DOMAIN_ID for field in spec.fields)
    return CrossTerms(
        spec.fields,
        num_domains=spec.num_domains if sees_domain else 0,
        num_experts=num_experts,
        rank=spec.rank,
        alpha=spec.alpha,
    )


def _gate(spec: ModelSpec, expert_domains: Sequence[int], widths: Sequence[int]) -> nn.Module | None:
    """Return the gate of a tower whose layers have inputs of these widths."""
    if not expert_domains:
        return None
    if spec.adaptation == "mlora":
        return OwnExpertGate(spec.num_domains, expert_domains)
    gates = [
        SoftmaxGate(
            spec.num_domains,
            expert_domains,
            input_dim=width,
            by_domain=spec.gate in ("domain", "both"),
            by_sample=spec.gate in ("sample", "both"),
            top_k=spec.gate_top_k,
        )
        for width in (widths if spec.gate_per_layer else widths[:1])
    ]
    return nn.ModuleList(gates) if spec.gate_per_layer else gates[0]


def _check_experts(spec: ModelSpec, expert_domains: Sequence[int]) -> None:
    if expert_domains and spec.adaptation == "none":
        raise UsageError("adaptation none has no experts: use mlora or moe_mlora, or pass no expert domains")
    unknown = sorted({domain for domain in expert_domains if not 0 <= domain < spec.num_domains})
    if unknown:
        raise UsageError(f"expert domains {unknown}: domain indices run from 0 to {spec.num_domains - 1}")
    if spec.adaptation == "moe_mlora" and 0 < len(expert_domains) < (spec.gate_top_k or 0):
        raise UsageError(
            f"gate_top_k is {spec.gate_top_k}, but there are {len(expert_domains)} experts to mix: "
            "lower it, train more experts per domain, or leave it unset to mix them all"
        )
