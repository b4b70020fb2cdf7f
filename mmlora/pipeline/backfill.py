"""``mmlora backfill``: find past nights that are missing, stale or failed, and score them.

A night's features and candidates are as of its own date. A model trained as of a later day was trained on the
labels of earlier nights, so its scores of those nights are no evidence of its quality.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TypedDict, Unpack

from mmlora.errors import CheckError, MmloraError, TransientError, UsageError
from mmlora.files import read_json, write_json
from mmlora.names import BackfillState, EngineName, KnownAsOf
from mmlora.nights.failures import describe
from mmlora.nights.load import ScoreOptions
from mmlora.nights.planning import BackfillRequest, PlannedNight, plan_nights
from mmlora.pipeline.compare import change_since
from mmlora.pipeline.outcomes import BackfillOutcome, LoadOutcome, NightOutcome
from mmlora.pipeline.score import score_and_publish
from mmlora.runs.champions import CHAMPION, warn_of_labels
from mmlora.runs.freshness import refuse_future
from mmlora.workspace import Progress, Workspace, open_workspace, silent

PLAN_FORMAT = 2


class EngineOptions(TypedDict, total=False):
    """Options of :func:`score` that choose the engine and do not change the scores."""

    engine: EngineName | None
    ray_address: str | None


def backfill(
    domains: str | Sequence[str] | None,
    start: date,
    end: date,
    *,
    state: BackfillState = "all",
    model: str = CHAMPION,
    known_as_of: KnownAsOf = "then",
    top_k: int | None = None,
    max_rows: int | None = None,
    jobs: int = 1,
    allow_stale: bool = False,
    override: Sequence[str] | None = None,
    reason: str | None = None,
    plan_only: bool = False,
    progress: Progress = silent,
    **options: Unpack[EngineOptions],
) -> BackfillOutcome:
    """Score and publish the nights of some domains from ``start`` to ``end``, both included.

    Nights already published by the model, with the same candidate policy and ``top_k``, are kept, so
    repeating a stopped backfill resumes it. Nights that can't be scored (a broken or absent domain, no data)
    are refused; neither these nor failed nights stop the others.

    Args:
        domains: a domain, several, or None for all.
        start: the first date.
        end: the last date.
        state: only nights that are ``missing``, ``stale`` or ``failed``; by default ``all`` of these. With
            ``late`` only those that late rows would change, each by the model that published it; it needs
            ``known_as_of="now"``. With ``stale`` and ``late``, the newest nights are scored first.
        model: ``champion``, ``champion-at-the-time`` (in force when the night began) or a version.
        known_as_of: ``then`` scores a night on what was known at its 00:00 UTC, with results identical to its
            first run; ``now`` includes late rows, which make the nights that they change stale.
        top_k: rows kept per user; 0 keeps all; the setting when None.
        max_rows: stop before the estimated rows exceed this.
        jobs: number of processes, over domains and dates.
        allow_stale: score dates that the data doesn't reach as well.
        override: checks that may fail, in every night; needs ``reason``.
        reason: why these checks are overridden, for the ledger.
        plan_only: return the plan and score nothing.
        progress: called after each night.
        options: ``engine``, ``ray_address``: see :func:`score`.

    Raises:
        UsageError: the dates are in the wrong order or in the future, a domain, model or check does not
            exist, only one of ``override`` and ``reason`` is given, or ``late`` is asked for with a model
            or without ``known_as_of="now"``.
        CheckError: the data doesn't reach the last date.
        ContractError: the model's features or files are missing.
    """
    workspace = open_workspace()
    names = [domains] if isinstance(domains, str) else domains or workspace.expected_domains()
    request = BackfillRequest(
        domains=tuple(map(str, names)),
        start=start,
        end=end,
        state=state,
        model=model,
        known_as_of=datetime.now(UTC) if known_as_of == "now" else None,
        top_k=workspace.settings.scoring.top_k if top_k is None else top_k,
        allow_stale=allow_stale,
        max_rows=max_rows,
        override=tuple(override or ()),
        reason=reason,
    )
    return _backfill(workspace, request, None, options, jobs, plan_only, progress)


def apply_plan(
    path: Path, *, jobs: int = 1, progress: Progress = silent, **options: Unpack[EngineOptions]
) -> BackfillOutcome:
    """Carry out a saved plan, and nothing else.

    Args:
        path: a file written by :func:`save_plan`.
        jobs: see :func:`backfill`.
        progress: see :func:`backfill`.
        options: see :func:`backfill`.

    Raises:
        UsageError: the file is not a plan, or the plan would be different now; the changes are named.
    """
    raw = read_json(path, "save the plan again") if path.is_file() else None
    if raw is None or raw.get("format") != PLAN_FORMAT:
        raise UsageError(
            f"{path} is not a saved plan: write one with mmlora backfill --plan --save-plan FILE"
        )
    saved = [PlannedNight.from_json(night) for night in raw["plan"]]
    request = BackfillRequest.from_json(raw["request"])
    return _backfill(open_workspace(), request, saved, options, jobs, False, progress)


def save_plan(outcome: BackfillOutcome, path: Path) -> None:
    """Write a plan to a file for :func:`apply_plan`."""
    plan = [night.to_json() for night in outcome.plan]
    write_json(path, {"format": PLAN_FORMAT, "request": outcome.request.to_json(), "plan": plan})


def _backfill(
    workspace: Workspace,
    request: BackfillRequest,
    saved: Sequence[PlannedNight] | None,
    options: EngineOptions,
    jobs: int,
    plan_only: bool,
    progress: Progress,
) -> BackfillOutcome:
    refuse_future(request.end)
    _refuse_beyond_data(workspace, request)
    with workspace.open_warehouse() as warehouse:
        nights = plan_nights(workspace, warehouse, request, progress)
        if saved is not None:
            _refuse_changed(saved, nights)
        if plan_only:
            return BackfillOutcome(request, nights)
        _warn_of_labels(workspace, nights)
        if jobs == 1:  # the warehouse stays open from one night to the next
            return BackfillOutcome(request, nights, _run(workspace, request, nights, options, jobs, progress))
    return BackfillOutcome(request, nights, _run(workspace, request, nights, options, jobs, progress))


def _refuse_beyond_data(workspace: Workspace, request: BackfillRequest) -> None:
    last = workspace.store.days()[-1] + timedelta(days=workspace.settings.scoring.max_days_ahead)
    if request.end > last and not request.allow_stale:
        raise CheckError(
            f"the freshness of the data for {request.end}",
            [f"{last} is the last date to score: give an earlier --end, or --allow-stale"],
        )


def _refuse_changed(saved: Sequence[PlannedNight], now: Sequence[PlannedNight]) -> None:
    """Reject a saved plan that differs from a plan made now."""
    before, after = ({(n.domain_id, n.score_date): _decision(n) for n in nights} for nights in (saved, now))
    changed = [
        f"{domain} {day}: was {before.get((domain, day), 'not in the plan')}, "
        f"is {after.get((domain, day), 'not in the plan')} now"
        for domain, day in sorted(before.keys() | after.keys())
        if before.get((domain, day)) != after.get((domain, day))
    ]
    if changed:
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise UsageError(f"the plan no longer holds: {'; '.join(changed[:5])}{more}: plan again")


def _decision(night: PlannedNight) -> str:
    """Return a plan's decision on a night as text, without the estimates, which may change."""
    parts = [night.state, night.action, night.model_version and f"by {night.model_version}"]
    return " ".join(filter(None, [*parts, night.reason and f"({night.reason})"]))


