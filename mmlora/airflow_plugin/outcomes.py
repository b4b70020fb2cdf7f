"""What tasks make of the outcome of a command: an XCom and a log, an Asset's event, or a failure.

A failed task says why and which command tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from airflow.sdk import Asset, get_current_context

from mmlora.airflow_plugin.tasks import DOMAIN_SCORES, SCORES_PUBLISHED, in_workspace, module, run_date

logger = logging.getLogger(__name__)


def settle(outcome: Mapping[str, Any], score_options: Mapping[str, Any]) -> tuple[str, str]:
    """Return a domain and its published load, or raise why it isn't published.

    The first try only looks at what the domain's batch reported, without a heavy import. A later one, because
    the task was cleared or is retried, scores the domain again if its batch didn't publish it.

    Args:
        outcome: a :class:`~mmlora.pipeline.outcomes.LoadOutcome` as JSON.
        score_options: options of ``score``.

    Raises:
        TransientError: a retry may publish it.
        CheckError: it failed otherwise.
    """
    from mmlora.errors import CheckError, TransientError

    if outcome["state"] != "published" and get_current_context()["ti"].try_number > 1:
        score_and_publish = module("pipeline.score").score_and_publish
        with in_workspace():
            (load,) = score_and_publish(run_date(), domains=[outcome["domain_id"]], **score_options).loads
        outcome = load.to_json()
    if outcome["state"] == "published":
        return outcome["domain_id"], outcome["load_id"]
    night = f"domain {outcome['domain_id']!r}, {outcome['score_date']}"
    again = f"to try again, clear this task or run: mmlora score --date {outcome['score_date']}"
    if outcome["exit_code"] == TransientError.exit_code:
        raise TransientError(f"{night}: {outcome['reason']}")
    raise CheckError(night, [str(outcome["reason"]), f"{again} --domain {outcome['domain_id']}"])


def announce_loads(outlet_events: Any, loads: Mapping[str, str]) -> None:
    """Emit the Assets of published loads: one for all, and one per domain.

    Args:
        outlet_events: the events of the running task.
        loads: the load of each domain.
    """
    on = run_date().isoformat()
    outlet_events[SCORES_PUBLISHED].extra = {"date": on, "loads": dict(loads)}
    for domain, load in loads.items():
        outlet_events[DOMAIN_SCORES].add(Asset(f"mmlora_scores_{domain}"), extra={"date": on, "load": load})


def report_backfill(outcome: Any) -> dict[str, Any]:
    """Log a backfill's plan and outcome, and return them as JSON.

    Args:
        outcome: a :class:`~mmlora.pipeline.outcomes.BackfillOutcome`.

    Raises:
        TransientError: some nights failed, and a retry may publish them.
        CheckError: some nights failed otherwise.
    """
    for night in outcome.plan:
        logger.info(
            "%s, %s: %s (%s)", night.domain_id, night.score_date, night.action, night.reason or "current"
        )
    failed = [load for load in outcome.loads if load.state != "published"]
    reasons = [f"{load.domain_id}, {load.score_date}: {load.reason}" for load in failed]
    _raise_failures("the backfill", reasons, {load.exit_code for load in failed})
    result: dict[str, Any] = outcome.to_json()
    return result


def restate_late(late_days: int = 0, max_rows: int | None = None) -> dict[str, Any]:
    """Score the past days' nights again that late rows would change, each by the model that published it.

    Args:
        late_days: the number of days before the run's date; 0 restates nothing.
        max_rows: stop before the estimated rows exceed this.

    Raises:
        TransientError, CheckError: see :func:`report_backfill`.
    """
    if not late_days:
        return {"plan": []}
    run = module("pipeline.backfill").backfill
    first = run_date() - timedelta(days=late_days)
    return report_backfill(
        run(None, first, run_date(), state="late", known_as_of="now", max_rows=max_rows, allow_stale=True)
    )


def shared(outcome: Iterable[Any]) -> dict[str, str]:
    """Return what each domain's scores depend on after its experts were chosen.

    Args:
        outcome: a :class:`~mmlora.pipeline.share.SharedDomain` per domain.

    Raises:
        TransientError: some domains failed, and a retry may decide them.
        CheckError: some domains failed otherwise.
    """
    domains = list(outcome)
    failed = [domain for domain in domains if domain.exit_code]
    reasons = [f"{domain.domain_id}: {domain.reason}" for domain in failed]
    _raise_failures("sharing experts", reasons, {domain.exit_code for domain in failed})
    return {domain.domain_id: domain.policy for domain in domains}


def _raise_failures(what: str, reasons: Sequence[str], exit_codes: Collection[int]) -> None:
    """Raise if there are failures: ``TransientError`` if a retry may help one, else ``CheckError``."""
    from mmlora.errors import CheckError, TransientError

    if TransientError.exit_code in exit_codes:
        raise TransientError("; ".join(reasons))
    if reasons:
        raise CheckError(what, reasons)


def evaluate_published(start: date | None = None) -> dict[str, Any]:
    """Evaluate the nights published from a date on, if there are any; see :func:`evaluated`."""
    with module("workspace").open_workspace().open_warehouse() as warehouse:
        if not warehouse.publications(start=start):
            return {"nights": 0, "unlabelled": 0}
    return evaluated(module("pipeline.evaluate").evaluate(start=start))


def evaluated(evaluation: Any) -> dict[str, Any]:
    """Return an evaluation as JSON, or raise ``CheckError`` with the figures beyond the limits."""
    from mmlora.errors import CheckError

    if evaluation.faults:
        raise CheckError("the quality of published nights", evaluation.faults)
    return {"nights": len(evaluation.nights), "unlabelled": evaluation.unlabelled}


def verified(verification: Any) -> dict[str, int]:
    """Return how much was verified; raise ``CheckError`` with each fault and the command that repairs it."""
    from mmlora.errors import CheckError

    if verification.faults:
        raise CheckError("verify", [f"{row.fault}; to repair it: {row.mend}" for row in verification.faults])
    return {"checked": len(verification.checked), "models": verification.models, "parts": verification.parts}
