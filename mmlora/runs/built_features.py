"""Build missing features up to the date that a run or a night needs."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import date
from typing import Any

from mmlora.runs.freshness import refuse_future
from mmlora.workspace import Progress, Workspace, silent

logger = logging.getLogger(__name__)


def ensure_features(workspace: Workspace, through: date, *, progress: Progress = silent) -> dict[str, Any]:
    """Build missing features up to ``through``; apply the definitions if everything was rebuilt."""
    report = build(workspace, through, progress)
    workspace.feature_repo.refresh()
    if report["since"] is None or not workspace.feature_repo.applied:
        workspace.feature_repo.apply()
    return report


def ensure_profiles(workspace: Workspace) -> None:
    """Apply the definitions unless they were applied, and refresh the derived profile features."""
    if workspace.feature_repo.applied:
        workspace.feature_repo.refresh()
    else:
        workspace.feature_repo.apply()


def build(workspace: Workspace, through: date, progress: Progress, *, decide: bool = False) -> dict[str, Any]:
    """Build the views up to ``through``; ``decide`` adds features for new columns of the profiles."""
    from mmlora.features.build import build as build_views

    refuse_future(through)
    workspace.store.require_import()  # before anything is written
    settings = workspace.settings.features
    report = build_views(
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
