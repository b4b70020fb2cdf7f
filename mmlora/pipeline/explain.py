"""``mmlora explain``: why a published pair has its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from mmlora.errors import UsageError
from mmlora.features.source_times import SourceTime
from mmlora.load_checks import AuditCheck
from mmlora.models.explaining import LogitPart, logit_parts
from mmlora.records import Record
from mmlora.runs.built_features import ensure_features
from mmlora.runs.champions import bundle_of
from mmlora.runs.contract import check_contract
from mmlora.schema import (
    DOMAIN_ID,
    EVENT_TIMESTAMP,
    ITEM_ID,
    POSITION,
    SCORE,
    TIMESTAMP,
    USER_ID,
    Entity,
    Id,
    midnight,
)
from mmlora.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.registry.bundle import Bundle
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.publish import Publication
    from mmlora.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class Explanation(Record):
    """How a score came about.

    Attributes:
        domain_id, user_id, item_id, score_date: the pair and its night.
        load_id: the published load.
        model_version: the load's model.
        bundle_hash: hash of the model's manifest, which names every part by its own hash.
        model_as_of: the day up to which the model's data was read.
        model_code_version: mmlora's version when the model was trained.
        code_version: mmlora's version when the load was scored; None in loads that don't say.
        data_fingerprint: of its training data.
        contract_hash: of its features.
        published_score: the published score; None if the pair is not in the user's list.
        position: its position in the list.
        score: the score computed from the parts.
        logit: sum of the parts.
        scale: the calibration: score = sigmoid(scale * logit + shift).
        shift: see scale.
        parts: the parts of the logit, largest first.
        gate: the experts' weights, by the domain that trained each.
        features: the features' values as of the score date, by name.
        sources: by feature view, since when the row that its features come from holds, and is known.
        checks: the checks that the load passed, or why one was overridden.
    """

    domain_id: Id
    user_id: Id
    item_id: Id
    score_date: date
    load_id: str
    model_version: str
    bundle_hash: str
    model_as_of: date
    model_code_version: str
    code_version: str | None
    data_fingerprint: str
    contract_hash: str
    published_score: float | None
    position: int | None
    score: float
    logit: float
    scale: float
    shift: float
    parts: tuple[LogitPart, ...]
    gate: Mapping[str, float]
    features: Mapping[str, Any]
    sources: tuple[SourceTime, ...]
    checks: tuple[AuditCheck, ...]


def explain(domain: str, user: str, item: str, *, on: date | None = None) -> Explanation:
    """Explain the score of a pair on a published night.

    The features are read again as of the score date, and the night's model computes the score again.

    Args:
        domain: the domain.
        user: the user.
        item: the item; it need not be in the user's published list.
        on: the score date; the newest published one when None.

    Raises:
        UsageError: nothing is published for the domain and date, or an id has the wrong type.
        ContractError: the model is gone, or the feature store no longer has its features.
    """
    workspace = open_workspace()
    target = workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        night = warehouse.publication(target, on)
        if night is None:
            raise UsageError(f"nothing is published for domain {domain!r}{f' on {on}' if on else ''}")
        pair = _id(workspace, "user", user), _id(workspace, "item", item)
        bundle = bundle_of(workspace, warehouse, target, night.model_version)
        ensure_features(workspace, night.score_date)
        check_contract(workspace, bundle)
        listed = _listed(warehouse, night, *pair)
        load = warehouse.load(night.load_id)
    return _explained(workspace, bundle, night, pair, listed, load)


def _explained(
    workspace: Workspace,
    bundle: Bundle,
    night: Publication,
    pair: tuple[Id, Id],
    listed: tuple[float, int] | None,
    load: Load,
) -> Explanation:
    import numpy as np
    import torch

    from mmlora.models.ctr import CTRModel

    entity = _entity(workspace, night, *pair)
    features = workspace.feature_repo.retrieve(entity, bundle.contract)
    encoder, model = bundle.encoder(), bundle.model_of(night.domain_id)
    batch = encoder.assemble([(encoder.encode(features), np.zeros(1, np.int64))])
    mixture = bundle.manifest.mixture_of(night.domain_id)
    owners = [str(expert.domain) for expert in (mixture or bundle.manifest).experts]
    parts = logit_parts(model, batch, owners)
    weights = model.gate_weights(batch) if isinstance(model, CTRModel) else None
    logit = sum(part.value for part in parts)
    calibration = bundle.calibration_of(night.domain_id)
    scale, shift = calibration.line(int(batch.domain[0]))
    score = calibration.apply(torch.tensor([logit], dtype=torch.float64), batch.domain)
    return Explanation(
        domain_id=night.domain_id,
        user_id=pair[0],
        item_id=pair[1],
        score_date=night.score_date,
        load_id=night.load_id,
        model_version=night.model_version,
        bundle_hash=bundle.manifest.content_hash,
        model_as_of=bundle.manifest.as_of,
        model_code_version=bundle.manifest.code_version,
        code_version=load.code_version,
        data_fingerprint=bundle.manifest.data_fingerprint,
        contract_hash=bundle.contract.hash,
        published_score=listed[0] if listed else None,
        position=listed[1] if listed else None,
        score=float(score[0]),
        logit=logit,
        scale=scale,
        shift=shift,
        parts=tuple(sorted(parts, key=lambda part: -abs(part.value))),
        gate={} if weights is None else dict(zip(owners, weights[0].tolist(), strict=True)),
        features=features.to_pylist()[0],
        sources=tuple(workspace.feature_repo.source_times(entity, bundle.contract)),
        checks=(load.checks.audit if load.checks else None) or (),
    )


def _entity(workspace: Workspace, night: Publication, user: Id, item: Id) -> pa.Table:
    """Return the pair at the score date, one row."""
    import pyarrow as pa

    ids = workspace.ids
    row = {
        DOMAIN_ID: pa.array([night.domain_id], ids.arrow("domain")),
        USER_ID: pa.array([user], ids.arrow("user")),
        ITEM_ID: pa.array([item], ids.arrow("item")),
        EVENT_TIMESTAMP: pa.array([midnight(night.score_date)], TIMESTAMP),
    }
    return pa.table(row)


def _listed(warehouse: Warehouse, night: Publication, user: Id, item: Id) -> tuple[float, int] | None:
    """Return the pair's published score and position; None if the user's list lacks it."""
    rows = warehouse.read_publications([night], users=[user]).read_all().to_pylist()
    return next(((row[SCORE], row[POSITION]) for row in rows if row[ITEM_ID] == item), None)


def _id(workspace: Workspace, entity: Entity, text: str) -> Id:
    try:
        return workspace.ids.parse(entity, text)
    except ValueError:
        raise UsageError(f"{entity} {text!r}: {entity} ids are whole numbers of 64 bits here") from None
