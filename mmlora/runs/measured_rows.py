"""Rows that a model version was not trained on, with the model to measure on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import DataError, UsageError
from mmlora.runs.contract import check_contract
from mmlora.runs.state import Run
from mmlora.runs.training_run import data_of, models_of
from mmlora.runs.training_set import rows_of
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, LABEL, USER_ID, Id, midnight

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.encoding import Encoder
    from mmlora.models.builder import Model
    from mmlora.registry.bundle import Bundle
    from mmlora.training.epoch import RowNumbers
    from mmlora.workspace import Workspace

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MeasuredRows:
    """Rows and a model that has not seen them.

    Attributes:
        rows: the interactions, by domain.
        features: their features before encoding.
        encoder: the model's encoder.
        models: the model with the numbers of the rows that it scores; one for each domain that has a mixture.
        source: what the rows and the model are, in a clause.
    """

    rows: pa.Table
    features: pa.Table
    encoder: Encoder
    models: Sequence[tuple[Model, RowNumbers]]
    source: str

    def scores(self, features: pa.Table) -> Array:
        """Return each row's score before calibration, ``[N]``, which is what AUCs need.

        Args:
            features: the features of the rows, ``[N]``, of which some may be changed.
        """
        import torch

        from mmlora.training.rows import blocks

        encoded, out = self.encoder.encode(features), np.empty(features.num_rows)
        for model, numbers in self.models:
            for place, block in blocks(numbers):
                batch = self.encoder.assemble([(encoded, block)])
                with torch.inference_mode():
                    out[numbers[place]] = torch.sigmoid(model(batch).double()).numpy()
        return out


def measured_rows(workspace: Workspace, bundle: Bundle, domain: Id | None, most: int) -> MeasuredRows:
    """Return at most ``most`` held-out rows of a domain, or of all.

    These are the test rows of the run that registered the version, with the model that was judged on them. A
    version without such a run (a composition, or its run was removed) is measured on what became known after
    its training.

    Raises:
        UsageError: there are no such rows.
        DataError: the stored interactions no longer match the run's training set.
        ContractError: the feature store no longer has the model's features.
    """
    check_contract(workspace, bundle)
    run = run_of_version(workspace, bundle.manifest.model_version)
    if run is None:
        rows = _chosen(_since(workspace, bundle), domain, most)
        source = "newer rows than those that the model was trained on"
        models = list(_models(bundle, rows))
        return MeasuredRows(rows, _features(workspace, bundle, rows), bundle.encoder(), models, source)
    data = data_of(workspace, run)
    table = rows_of(workspace, data)
    if table.num_rows != len(data) or not np.array_equal(table[LABEL].to_numpy(), data.label):
        raise DataError(
            f"the test rows of {bundle.manifest.model_version}",
            "the interactions that its training set was made of have changed since: train again",
        )
    *_, (_, model) = models_of(workspace, run)
    rows = _chosen(table.take(np.asarray(data.rows("test"))), domain, most)
    source = "test rows, scored by the model that was judged on them"
    models = [(model, np.arange(rows.num_rows))]
    return MeasuredRows(rows, _features(workspace, bundle, rows), data.encoder, models, source)


def run_of_version(workspace: Workspace, model_version: str) -> Run | None:
    """Return the run that registered a version, if it and its training set are still there."""
    for file in sorted(workspace.home.glob("runs/[!.]*/registered.json")):
        if json.loads(file.read_text(encoding="utf-8"))["model_version"] == model_version:
            run = Run(file.parent)
            there = workspace.training_set_folder(run.config.training_set_id).exists()
            return run if there and run.config.base is None else None
    return None


def _since(workspace: Workspace, bundle: Bundle) -> pa.Table:
    """Return the rows of each domain since the last one learned from, except those with immature labels."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mmlora.data.current import read_current

    now, manifest = datetime.now(UTC), bundle.manifest
    matured = now - timedelta(hours=workspace.settings.training.label_maturity_hours)
    since = midnight(manifest.as_of)
    rows = read_current(workspace.offline, known_as_of=now, since=since, before=max(matured, since))
    moments = rows[EVENT_TIMESTAMP]
    parts = []
    for domain in pc.unique(rows[DOMAIN_ID]).to_pylist():
        unseen = pc.greater_equal(moments, pa.scalar(manifest.last_seen(domain), moments.type))
        parts.append(rows.filter(pc.and_(unseen, pc.equal(rows[DOMAIN_ID], domain))))
    rows = pa.concat_tables([rows.slice(0, 0), *parts])
    if not rows.num_rows:
        raise UsageError(
            f"the run of {manifest.model_version} isn't kept, and there are no interactions with known "
            "labels that it was not trained on: import some, or train again"
        )
    return rows


def _models(bundle: Bundle, rows: pa.Table) -> Iterator[tuple[Model, RowNumbers]]:
    domains = rows[DOMAIN_ID].to_numpy(zero_copy_only=False)
    others = np.ones(len(domains), bool)
    for mixture in bundle.manifest.mixtures:
        own = domains == mixture.domain
        others &= ~own
        if own.any():
            yield bundle.model_of(mixture.domain), np.flatnonzero(own)
    if others.any():
        yield bundle.model(), np.flatnonzero(others)


def _chosen(rows: pa.Table, domain: Id | None, most: int) -> pa.Table:
    """Return a domain's rows, or a sample of them spread over all, sorted by domain."""
    import pyarrow.compute as pc

    from mmlora.training.rows import sample

    if domain is not None:
        rows = rows.filter(pc.equal(rows[DOMAIN_ID], domain))
    if not rows.num_rows:
        raise UsageError(
            f"there are no held-out rows of domain {domain!r}" if domain else "there are no held-out rows"
        )
    rows = rows.sort_by([(DOMAIN_ID, "ascending"), (EVENT_TIMESTAMP, "ascending")])
    return rows.take(sample(np.arange(rows.num_rows), most, 0))


def _features(workspace: Workspace, bundle: Bundle, rows: pa.Table) -> pa.Table:
    entities = rows.select([USER_ID, ITEM_ID, DOMAIN_ID, EVENT_TIMESTAMP])
    return workspace.feature_repo.retrieve(entities, bundle.contract)
