"""``mmlora features build``: activity views up to a date, then Feast's registry."""

from __future__ import annotations

import logging
from datetime import date
from typing import TYPE_CHECKING, Any

from mmlora.runs.built_features import build
from mmlora.workspace import Progress, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.features.columns import Column
    from mmlora.features.repo import FeatureRepo

logger = logging.getLogger(__name__)


def build_features(through: date, *, progress: Progress = silent) -> dict[str, Any]:
    """Compute the activity rows stamped up to ``through`` 00:00 UTC and apply the feature definitions."""
    workspace = open_workspace()
    report = build(workspace, through, progress, decide=True)
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
