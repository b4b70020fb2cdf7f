"""Convert Feast's resolved definitions to the fields of the feature contract."""

from __future__ import annotations

from typing import Any

from mmlora.errors import UsageError
from mmlora.schema import ENTITY_KEYS, ITEM_ID, USER_ID, FeatureField, FieldKind, valid_names

KINDS: dict[str, FieldKind] = {
    "INT32": "categorical",
    "INT64": "categorical",
    "STRING": "categorical",
    "FLOAT": "dense",
    "DOUBLE": "dense",
    "FLOAT_LIST": "vector",
    "DOUBLE_LIST": "vector",
    "STRING_LIST": "bag",
    "INT64_LIST": "bag",
    "UNIX_TIMESTAMP": "dense",
}
"""How a field is encoded, by Feast's value type, unless its tag ``kind`` says otherwise."""


def check_projection(projection: Any, keys: tuple[str, ...]) -> None:
    """Reject a view that can't be joined with rows of users, items and domains.

    Raises:
        UsageError: the view has aliases, or keys other than those of one side.
    """
    name = projection.name
    if projection.name_alias or projection.join_key_map:
        raise UsageError(
            f"feature view {name}: aliases and join key maps aren't supported in the model's input"
        )
    if strange := [key for key in keys if key not in ENTITY_KEYS.values()]:
        valid = ", ".join(ENTITY_KEYS.values())
        raise UsageError(
            f"feature view {name} is keyed by {', '.join(strange)}; the model's input can be keyed by {valid}"
        )
    if {USER_ID, ITEM_ID} <= set(keys):
        raise UsageError(
            f"feature view {name} is keyed by {USER_ID} and {ITEM_ID} together; scoring reads each side once "
            "and can't join such a view: leave it out of the feature service"
        )


def contract_field(view: str, keys: tuple[str, ...], field: Any) -> FeatureField:
    """Return the contract's field for a Feast field.

    Raises:
        UsageError: its type has no encoding, or its tag ``kind`` isn't a valid kind.
    """
    dtype = field.dtype.to_value_type().name
    kind = field.tags.get("kind", KINDS.get(dtype))
    if kind not in valid_names(FieldKind):
        raise UsageError(
            f"feature {view}:{field.name} of type {dtype} has kind {kind}; types with an encoding are "
            f"{', '.join(KINDS)}, and a tag `kind` can be {', '.join(valid_names(FieldKind))}"
        )
    tags = {"transform": "days_since", **field.tags} if dtype == "UNIX_TIMESTAMP" else field.tags
    return FeatureField(f"{view}__{field.name}", view, keys, dtype, kind, tuple(sorted(tags.items())))
