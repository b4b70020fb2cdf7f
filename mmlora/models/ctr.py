"""The whole model, and the parts in which it is stored: backbone, each expert, gate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from mmlora.batch import Batch
from mmlora.errors import ContractError
from mmlora.models.crosses.terms import CrossTerms, FrozenRows
from mmlora.models.embedding import Embedded, FieldEmbedding
from mmlora.models.lora import MoELoRALinear
from mmlora.models.tower import Tower

State = dict[str, Tensor]
_CROSSES = "crosses."
_EXPERT_PARAMETERS = ("lora_a", "lora_b", "lora_c")


class Backbone(Protocol):
    """The interface of every backbone, an ``nn.Module``.

    A backbone whose terms are only the first-order weights sets ``first_order_terms = True``.
    """

    output_dim: int

    def __call__(self, embedded: Embedded) -> tuple[Tensor, Tensor]:
        """``[B, F, D]`` -> interaction terms ``[B]``, tower input ``[B, H0]``."""


class CTRModel(nn.Module):
    """``logit = interaction terms + tower(input, gate weights) + cross terms(gate weights)``.

    Args:
        embedding: embeds the batch.
        backbone: interaction terms and tower input.
        tower: the deep part, whose layers hold the experts.
        crosses: products of the inputs themselves, which the experts adapt too; None without cross terms.
        gate: gives the experts' weights, ``[B, E]``; a list of gates, one per layer of the tower; None
            without experts.
        expert_domains: the domain index of each expert, ``[E]``.
    """

    def __init__(
        self,
        *,
        embedding: FieldEmbedding,
        backbone: nn.Module,
        tower: Tower,
        crosses: CrossTerms | None = None,
        gate: nn.Module | None,
        expert_domains: Sequence[int],
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.backbone = backbone
        self.tower = tower
        self.crosses = crosses
        if crosses is not None:
            tower.start_silent()
        self.gate = gate
        self.expert_domains = tuple(expert_domains)
        self._resting = False

    @property
    def is_silent(self) -> bool:
        """Whether backbone and tower, including experts, add exactly 0 to every row's cross terms.

        This is the case if the phase that trains them didn't help, and its start was kept.
        """
        if self.crosses is None or not getattr(self.backbone, "first_order_terms", False):
            return False
        last = cast(MoELoRALinear, self.tower.layers[-1])
        weights = (last.weight, last.bias, last.lora_b, last.lora_c, *self.embedding.first_order)
        return not any(bool(weight.any()) for weight in weights)

    def rest(self) -> None:
        """Skip backbone and tower in forward passes, and don't train their experts, if they are silent.

        A gate that sees a row reads what they compute, so with such a gate they are not skipped. Call this
        after all parts are loaded.
        """
        reads_sample = any(getattr(gate, "weight", None) is not None for gate in self.gates)
        self._resting = self.is_silent and not reads_sample

    def forward(self, batch: Batch) -> Tensor:
        """B rows of any domains -> logits ``[B]``."""
        return self.forward_with_gates(batch)[0]

    def forward_with_gates(
        self, batch: Batch | FrozenRows, table_rows: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """B rows of any domains -> logits ``[B]``, and the weights from each gate, ``[B, E]`` each.

        Frozen rows (:meth:`freeze`) need a model whose backbone and tower are skipped. ``table_rows``, if
        given, are the embedding table's rows at ``embedding.places(batch)``.
        """
        if isinstance(batch, FrozenRows) or self._resting:
            assert self.crosses is not None  # else nothing rests
            rows = batch if isinstance(batch, FrozenRows) else self.crosses.freeze(batch)
            no_input = rows.user[:, :0]
            weights = [gate(no_input, rows.domain) for gate in self.gates]
            return self.crosses.adapted(rows, weights[0] if weights else None), weights
        logits, weights = self._score(self.embedding(batch, table_rows), batch.domain)
        if self.crosses is not None:
            logits = logits + self.crosses(batch, weights[0] if weights else None)
        return logits, weights

    @torch.no_grad()
    def freeze(self, batch: Batch) -> Batch | FrozenRows:
        """Compute what experts and gate don't change, if all else is skipped; otherwise return the batch.

        So a phase that trains only experts or gate computes it once, in large blocks.
        """
        return self.crosses.freeze(batch) if self._resting and self.crosses is not None else batch

    def score(self, embedded: Embedded, domain: Tensor, adaptation: Tensor | None = None) -> Tensor:
        """B embedded rows, ``domain [B]`` -> logits ``[B]`` without the cross terms.

        ``adaptation``, if given, is what each expert adds to these, ``[B, E]``, weighted by the gate.
        """
        logits, weights = self._score(embedded, domain)
        return logits if adaptation is None else logits + (weights[0] * adaptation).sum(1)

    def _score(self, embedded: Embedded, domain: Tensor) -> tuple[Tensor, list[Tensor]]:
        terms, x = cast(Backbone, self.backbone)(embedded)
        logits, weights = self.tower(x, domain, self.gates)
        return terms + logits, weights

    @property
    def gates(self) -> Sequence[nn.Module]:
        """The gates: none, one for all layers of the tower, or one per layer."""
        if self.gate is None:
            return ()
        return tuple(self.gate) if isinstance(self.gate, nn.ModuleList) else (self.gate,)

    def gate_weights(self, batch: Batch) -> Tensor | None:
        """Return the experts' weights, ``[B, E]``, averaged over differing layers; None without experts."""
        _, weights = self.forward_with_gates(batch)
        return torch.stack(weights).mean(0) if weights else None

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """What phase 1 trains: all but experts, gate and the cross terms, which are fitted before."""
        names = (name for name, _ in self.named_parameters() if _is_backbone(name))
        return (self.get_parameter(name) for name in names if not name.startswith(_CROSSES))

    def expert_parameters(self) -> Iterator[nn.Parameter]:
        """What phase 2 trains: the experts' parameters, except in skipped parts."""
        experts = ((name, value) for name, value in self.named_parameters() if _is_expert(name))
        return (value for name, value in experts if not self._resting or name.startswith(_CROSSES))

    def gate_parameters(self) -> Iterator[nn.Parameter]:
        """What phase 3 trains; nothing if the gate isn't a trained one."""
        return iter(()) if self.gate is None else self.gate.parameters()

    def backbone_state(self) -> State:
        """Return copies of all tensors except the experts' and the gate's, by name."""
        return {name: _copy(value) for name, value in self.state_dict().items() if _is_backbone(name)}

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of :meth:`backbone_state`.

        Raises:
            ContractError: names or shapes differ from this model's.
        """
        own = {name: value for name, value in self.state_dict().items() if _is_backbone(name)}
        _load("backbone", own, state)

    def cross_state(self) -> State:
        """Return copies of the cross terms' tensors except the experts', by name."""
        return {name: value for name, value in self.backbone_state().items() if name.startswith(_CROSSES)}

    def load_crosses(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of :meth:`cross_state`.

        Raises:
            ContractError: names or shapes differ from this model's.
        """
        own = self.state_dict()
        own = {n: value for n, value in own.items() if n.startswith(_CROSSES) and _is_backbone(n)}
        _load("cross terms", own, state)

    def expert_state(self, expert: int) -> State:
        """Return copies of one expert's matrices, by name, without the expert dimension."""
        return {name: _copy(value) for name, value in self._expert(expert).items()}

    def load_expert(self, expert: int, state: Mapping[str, Tensor]) -> None:
        """Load the result of :meth:`expert_state`, of any model with the same tower, as expert ``expert``.

        Raises:
            ContractError: names or shapes differ from this model's.
        """
        _load(f"expert {expert}", self._expert(expert), state)

    def gate_state(self) -> State:
        """Return copies of the gate's tensors; empty if the gate isn't a trained one."""
        return {} if self.gate is None else {n: _copy(v) for n, v in self.gate.state_dict().items()}

    def load_gate(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of :meth:`gate_state`.

        Raises:
            ContractError: names or shapes differ, or it was trained with other experts or another order.
        """
        own = {} if self.gate is None else self.gate.state_dict()
        for name in (name for name in own.keys() & state.keys() if name.endswith("expert_domains")):
            trained_with = tuple(state[name].tolist())
            if trained_with != self.expert_domains:
                raise ContractError(
                    f"gate: it mixes experts of domains {trained_with}, but the model has "
                    f"{self.expert_domains}: pass the experts in the gate's order, or train the gate again",
                    expected=trained_with,
                    found=self.expert_domains,
                )
        _load("gate", own, state)

    def _expert(self, expert: int) -> State:
        """Return one expert's own tensors as views, so that copying into them loads the expert."""
        if not 0 <= expert < len(self.expert_domains):
            raise ContractError(f"expert {expert}: the model has {len(self.expert_domains)} experts")
        return {name: value[expert] for name, value in self.state_dict().items() if _is_expert(name)}


def is_zero(expert: Mapping[str, Tensor]) -> bool:
    """Return whether an expert changes no score: its ``lora_b`` and ``lora_c`` start at 0."""
    return not any(bool(value.any()) for name, value in expert.items() if not name.endswith("lora_a"))


def _is_expert(name: str) -> bool:
    return name.rpartition(".")[2] in _EXPERT_PARAMETERS


def _is_backbone(name: str) -> bool:
    return not _is_expert(name) and not name.startswith("gate.")


def _copy(value: Tensor) -> Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def _load(part: str, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy ``state`` into ``own`` if names and shapes agree."""
    expected = {name: tuple(value.shape) for name, value in own.items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    if expected != given:
        wrong = sorted(
            name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)
        )
        raise ContractError(
            f"{part}: its tensors are not this model's ("
            + "; ".join(f"{name}: {given.get(name)} for {expected.get(name)}" for name in wrong[:4])
            + "): use the specification that it was trained with",
            expected=expected,
            found=given,
        )
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
