"""What a retrieval of features asks for, and how its result becomes the model's input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa

from mmlora.errors import ContractError, UsageError
from mmlora.features.transforms import to_input
from mmlora.schema import ENTITY_KEYS, EVENT_TIMESTAMP, FeatureContract, FeatureField


def fields_of(entities: pa.Table, contract: FeatureContract) -> tuple[FeatureField, ...]:
    """Return the contract's fields whose keys the rows have."""
    if EVENT_TIMESTAMP not in entities.column_names:
        columns = ", ".join(entities.column_names)
        raise UsageError(f"entity rows need {EVENT_TIMESTAMP} besides their ids; they have {columns}")
    return contract.keyed_by(entities.column_names).fields


def entity_rows(
    entities: pa.Table,
    features: list[FeatureField],
    known_as_of: datetime | None,
    columns: Iterable[str] = (),
) -> pa.Table:
    """Return the rows' keys and times, with the moment by which values must be known."""
    keys = {key for field in features for key in field.keys}
    keys |= set(columns).intersection(ENTITY_KEYS.values())
    rows = entities.select([*sorted(keys), EVENT_TIMESTAMP])
    if known_as_of is None:
        return rows
    moment = known_as_of if known_as_of.tzinfo else known_as_of.replace(tzinfo=UTC)
    return rows.replace_schema_metadata({"known_as_of": moment.isoformat()})


def input_column(field: FeatureField, retrieved: pa.Table) -> pa.ChunkedArray:
    """Return a retrieved field as the model reads it, as of each row."""
    return to_input(field, retrieved.column(field.name), retrieved.column(EVENT_TIMESTAMP))


def references(features: list[FeatureField]) -> list[str]:
    """Return Feast's references, ``view:feature``."""
    return [f"{field.view}:{field.name.removeprefix(field.view + '__')}" for field in features]


@contextmanager
def contract_errors(features: list[FeatureField]) -> Iterator[None]:
    """Raise a ContractError where the registry lacks a feature."""
    from feast.errors import FeastObjectNotFoundException

    try:
        yield
    except (FeastObjectNotFoundException, KeyError, ValueError) as error:
        raise ContractError(
            f"the feature contract needs features that the registry doesn't have ({error}): "
            "use a bundle trained on the current features, or train again",
            expected=references(features),
        ) from error


def rechunked(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Combine or split batches into tables of ``rows`` rows; the last one may be shorter."""
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        missing = rows - sum(map(len, pending))
        while len(batch) >= missing:
            yield pa.Table.from_batches([*pending, batch.slice(0, missing)])
            batch, pending, missing = batch.slice(missing), [], rows
        if len(batch):
            pending.append(batch)
    if pending:
        yield pa.Table.from_batches(pending)
