"""``mmlora features build``: activity views up to a date, then Feast's registry."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from mmlora.pipeline.freshness import refuse_future
from mmlora.pipeline.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.features.columns import Column
    from mmlora.features.repo import FeatureRepo

logger = logging.getLogger(__name__)


def build_features(through: date, *, progress: Progress = silent) -> dict[str, Any]:
    """Compute the activity rows stamped up to ``through`` 00:00 UTC and apply the feature definitions."""
    workspace = open_workspace()
    report = _build(workspace, through, progress, decide=True)
    workspace.feature_repo.apply()
    return report


def list_features() -> dict[str, list[dict[str, Any]]]:
    """Return what each column of the imported profiles becomes, and which views are computed of them.

    Returns:
        ``columns``: each with its type, what it became, why, its distinct values, the share missing and the
        fields' tags; ``views``: each with its features, or why there is none.
    """
    repo = open_workspace().feature_repo
    columns = repo.columns()
    rows = [
        {
            "column": f"{column.entity}s.{column.name}",
            "type": str(column.stats.type),
            "became": column.kind,
            "why": column.why,
            "values": column.stats.distinct,
            "missing": column.stats.missing / max(1, column.stats.rows),
            "tags": dict(column.tags),
        }
        for column in columns
    ]
    return {"columns": rows, "views": _computed_views(repo, columns)}


def _computed_views(repo: FeatureRepo, columns: list[Column]) -> list[dict[str, Any]]:
    affinity = repo.chosen_affinity(columns)
    views = [
        {"view": view.name, "features": list(view.features), "why": view.what} for view in affinity.views
    ]
    if affinity.attributes and not affinity.by_domain:
        why = "left out: users keep to one domain, where it would say what user_affinity does"
        views.append({"view": "user_domain_affinity", "features": [], "why": why})
    views += [{"view": of.view, "features": [of.name], "why": of.what} for of in repo.derived(columns)]
    return views


def ensure_features(workspace: Workspace, through: date, *, progress: Progress = silent) -> dict[str, Any]:
    """Build what is missing up to ``through``; the definitions are applied only when all was built anew."""
    report = _build(workspace, through, progress)
    workspace.feature_repo.refresh()
    if report["since"] is None or not workspace.feature_repo.applied:
        workspace.feature_repo.apply()
    return report


def ensure_profiles(workspace: Workspace) -> None:
    """Apply the definitions where they never were, and refresh what is computed from the profiles."""
    if workspace.feature_repo.applied:
        workspace.feature_repo.refresh()
    else:
        workspace.feature_repo.apply()


def _build(
    workspace: Workspace, through: date, progress: Progress, *, decide: bool = False
) -> dict[str, Any]:
    from mmlora.features.build import build

    refuse_future(through)
    workspace.store.ids  # noqa: B018  says "import data first" before anything is made
    settings = workspace.settings.features
    report = build(
        workspace.offline,
        through=through,
        prior_ctr=settings.prior_ctr,
        prior_weight=settings.prior_weight,
        columns=settings.columns,
        decide=decide,
        progress=progress,
    )
    written = sum(report.rows.values())
    if written:
        logger.info("features through %s: %s rows written", through, f"{written:,}")
    return asdict(report)
