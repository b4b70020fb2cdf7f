"""``mmlora promote`` and ``rollback``: who scores is decided in the warehouse; MLflow's aliases mirror it."""

from __future__ import annotations

import getpass
import logging
from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from mmlora.errors import CheckError, ContractError, UsageError
from mmlora.judging.verdict import below_baseline
from mmlora.pipeline.workspace import Workspace, open_workspace
from mmlora.schema import Id

if TYPE_CHECKING:
    from mmlora.registry.bundle import Bundle
    from mmlora.warehouse.decisions import Promotion
    from mmlora.warehouse.warehouse import Warehouse

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


def _promote(
    workspace: Workspace, model_version: str, target: Id | None, why: str, goes_back_to: int | None = None
) -> dict[str, Any]:
    bundle = workspace.bundles.load(model_version)
    with workspace.open_warehouse() as warehouse:
        before = warehouse.current(CHAMPION, target)
    metrics = {phase: values["wauc"] for phase, values in bundle.manifest.metrics.items()}
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
    """Make the champion before this one the champion again, by a new decision: the record keeps both.

    Again and again, it goes back a champion each time.

    Raises:
        UsageError: there was no other champion before.
    """
    workspace = open_workspace()
    target = None if domain is None else workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        decisions = warehouse.promotions(CHAMPION, target)
    earlier = _before(decisions)
    if earlier is None:
        raise UsageError(f"there is no earlier champion of {domain or 'all domains'} to go back to")
    return _promote(workspace, earlier.model_version, target, why, _in_force(earlier))


def _before(decisions: Sequence[Promotion]) -> Promotion | None:
    """Return the newest decision for another version from before the one in force; newest first."""
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
    """Return the decision that one puts in force: itself, or the one that a rollback goes back to."""
    return decision.id if decision.goes_back_to is None else decision.goes_back_to


def bundle_of(workspace: Workspace, warehouse: Warehouse, domain: Id, wanted: str | None) -> Bundle:
    """Open the model version that is wanted, else the domain's champion.

    Raises:
        UsageError: there is no such version, or no champion.
        ContractError: the champion's files are gone.
    """
    version = wanted or warehouse.current(CHAMPION, domain)
    if version is None:
        raise UsageError("there is no champion yet: train a model first (mmlora train --help)")
    if wanted is None and not workspace.bundles.exists(version):
        raise ContractError(
            f"the champion of domain {domain!r} is {version}, which isn't in {workspace.bundles.root}: "
            f"restore it, or make another the champion (mmlora rollback --domain {domain})",
            expected=version,
        )
    return workspace.bundles.load(version)


@lru_cache(maxsize=1024)
def warn_of_labels(home: str, version: str, as_of: date) -> None:
    """Say that a model has seen the labels of the nights that it scores: once a model."""
    logger.warning(
        "model %s was trained on what was known at %s, so it has seen the labels of the nights before that "
        "date: its scores of them say nothing of its quality",
        *(version, as_of),
    )


def decide(
    workspace: Workspace,
    model_version: str,
    *,
    domain: Id | None,
    alias: Alias,
    why: str,
    metrics: Mapping[str, Any],
    goes_back_to: int | None = None,
) -> None:
    """Append a decision to the warehouse."""
    with workspace.open_warehouse() as warehouse:
        warehouse.promote(
            domain,
            model_version,
            alias=alias,
            who=getpass.getuser(),
            why=why,
            metrics=metrics,
            goes_back_to=goes_back_to,
        )


def mirror(workspace: Workspace, model_version: str, alias: Alias) -> None:
    """Repeat a decision for all domains in MLflow, which knows an alias, but not domains."""
    workspace.tracking.mirror_alias(model_version, alias, workspace.bundles.path(model_version))
