"""What a model is made of, as plain values: stored in the bundle, checked once when it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmlora.errors import UsageError
from mmlora.schema import Adaptation, BackboneName, Entity, FieldKind, GateInput, valid_names


@dataclass(frozen=True)
class FieldShape:
    """The shape of one encoded input field.

    Attributes:
        name: the feature's name, as the contract has it.
        kind: ``categorical``, ``dense``, ``vector``, ``bag``, ``weights`` of a bag, or ``history``.
        size: vocabulary size (indices 0 = missing and 1 = unknown included) of a categorical field or bag,
            the width of a vector, 1 for a dense field.
        side: what decides its value: the user (with or without the domain), the item, or the domain alone.
        partner: of a user's field, the item's field that it is matched with (categorical fields and bags of
            one
            vocabulary) or multiplied with (vectors of one width); of ``weights``, the bag that they belong
            to.
    """

    name: str
    kind: FieldKind
    size: int
    side: Entity = "user"
    partner: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """Everything that decides a model's parameters but the experts it holds.

    Attributes:
        backbone: the interaction network, e.g. ``wdl``; or ``gbdt``, trees, which read no more of this than
            the fields.
        adaptation: ``none``, ``mlora`` (each domain its own experts) or ``moe_mlora`` (a trained gate).
        fields: the inputs, in the order of the encoded columns.
        num_domains: domains seen in training.
        crosses: whether the backbone has cross terms: see :mod:`mmlora.models.crosses`.
        embedding_dim: D, width of every field's embedding.
        hidden_units: widths of the tower's layers.
        dropout: share of hidden units dropped in training, in [0, 1).
        rank: rank R of each expert's matrices: a whole number, or in (0, 1) a share of each layer's width.
        alpha: LoRA's scale; a layer's adaptation is multiplied by alpha / R.
        experts_per_domain: experts trained for each domain that trains its own.
        gate: what the gate of ``moe_mlora`` sees: ``domain``, ``sample`` or ``both``. This and what follows
            means nothing without a trained gate, so other adaptations ignore it.
        gate_per_layer: whether each layer of the tower has a gate of its own, which sees that layer's input.
        gate_top_k: how many experts a row keeps; all when None.
        balance: weight of the penalty on experts that are used unequally (``gate.load_balance``) in the loss
            that trains the gate; 0 for none.

    Raises:
        UsageError: any of it is unknown or out of range; every fault is named.
    """

    backbone: BackboneName
    adaptation: Adaptation
    fields: tuple[FieldShape, ...]
    num_domains: int
    crosses: bool = False
    embedding_dim: int = 16
    hidden_units: tuple[int, ...] = (256, 128, 64)
    dropout: float = 0.5
    rank: int | float = 8
    alpha: float = 8.0
    experts_per_domain: int = 1
    gate: GateInput = "domain"
    gate_per_layer: bool = False
    gate_top_k: int | None = None
    balance: float = 0.0

    def __post_init__(self) -> None:
        faults = [*self._unknown_names(), *self._out_of_range(), *self._faulty_fields()]
        if faults:
            raise UsageError("model: " + "; ".join(faults))

    def of_kind(self, kind: FieldKind) -> tuple[FieldShape, ...]:
        """Return the fields of one kind, in order."""
        return tuple(field for field in self.fields if field.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        raw = asdict(self)
        return {**raw, "fields": list(raw["fields"]), "hidden_units": list(self.hidden_units)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelSpec:
        """Read back what :meth:`to_dict` gave; what an older one doesn't name has its default."""
        fields = tuple(FieldShape(**field) for field in raw["fields"])
        return cls(**{**raw, "fields": fields, "hidden_units": tuple(raw["hidden_units"])})

    def _unknown_names(self) -> Iterator[str]:
        for name, literal in (("backbone", BackboneName), ("adaptation", Adaptation), ("gate", GateInput)):
            value, valid = getattr(self, name), valid_names(literal)
            if value not in valid:
                yield f"{name} {value!r} is unknown: use one of {', '.join(valid)}"

    def _out_of_range(self) -> Iterator[str]:
        for name in ("num_domains", "embedding_dim", "experts_per_domain", "gate_top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {value}: it must be 1 or more"
        if not 0 < self.rank < 1 and (self.rank < 1 or not isinstance(self.rank, int)):
            yield f"rank is {self.rank}: give a whole number from 1, or a share of a layer's width in (0, 1)"
        if not self.hidden_units or min(self.hidden_units) < 1:
            yield f"hidden_units is {self.hidden_units}: give one or more widths of 1 or more"
        elif self.rank > min(self.hidden_units):
            narrowest = min(self.hidden_units)
            yield f"rank {self.rank} is above the smallest hidden width, {narrowest}: choose a lower rank"
        if not 0 <= self.dropout < 1:
            yield f"dropout is {self.dropout}: it must be in [0, 1)"
        if not self.alpha > 0:
            yield f"alpha is {self.alpha}: it must be above 0"
        if not self.balance >= 0:
            yield f"balance is {self.balance}: it must be 0 or more"
        if self.backbone == "gbdt" and (self.crosses or self.adaptation != "none"):
            yield "backbone gbdt is trees, which have no cross terms and no experts: use the adaptation none"

    def _faulty_fields(self) -> Iterator[str]:
        if not self.fields:
            yield "there are no fields: a model needs an input"
        names = [field.name for field in self.fields]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            yield f"fields named twice: {', '.join(repeated)}"
        for field in self.fields:
            valid = valid_names(FieldKind)
            if field.kind not in valid:
                yield f"field {field.name!r} has kind {field.kind!r}: use one of {', '.join(valid)}"
            if field.side not in valid_names(Entity):
                yield f"field {field.name!r} has side {field.side!r}: use one of user, item, domain"
            if field.size < 1 or (field.kind == "dense" and field.size != 1):
                yield f"field {field.name!r} ({field.kind}) has size {field.size}"