def _warn_of_labels(workspace: Workspace, nights: Sequence[PlannedNight]) -> None:
    to_score = [night for night in nights if night.action == "score"]
    for version in {night.model_version for night in to_score if night.model_version}:
        seen = workspace.bundles.load(version).manifest.as_of
        if any(night.score_date < seen for night in to_score if night.model_version == version):
            warn_of_labels(str(workspace.home), version, seen)


def _run(
    workspace: Workspace,
    request: BackfillRequest,
    nights: Sequence[PlannedNight],
    options: EngineOptions,
    jobs: int,
    progress: Progress,
) -> NightOutcome:
    begun, to_do = time.monotonic(), [night for night in nights if night.action != "keep"]
    outcomes: dict[int, Sequence[LoadOutcome]] = {}
    progress("backfill", 0, len(to_do))
    if jobs == 1:
        for number, night in enumerate(to_do):
            outcomes[number] = _score_night(night, request, options, workspace)
            progress("backfill", number + 1, len(to_do))
    else:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            futures = {pool.submit(_score_night, night, request, options): n for n, night in enumerate(to_do)}
            for done, future in enumerate(as_completed(futures), 1):
                number = futures[future]
                try:
                    outcomes[number] = future.result()
                except BrokenProcessPool:
                    reason = (
                        "a scoring process died (out of memory?): run the backfill again, with fewer --jobs"
                    )
                    outcomes[number] = [_failed(to_do[number], reason, TransientError.exit_code)]
                progress("backfill", done, len(to_do))
    loads = [load for number in sorted(outcomes) for load in outcomes[number]]
    return NightOutcome(tuple(loads), (), time.monotonic() - begun)


def _score_night(
    night: PlannedNight,
    request: BackfillRequest,
    options: EngineOptions,
    workspace: Workspace | None = None,
) -> Sequence[LoadOutcome]:
    """Score and publish one night; errors become its outcome."""
    reason, code = night.reason, 1
    if night.action == "score":
        chosen: ScoreOptions = {
            "engine": options.get("engine"),
            "ray_address": options.get("ray_address"),
            "top_k": request.top_k,
            "model_version": night.model_version,
            "known_as_of": request.known_as_of,
            "allow_stale": request.allow_stale,
            "override": request.override,
            "reason": request.reason,
            "workspace": workspace,
        }
        try:
            loads = score_and_publish(night.score_date, domain=night.domain_id, **chosen).loads
            return [_compared(workspace or open_workspace(), load, night.load_id) for load in loads]
        except MmloraError as error:
            reason, code = describe(error), error.exit_code
    return [_failed(night, reason, code)]


def _compared(workspace: Workspace, load: LoadOutcome, replaced: str | None) -> LoadOutcome:
    """Add to a restated night's outcome how far its scores moved."""
    if replaced is None or load.load_id is None or load.state != "published":
        return load
    rows = change_since(workspace, replaced, load.load_id)
    if rows is None:
        return load
    return replace(load, top_10_changed=rows.top_10_changed, mean_score_change=rows.mean_score_change)


def _failed(night: PlannedNight, reason: str, code: int) -> LoadOutcome:
    return LoadOutcome(
        domain_id=night.domain_id,
        score_date=night.score_date,
        state="failed",
        exit_code=code,
        reason=reason,
        model_version=night.model_version,
    )
