"""A model compiled for one domain: if the gate sees only the domain, the experts fold into plain weights.

``W' = W + (alpha / R) sum_e g_e A_e B_e`` and ``b' = b + (alpha / R) sum_e g_e c_e``, exactly what
:class:`~mmlora.models.lora.MoELoRALinear` computes row by row (LoRA, https://arxiv.org/abs/2106.09685),
so a mixture of experts scores as fast as the backbone alone. A gate that sees the sample is kept.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mmlora.models.crosses.terms import CrossTerms
from mmlora.models.ctr import CTRModel
from mmlora.models.gate import FixedGate, OwnExpertGate, SoftmaxGate
from mmlora.models.lora import MoELoRALinear
from mmlora.models.sharing import shallow_copy


def fold(model: CTRModel, domain: int) -> CTRModel:
    """Return the model of one domain, ready to score, with experts folded if the gate allows it.

    The original model is not changed. Whatever isn't folded shares its memory, so a large embedding isn't
    copied; moving or casting the result doesn't affect the original.

    Args:
        model: any model.
        domain: the domain's index; -1 for one absent at training, which gets the backbone exactly.
    """
    folded = shallow_copy(model).eval()
    weights = [fixed for gate in folded.gates if (fixed := domain_weights(gate, domain)) is not None]
    if not weights:
        return folded
    for number, layer in enumerate(folded.tower.layers):
        _fold_layer(cast(MoELoRALinear, layer), weights[min(number, len(weights) - 1)])
    if folded.crosses is not None:
        _fold_crosses(folded.crosses, weights[0])
    folded.gate, folded.expert_domains = None, ()
    return folded


def domain_weights(gate: nn.Module, domain: int) -> Tensor | None:
    """Return the weights that a gate gives every row of a domain, ``[E]``; None if rows differ."""
    if isinstance(gate, FixedGate):
        return gate.weights
    if isinstance(gate, OwnExpertGate):
        return gate.shares[domain + 1]
    softmax = cast(SoftmaxGate, gate)
    absent = domain < 0 or not bool(softmax.present[domain])
    if softmax.weight is not None and not absent:
        return None
    index = torch.tensor([domain], device=softmax.present.device)
    no_sample = softmax.present.new_zeros(1, 0 if softmax.weight is None else len(softmax.weight))
    with torch.no_grad():
        return cast(Tensor, softmax(no_sample, index))[0]


def _fold_crosses(crosses: CrossTerms, weights: Tensor) -> None:
    """Fold experts with fixed weights ``[E]`` into the products' own ``W``."""
    share = (weights * crosses.scale).double()
    if bool(share.any()):
        matrices = torch.einsum("e,eur,eir->ui", share, crosses.lora_a.double(), crosses.lora_b.double())
        crosses.weight = nn.Parameter((crosses.weight + matrices).to(crosses.weight.dtype), False)
    for name in ("lora_a", "lora_b"):
        setattr(crosses, name, nn.Parameter(getattr(crosses, name)[:0], False))


def _fold_layer(layer: MoELoRALinear, weights: Tensor) -> None:
    """Fold experts with fixed weights ``[E]`` into the layer's own ``W`` and ``b``."""
    share = (weights * layer.scale).double()
    # In float64, because the sum over experts and ranks is rounded here but not in training.
    if bool(share.any()):
        matrices = torch.einsum("e,eir,ero->oi", share, layer.lora_a.double(), layer.lora_b.double())
        layer.weight = nn.Parameter((layer.weight + matrices).to(layer.weight.dtype), False)
        layer.bias = nn.Parameter((layer.bias + share @ layer.lora_c.double()).to(layer.bias.dtype), False)
    for name in ("lora_a", "lora_b", "lora_c"):
        setattr(layer, name, nn.Parameter(getattr(layer, name)[:0], False))
    layer.num_experts = 0
