"""``mmlora importance``: which features a model's ranking rests on, by domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlora.errors import UsageError
from mmlora.metrics.bootstrap import Interval, Intervals
from mmlora.records import Record
from mmlora.runs.champions import bundle_of
from mmlora.schema import DOMAIN_ID, LABEL, FeatureContract
from mmlora.workspace import Progress, open_workspace, silent

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from mmlora.runs.measured_rows import MeasuredRows

    Array = npt.NDArray[Any]

PERMUTATIONS = 3
MOST_ROWS = 10_000
_DRAWS = 100


@dataclass(frozen=True)
class FeatureImportance(Record):
    """What is lost when a feature's values are exchanged between the rows of a domain.

    Attributes:
        feature: the feature; the weights of a list's elements move with the list.
        wauc: loss of the mean of the domains' AUCs weighted by rows, with its 95% interval.
        by_domain: loss of each domain's AUC.
    """

    feature: str
    wauc: Interval
    by_domain: Mapping[str, Interval]


@dataclass(frozen=True)
class Importance(Record):
    """The features of a model by importance.

    Attributes:
        model_version: the model.
        source: what the rows are, in a clause.
        rows: number of rows.
        clicks: of these.
        permutations: permutations of each feature.
        features: the most important first.
    """

    model_version: str
    source: str
    rows: int
    clicks: int
    permutations: int
    features: tuple[FeatureImportance, ...]


def importance(
    *,
    domain: str | None = None,
    model_version: str | None = None,
    rows: int = MOST_ROWS,
    permutations: int = PERMUTATIONS,
    progress: Progress = silent,
) -> Importance:
    """Measure how much of a model's AUC on held-out rows depends on each feature.

    A feature's values before encoding are exchanged between the rows of the same domain, all else stays.

    Args:
        domain: rows of this domain only, and its champion; all domains when None.
        model_version: the model; None uses the champion.
        rows: the most rows to use; more give narrower intervals.
        permutations: permutations of each feature.
        progress: called after every feature.

    Raises:
        UsageError: there is no such domain or model, or there are no held-out rows with both labels.
    """
    from mmlora.runs.measured_rows import measured_rows

    if rows < 1 or permutations < 1:
        raise UsageError(f"rows={rows}, permutations={permutations}: both must be 1 or more")
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        bundle = bundle_of(workspace, warehouse, target, model_version)
    data = measured_rows(workspace, bundle, target, rows)
    label = data.rows[LABEL].to_numpy()
    if not 0 < int((label > 0).sum()) < len(label):
        raise UsageError(f"the {len(label):,} held-out rows have one label only, so they have no AUC")
    features = _measured(data, bundle.contract, permutations, progress)
    return Importance(
        bundle.manifest.model_version,
        data.source,
        len(label),
        int((label > 0).sum()),
        permutations,
        tuple(features),
    )


def _measured(
    data: MeasuredRows, contract: FeatureContract, permutations: int, progress: Progress
) -> list[FeatureImportance]:
    from mmlora.metrics.bootstrap import compare_all
    from mmlora.metrics.importance import combined, permutation_within

    coded = data.rows[DOMAIN_ID].combine_chunks().dictionary_encode()
    names, domain = [str(name) for name in coded.dictionary.to_pylist()], coded.indices.to_numpy()
    groups = feature_groups(contract, data.features.column_names)
    label, random = data.rows[LABEL].to_numpy(), np.random.default_rng(0)
    before, found = data.scores(data.features), list[dict[str, Intervals]]()
    for round_ in range(permutations):
        permuted = {}
        for done, (feature, columns) in enumerate(groups.items()):
            order = permutation_within(domain, random)
            permuted[feature] = data.scores(_exchanged(data.features, columns, order))
            progress("permute features", round_ * len(groups) + done + 1, permutations * len(groups))
        found.append(compare_all(label, before, permuted, domain, draws=_DRAWS, seed=round_))
    measured = [
        FeatureImportance(
            feature,
            combined([each[feature].wauc for each in found]),
            {
                name: combined([each[feature].by_domain[index] for each in found])
                for index, name in enumerate(names)
            },
        )
        for feature in groups
    ]
    return sorted(measured, key=lambda each: -(each.wauc.value or 0.0))


def feature_groups(contract: FeatureContract, columns: list[str]) -> dict[str, list[str]]:
    """Return the columns to exchange together, by feature: a list moves with the weights of its elements."""
    groups: dict[str, list[str]] = {}
    for field in contract.fields:
        if field.name not in columns or field.name == DOMAIN_ID:
            continue  # within a domain its id is the same
        history = field.kind in ("history", "counts")
        groups.setdefault(field.view if history else field.tag("weights") or field.name, []).append(
            field.name
        )
    return groups


def _exchanged(features: pa.Table, columns: list[str], order: Array) -> pa.Table:
    for name in columns:
        place = features.column_names.index(name)
        features = features.set_column(place, name, features[name].take(order))
    return features
