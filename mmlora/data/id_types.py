"""The types of the ids: the first import chooses them, and every later table must have them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from mmlora.errors import ContractError, UsageError
from mmlora.schema import ENTITY_KEYS, Entity, IdTypes


def agree_on_ids(
    root: Path, ids: IdTypes | None, table: pa.Table | None, profiles: Mapping[Entity, pa.Table]
) -> IdTypes:
    """Return the store's id types, or for the first import those of this table, if all tables agree.

    Args:
        root: the store's folder, for messages.
        ids: the store's id types; None before the first import.
        table: the delivery's interactions, if any.
        profiles: the delivery's profiles.

    Raises:
        UsageError: the first delivery has only profiles.
        ContractError: a table has ids of other types.
    """
    found: dict[str, tuple[Entity, pa.DataType]] = {}
    if table is not None:
        for entity, key in ENTITY_KEYS.items():
            found[f"interactions' {key}"] = (entity, table.schema.field(key).type)
    if ids is None:
        if not found:
            raise UsageError(
                f"{root} has no interactions yet: import them together with the profiles, because they "
                "determine the types of the ids"
            )
        ids = IdTypes(**{entity: str(kind) for entity, kind in found.values()})  # type: ignore[arg-type]
    for entity, profile in profiles.items():
        key = ENTITY_KEYS[entity]
        found[f"{entity} profiles' {key}"] = (entity, profile.schema.field(key).type)
    wrong = [
        f"{name} is {kind}, expected {ids.arrow(entity)}"
        for name, (entity, kind) in found.items()
        if kind != ids.arrow(entity)
    ]
    if wrong:
        message = f"{'; '.join(wrong)}: the first import decides a store's id types; convert the ids"
        raise ContractError(
            message, expected=ids, found={name: str(kind) for name, (_, kind) in found.items()}
        )
    return ids
