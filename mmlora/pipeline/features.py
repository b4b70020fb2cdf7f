"""``mmlora features``: build the activity views and apply Feast's definitions; list the features."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from mmlora.names import ColumnKind
from mmlora.records import Record
from mmlora.runs.built_features import build
from mmlora.runs.datasets import feature_views, sources
from mmlora.telemetry import note, work
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
        column: e.g. ``users.age``.
        type: its stored type.
        became: the kind of its feature.
        why: the reason, in a clause.
        values: number of distinct values.
        missing: share of rows without a value.
        tags: tags of its Feast field.
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
    """A view computed from the profiles: its features, and what they are or why there are none."""

    view: str
    features: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class FeatureList(Record):
    """The features of the imported profiles: the columns, and the views computed from them."""

    columns: tuple[ProfileColumn, ...]
    views: tuple[ComputedView, ...]


def build_features(through: date, *, progress: Progress = silent) -> BuildReport:
    """Compute the activity rows with timestamps up to ``through`` 00:00 UTC, and apply the definitions."""
    workspace = open_workspace()
    with work("build_features", date=through, reads=sources(workspace)):
        report = build(workspace, through, progress, decide=True)
        note(rows=sum(report.rows.values()), writes=feature_views(report.rows))
        workspace.feature_repo.apply_if_changed()
    return report


def list_features() -> FeatureList:
    """Return the kind of each column of the imported profiles, and the views computed from them."""
    repo = open_workspace().feature_repo
    columns = repo.columns()
    return FeatureList(tuple(map(_profile_column, columns)), tuple(_computed_views(repo, columns)))


def _profile_column(column: Column) -> ProfileColumn:
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
        why = "left out: each user keeps to one domain, so it would be the same as user_affinity"
        views.append(ComputedView("user_domain_affinity", (), why))
    derived = repo.derived(columns)
    return views + [ComputedView(feature.view, (feature.name,), feature.what) for feature in derived]
