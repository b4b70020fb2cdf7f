"""``mmlora promote`` and ``rollback``: who scores is decided in the warehouse; MLflow's aliases mirror it."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Mapping
from typing import Any, Literal

from mmlora.errors import CheckError, UsageError
from mmlora.judging.verdict import below_baseline
from mmlora.pipeline.workspace import Workspace, open_workspace
from mmlora.schema import Id

logger = logging.getLogger(__name__)

Alias = Literal["champion", "challenger"]
CHAMPION: Alias = "champion"
CHALLENGER: Alias = "challenger"
ACCEPTED = "accepted below its best baseline"


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
        domain: of this domain only.
        why: the reason, kept with the decision.
        accept_below_baseline: also a version that is below its best baseline.

    Raises:
        UsageError: no such version or domain.
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


def _promote(workspace: Workspace, model_version: str, target: Id | None, why: str) -> dict[str, Any]:
    bundle = workspace.bundles.load(model_version)
    with workspace.open_warehouse() as warehouse:
        before = warehouse.current(CHAMPION, target)
    metrics = {phase: values["wauc"] for phase, values in bundle.manifest.metrics.items()}
    decide(workspace, model_version, domain=target, alias=CHAMPION, why=why, metrics=metrics)
    if target is None:
        mirror(workspace, model_version, CHAMPION)
    return {
        "model_version": model_version,
        "domain": None if target is None else str(target),
        "before": before,
    }


def rollback(*, domain: str | None = None, why: str = "rolled back by hand") -> dict[str, Any]:
    """Make the champion before this one the champion again, by a new decision: the record keeps both.

    Raises:
        UsageError: there was no other champion before.
    """
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        decisions = warehouse.promotions(CHAMPION, target)
    versions = [decision.model_version for decision in decisions]
    earlier = next((version for version in versions if version != versions[0]), None)
    if earlier is None:
        raise UsageError(f"there is no earlier champion of {domain or 'all domains'} to go back to")
    return _promote(workspace, earlier, target, why)


def decide(
    workspace: Workspace,
    model_version: str,
    *,
    domain: Id | None,
    alias: Alias,
    why: str,
    metrics: Mapping[str, Any],
) -> None:
    """Append a decision to the warehouse."""
    with workspace.open_warehouse() as warehouse:
        warehouse.promote(domain, model_version, alias=alias, who=getpass.getuser(), why=why, metrics=metrics)


def mirror(workspace: Workspace, model_version: str, alias: Alias) -> None:
    """Repeat a decision for all domains in MLflow, which knows an alias, but not domains."""
    workspace.tracking.mirror_alias(model_version, alias, workspace.bundles.path(model_version))
