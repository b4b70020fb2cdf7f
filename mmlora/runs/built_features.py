"""Features up to the date that a run or a night needs: what is missing is built."""

from __future__ import annotations

import logging
from datetime import date
from typing import TYPE_CHECKING

from mmlora.runs.freshness import refuse_future
from mmlora.workspace import Progress, Workspace, silent

if TYPE_CHECKING:
    from mmlora.features.build import BuildReport

logger = logging.getLogger(__name__)


def ensure_features(workspace: Workspace, through: date, *, progress: Progress = silent) -> BuildReport:
    """Build what is missing up to ``through``; the definitions are applied only when all was built anew."""
    report = build(workspace, through, progress)
    workspace.feature_repo.refresh()
    if report.since is None or not workspace.feature_repo.applied:
        workspace.feature_repo.apply()
    return report


def ensure_profiles(workspace: Workspace) -> None:
    """Apply the definitions where they never were, and refresh what is computed from the profiles."""
    if workspace.feature_repo.applied:
        workspace.feature_repo.refresh()
    else:
        workspace.feature_repo.apply()


def build(workspace: Workspace, through: date, progress: Progress, *, decide: bool = False) -> BuildReport:
    """Build the views up to ``through``; ``decide`` lets new columns of the profiles become features."""
    from mmlora.features.build import build as build_views

    refuse_future(through)
    workspace.store.require_import()  # before anything is made
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
    return report
