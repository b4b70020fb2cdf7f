"""``mmlora features build``: activity views up to a date, then Feast's registry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from mmlora.names import ColumnKind
from mmlora.records import Record
from mmlora.runs.built_features import build
from mmlora.workspace import Progress, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.features.build import BuildReport
    from mmlora.features.columns import Column
    from mmlora.features.repo import FeatureRepo

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProfileColumn(Record):
    """A column of the profiles.

    Attributes:
        column: ``users.age`` and so on.
        type: as it is stored.
        became: the kind of its feature.
        why: the reason, in a clause.
        values: distinct values.
        missing: share of the rows without a value.
        tags: of its Feast field.
    """

    column: str
    type: str
    became: ColumnKind
    why: str
    values: int
    missing: float
    tags: Mapping[str, str]


@dataclass(frozen=True)
class ComputedView(Record):
    """A view that is computed of the profiles: its features, and what they are or why there are none."""

    view: str
    features: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class FeatureList(Record):
    """What the columns of the imported profiles become, and what is computed of them."""

    columns: tuple[ProfileColumn, ...]
    views: tuple[ComputedView, ...]


def build_features(through: date, *, progress: Progress = silent) -> BuildReport:
    """Compute the activity rows stamped up to ``through`` 00:00 UTC and apply the feature definitions."""
    workspace = open_workspace()
    report = build(workspace, through, progress, decide=True)
    workspace.feature_repo.apply()
    return report


def list_features() -> FeatureList:
    """Return what each column of the imported profiles becomes, and which views are computed of them."""
    repo = open_workspace().feature_repo
    columns = repo.columns()
    return FeatureList(tuple(map(_described, columns)), tuple(_computed_views(repo, columns)))


def _described(column: Column) -> ProfileColumn:
    return ProfileColumn(
        column=f"{column.entity}s.{column.name}",
        type=str(column.stats.type),
        became=column.kind,
        why=column.why,
        values=column.stats.distinct,
        missing=column.stats.missing / max(1, column.stats.rows),
        tags=column.tags,
    )


def _computed_views(repo: FeatureRepo, columns: list[Column]) -> list[ComputedView]:
    affinity = repo.chosen_affinity(columns)
    views = [ComputedView(view.name, view.features, view.what) for view in affinity.views]
    if affinity.attributes and not affinity.by_domain:
        why = "left out: users keep to one domain, where it would say what user_affinity does"
        views.append(ComputedView("user_domain_affinity", (), why))
    return views + [ComputedView(of.view, (of.name,), of.what) for of in repo.derived(columns)]
