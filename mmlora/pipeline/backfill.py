"""``mmlora backfill``: a domain's past dates, in order: features and candidates as of each night, one model.

The model is the present champion unless another is named; one trained as of a later day has seen the labels
of the nights before it, so its scores of those nights are no measure of its quality.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from mmlora.errors import CheckError, MmloraError, UsageError
from mmlora.names import EngineName
from mmlora.nights.candidates import recorded_policy
from mmlora.nights.failures import describe
from mmlora.nights.load import ScoreOptions, left_out
from mmlora.pipeline.outcomes import Action, BackfillOutcome, LoadOutcome, NightOutcome, PlannedDate
from mmlora.pipeline.score import score_and_publish
from mmlora.runs.champions import bundle_of, warn_of_labels
from mmlora.runs.contract import check_contract
from mmlora.runs.freshness import refuse_future, stale_reason
from mmlora.schema import Id
from mmlora.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    from mmlora.warehouse.loads import Load


def backfill(
    domain: str,
    start: date,
    end: date,
    *,
    top_k: int | None = None,
    model_version: str | None = None,
    engine: EngineName | None = None,
    ray_address: str | None = None,
    allow_stale: bool = False,
    plan_only: bool = False,
    progress: Progress = silent,
) -> BackfillOutcome:
    """Score and publish a domain's dates from ``start`` to ``end``, both included.

    A date that this model has published already, on candidates of the same policy and with the same
    ``top_k``, is left alone, so a stopped backfill goes on where it was. One that can't be scored (a broken
    or absent domain, stale data) is refused; like one that fails, it stops no later one.

    Raises:
        UsageError: the dates are the wrong way round or in the future, or there is no such domain or model.
        CheckError: the data doesn't reach the last date.
        ContractError: the model's features or files are gone.
    """
    if start > end:
        raise UsageError(f"--start {start} is after --end {end}: give the earlier date first")
    refuse_future(end)
    workspace = open_workspace()
    target, top_k = workspace.domain(domain), workspace.settings.scoring.top_k if top_k is None else top_k
    _refuse_beyond_data(workspace, end, allow_stale)
    with workspace.open_warehouse() as warehouse:
        bundle = bundle_of(workspace, warehouse, target, model_version)
        published = {load.score_date: load for load in warehouse.loads(domain=target, states=("published",))}
        if workspace.feature_repo.applied:
            check_contract(workspace, bundle)
        version = bundle.manifest.model_version
        if start < bundle.manifest.as_of:
            warn_of_labels(str(workspace.home), version, bundle.manifest.as_of)
        days = [start + timedelta(days=n) for n in range((end - start).days + 1)]
        plan: list[PlannedDate] = []
        for number, day in enumerate(days):
            progress(f"plan {domain}", number, len(days))
            why = _why(workspace, published.get(day), target, day, version, top_k)
            refused = _why_not(workspace, target, day, allow_stale) if why else None
            action: Action = "refuse" if refused else "score" if why else "keep"
            plan.append(PlannedDate(day, action, refused or why, version))
        progress(f"plan {domain}", len(days), len(days))
        if plan_only:
            return BackfillOutcome(tuple(plan))
        options: ScoreOptions = {
            "workspace": workspace,
            "top_k": top_k,
            "model_version": version,
            "engine": engine,
            "ray_address": ray_address,
            "allow_stale": allow_stale,
        }
        return BackfillOutcome(tuple(plan), _run(domain, plan, options, progress))


def _refuse_beyond_data(workspace: Workspace, end: date, allow_stale: bool) -> None:
    last = workspace.store.days()[-1] + timedelta(days=workspace.settings.scoring.max_days_ahead)
    if end > last and not allow_stale:
        raise CheckError(
            f"the freshness of the data for {end}",
            [f"{last} is the last date to score: give an earlier --end, or --allow-stale"],
        )


def _why(workspace: Workspace, load: Load | None, domain: Id, day: date, version: str, top_k: int) -> str:
    """Say why a date is to be scored; nothing where what is published is current."""
    from mmlora.candidates.policy import differences

    if load is None:
        return "not published"
    if load.model_version != version:
        return f"published by {load.model_version}"
    facts = load.checks or {}
    if (kept := facts.get("top_k", top_k)) != top_k:  # loads of before it was kept count as of any
        return f"published with top_k {kept}"
    policy = facts.get("candidates")
    return "; ".join(differences(policy and policy["policy"], recorded_policy(workspace, domain, day)))


def _why_not(workspace: Workspace, domain: Id, day: date, allow_stale: bool) -> str | None:
    """Say why a date can't be scored; None when it can."""
    if not allow_stale and (stale := stale_reason(workspace, day)):
        return stale
    return left_out(workspace, day, allow_stale=allow_stale).get(domain)


def _run(domain: str, plan: Sequence[PlannedDate], options: ScoreOptions, progress: Progress) -> NightOutcome:
    begun, loads = time.monotonic(), list[LoadOutcome]()
    to_do = [planned for planned in plan if planned.action != "keep"]
    for number, planned in enumerate(to_do):
        progress(f"backfill {domain}", number, len(to_do))
        loads += _one_date(domain, planned, options)
    progress(f"backfill {domain}", len(to_do), len(to_do))
    return NightOutcome(tuple(loads), (), time.monotonic() - begun)


def _one_date(domain: str, planned: PlannedDate, options: ScoreOptions) -> Sequence[LoadOutcome]:
    """Score and publish one date; whatever is wrong with it is its outcome."""
    reason, code = planned.reason, 1
    if planned.action == "score":
        try:
            return score_and_publish(planned.score_date, domain=domain, **options).loads
        except MmloraError as error:
            reason, code = describe(error), error.exit_code
    return [
        LoadOutcome(
            domain_id=domain,
            score_date=planned.score_date,
            state="failed",
            exit_code=code,
            reason=reason,
            model_version=planned.model_version,
        )
    ]
