"""Facts of the models that scored loads, for the view ``published_lineage``: the table ``score_models``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date

from mmlora.warehouse.database import Database, upsert
from mmlora.warehouse.tables import Tables


@dataclass(frozen=True)
class ModelFacts:
    """Where a model version comes from.

    Attributes:
        model_version: the version.
        bundle_hash: hash of its manifest, which names every part by its own hash.
        as_of: the day up to which its training data was read.
        data_fingerprint: fingerprint of the training data.
        contract_hash: hash of its feature contract.
        code_version: version of mmlora that trained it.
        base: the version that it was composed from; None if it was trained whole.
    """

    model_version: str
    bundle_hash: str
    as_of: date
    data_fingerprint: str
    contract_hash: str
    code_version: str
    base: str | None = None


def record_models(database: Database, tables: Tables, models: Sequence[ModelFacts]) -> None:
    """Keep models' facts; a version always has the same ones, so recording it again changes nothing."""
    if not models:
        return
    with database.writing() as connection:
        upsert(connection, tables.score_models, [asdict(model) for model in models])
