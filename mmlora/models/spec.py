"""A model's specification, as plain values: stored in the bundle, validated once on creation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmlora.errors import UsageError
from mmlora.hyperparameters import ModelShape, as_kept
from mmlora.hyperparameters.setting import faults_in
from mmlora.schema import Adaptation, BackboneName, Entity, FieldKind, valid_names


@dataclass(frozen=True)
class FieldShape:
    """The shape of one encoded input field.

    Attributes:
        name: the feature's name in the contract.
        kind: ``categorical``, ``dense``, ``vector``, ``bag``, ``weights`` of a bag, or ``history``.
        size: vocabulary size of a categorical field or bag (including indices 0 = missing and 1 = unknown),
            the width of a vector, 1 for a dense field.
        side: what its value depends on: the user (with or without the domain), the item, or the domain alone.
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
class ModelSpec(ModelShape):
    """Everything that determines a model's parameters, except which experts it has.

    Its shape is declared in :mod:`mmlora.hyperparameters`. The gate's settings only matter for a trained
    gate; other adaptations ignore them.

    Attributes:
        backbone: the interaction network, e.g. ``wdl``; or ``gbdt``, i.e. trees, which use only the fields
            of this specification.
        adaptation: ``none``, ``mlora`` (each domain its own experts) or ``moe_mlora`` (a trained gate).
        fields: the inputs, in the order of the encoded columns.
        num_domains: domains seen in training.

    Raises:
        UsageError: any of it is unknown or out of range; every fault is named.
    """

    backbone: BackboneName
    adaptation: Adaptation
    fields: tuple[FieldShape, ...]
    num_domains: int

    def __post_init__(self) -> None:
        faults = [*faults_in(self), *self._contradictions(), *self._faulty_fields()]
        if faults:
            raise UsageError("model: " + "; ".join(faults))

    def of_kind(self, kind: FieldKind) -> tuple[FieldShape, ...]:
        """Return the fields of one kind, in order."""
        return tuple(field for field in self.fields if field.kind == kind)

    def to_dict(self) -> dict[str, object]:
        """Return a JSON-ready mapping."""
        fields = [asdict(field) for field in self.fields]
        return {**as_kept(asdict(self)), "fields": fields, "hidden_units": list(self.hidden_units)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ModelSpec:
        """Read back the result of :meth:`to_dict`; values missing from an older one get their default."""
        fields = tuple(FieldShape(**field) for field in raw["fields"])
        known = {"crosses": False, **raw}  # older specifications have no cross terms
        return cls(**{**known, "fields": fields, "hidden_units": tuple(raw["hidden_units"])})

    def _contradictions(self) -> Iterator[str]:
        if self.num_domains < 1:
            yield f"num_domains is {self.num_domains}: it must be 1 or more"
        if self.hidden_units and self.rank > (narrowest := min(self.hidden_units)) > 0:
            yield f"rank {self.rank} is above the smallest hidden width, {narrowest}: choose a lower rank"
        if self.backbone == "gbdt" and (self.crosses or self.adaptation != "none"):
            yield "backbone gbdt is trees, which have no cross terms and no experts: use adaptation none"

    def _faulty_fields(self) -> Iterator[str]:
        if not self.fields:
            yield "there are no fields: a model needs at least one input"
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
