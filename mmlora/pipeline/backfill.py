"""``mmlora backfill``: a domain's past dates, in order: features and candidates as of each night, one model.

The model is the present champion unless another is named; one trained as of a later day has seen the labels
of the nights before it, so its scores of those nights are no measure of its quality.
"""

from __future__ import annotations

import time
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from mmlora.errors import UsageError
from mmlora.names import EngineName
from mmlora.pipeline.candidates import recorded_policy
from mmlora.pipeline.promotion import CHAMPION
from mmlora.pipeline.publishing import score_and_publish
from mmlora.pipeline.workspace import Progress, Workspace, open_workspace, silent
from mmlora.schema import Id

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
    plan_only: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score and publish a domain's dates from ``start`` to ``end``, both included.

    A date that this model has published already, on candidates of the same policy, is left alone, so a
    stopped backfill goes on where it was. A date that fails doesn't stop the later ones.

    Returns:
        ``plan`` (date, action, model version, reason), and unless ``plan_only`` what ``score_and_publish``
        returns.

    Raises:
        UsageError: the dates are the wrong way round, or there is no such domain or model.
    """
    if start > end:
        raise UsageError(f"--start {start} is after --end {end}: give the earlier date first")
    workspace = open_workspace()
    target = workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        version = model_version or warehouse.current(CHAMPION, target)
        published = {
            found.score_date: warehouse.load(found.load_id)
            for found in warehouse.publications(domain=target, start=start, end=end)
        }
    if version is None:
        raise UsageError("there is no champion yet: train a model first (mmlora train --help)")
    workspace.bundles.load(version)
    days = [start + timedelta(days=n) for n in range((end - start).days + 1)]
    why = {day: _why(workspace, published.get(day), target, day, version) for day in days}
    plan = [
        {
            "score_date": day.isoformat(),
            "action": "score" if why[day] else "keep",
            "model_version": version,
            "reason": why[day],
        }
        for day in days
    ]
    if plan_only:
        return {"plan": plan}
    begun, loads = time.monotonic(), []
    to_score = [day for day in days if why[day]]
    for number, day in enumerate(to_score):
        progress(f"backfill {domain}", number, len(to_score))
        result = score_and_publish(
            day, domain=domain, top_k=top_k, model_version=version, engine=engine, ray_address=ray_address
        )
        loads += result["loads"]
    progress(f"backfill {domain}", len(to_score), len(to_score))
    pairs = sum(row["pairs"] or 0 for row in loads if row["state"] == "published")
    return {"plan": plan, "loads": loads, "skipped": [], "pairs": pairs, "seconds": time.monotonic() - begun}


def _why(workspace: Workspace, load: Load | None, domain: Id, day: date, version: str) -> str:
    """Say why a date is to be scored; nothing where what is published is current."""
    from mmlora.candidates.policy import differences

    if load is None:
        return "not published"
    if load.model_version != version:
        return f"published by {load.model_version}"
    kept = (load.checks or {}).get("candidates")
    return "; ".join(differences(kept and kept["policy"], recorded_policy(workspace, domain, day)))
