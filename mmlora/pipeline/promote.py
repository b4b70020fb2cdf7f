"""``mmlora promote`` and ``rollback``: choose the champion in the warehouse, mirrored by MLflow's aliases."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmlora.errors import CheckError, UsageError
from mmlora.judgement import below_baseline
from mmlora.runs.champions import ACCEPTED, CHAMPION, decide, mirror
from mmlora.schema import Id
from mmlora.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from mmlora.warehouse.decisions import Promotion

logger = logging.getLogger(__name__)


def promote(
    model_version: str,
    *,
    domain: str | None = None,
    why: str = "promoted by hand",
    accept_below_baseline: bool = False,
) -> dict[str, Any]:
    """Make a model version the champion of all domains, or of one.

    Args:
        model_version: the version.
        domain: this domain only.
        why: the reason, stored with the decision.
        accept_below_baseline: accept a version that is below its best baseline.

    Raises:
        UsageError: the version or domain does not exist.
        CheckError: the version is below its best baseline over all domains.
    """
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    below = below_baseline(workspace.bundles.load(model_version).manifest.judgement)
    if below is not None and not accept_below_baseline:
        raise CheckError(
            f"the comparison of {model_version} with its baselines",
            [below, "train a better one, or promote it all the same with --accept-below-baseline"],
        )
    return _promote(workspace, model_version, target, f"{why} ({ACCEPTED})" if below else why)


def _promote(
    workspace: Workspace, model_version: str, target: Id | None, why: str, goes_back_to: int | None = None
) -> dict[str, Any]:
    bundle = workspace.bundles.load(model_version)
    metrics = {phase: values["wauc"] for phase, values in bundle.manifest.metrics.items()}
    with workspace.open_warehouse() as warehouse:
        before = warehouse.current(CHAMPION, target)
        decide(
            workspace,
            model_version,
            domain=target,
            alias=CHAMPION,
            why=why,
            metrics=metrics,
            goes_back_to=goes_back_to,
        )
    if target is None:
        mirror(workspace, model_version, CHAMPION)
    return {
        "model_version": model_version,
        "domain": None if target is None else str(target),
        "before": before,
    }


def rollback(*, domain: str | None = None, why: str = "rolled back by hand") -> dict[str, Any]:
    """Make the previous champion the champion again, by a new decision.

    Each repeated call goes back one more champion.

    Raises:
        UsageError: there is no earlier champion.
    """
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        earlier = champion_before(warehouse.promotions(CHAMPION, target))
        if earlier is None:
            raise UsageError(f"there is no earlier champion of {domain or 'all domains'} to go back to")
        return _promote(workspace, earlier.model_version, target, why, _in_force(earlier))


def champion_before(decisions: Sequence[Promotion]) -> Promotion | None:
    """Return the newest decision for another version before the one in force, or None."""
    if not decisions:
        return None
    now = decisions[0]
    return next(
        (
            decision
            for decision in decisions
            if decision.id < _in_force(now) and decision.model_version != now.model_version
        ),
        None,
    )


def _in_force(decision: Promotion) -> int:
    """Return the id of the decision in force: the decision itself, or the one a rollback goes back to."""
    return decision.id if decision.goes_back_to is None else decision.goes_back_to
