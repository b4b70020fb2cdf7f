"""What the DAGs share: their schedule, which failures are retried, the run's date and options.

Airflow parses the DAG files, and so this one, again and again, so it may import only the task SDK.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any

from airflow.sdk import (
    Asset,
    AssetAlias,
    CronTriggerTimetable,
    ExceptionRetryPolicy,
    RetryAction,
    RetryRule,
    get_current_context,
    task,
)

from mmlora.airflow_plugin.alerts import nightly_deadline, run_failed

SCORES_PUBLISHED = Asset("mmlora_scores_published")
"""Emitted at the end of a run that published anything, with ``date`` and ``loads`` (load by domain)."""

DOMAIN_SCORES = AssetAlias("mmlora_domain_scores")
"""Stands for one Asset per published domain, ``mmlora_scores_<domain>``, with ``date`` and ``load``."""

_RETRIES = {
    "retries": 3,
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 3.0,
    "max_retry_delay": timedelta(minutes=15),
    # A data, check or contract error would be the same at every retry. A killed worker raises no
    # exception, so this policy isn't consulted and Airflow retries by itself.
    "retry_policy": ExceptionRetryPolicy(
        rules=[RetryRule("mmlora.errors.TransientError", RetryAction.RETRY, reason="transient error: retry")],
        default=RetryAction.FAIL,
    ),
}


def daily(hour: int, *, deadline: bool = False) -> dict[str, Any]:
    """Return a DAG's settings for a run each day at ``hour`` UTC (0 to 23), never two at once.

    With ``deadline`` the settings' ``[alerts]`` say how long it may take before somebody is told.
    """
    return _scheduled(f"0 {hour} * * *") | {"deadline": nightly_deadline() if deadline else []}


def on_training_schedule() -> dict[str, Any]:
    """Return a DAG's settings for runs when ``[training] schedule`` says, never two at once.

    Raises:
        UsageError: a setting is not valid; Airflow shows it as the DAG's import error.
    """
    from mmlora.schedules import cron_of
    from mmlora.settings import load_settings

    return _scheduled(cron_of(load_settings().training.schedule))


def on_demand(runs: int) -> dict[str, Any]:
    """Return a DAG's settings for runs that people or other DAGs trigger, ``runs`` of them at a time."""
    return _scheduled(None) | {"max_active_runs": runs}


def _scheduled(cron: str | None) -> dict[str, Any]:
    """Return what the DAGs have in common; without a cron expression, runs are triggered."""
    # A DAG switched on at noon waits for its hour; by default it might run at once for the hour that has
    # passed.
    wait = timedelta(minutes=10)
    return {
        "schedule": None
        if cron is None
        else CronTriggerTimetable(cron, timezone="UTC", run_immediately=wait),
        "catchup": False,
        "max_active_runs": 1,
        "default_args": {**_RETRIES, **_limits()},
        "on_failure_callback": run_failed,
        "tags": ["mmlora"],
    }


def _limits() -> dict[str, Any]:
    """Return owner, pool and timeout of each task, by the settings ``[airflow]``."""
    from mmlora.settings import load_settings

    settings = load_settings().airflow
    hours = settings.task_timeout_hours
    timeout = timedelta(hours=hours) if hours else None
    return {"owner": "mmlora", "pool": settings.pool, "execution_timeout": timeout}


def module(name: str) -> ModuleType:
    """Import ``mmlora.<name>``, which is heavy, when a task runs."""
    _mask_secrets()
    _be_parent_of_lineage()
    return import_module(f"mmlora.{name}")


def in_workspace() -> AbstractContextManager[None]:
    """Return a block whose work is in the workspace: if shared, pulled before and pushed after it."""
    shared: AbstractContextManager[None] = module("workspace").shared_workspace()
    return shared


def workspace_task(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return Airflow's ``@task(**options)`` for a function that works in the workspace."""

    def decorate(function: Callable[..., Any]) -> Any:
        @wraps(function)
        def run(*arguments: Any, **named: Any) -> Any:
            with in_workspace():
                return function(*arguments, **named)

        return task(**options)(run)

    return decorate


def _mask_secrets() -> None:
    """Make Airflow hide the passwords of the settings' URLs in the task's log, whoever writes them there."""
    from airflow.sdk.log import mask_secret

    from mmlora.redaction import secrets
    from mmlora.settings import load_settings

    load_settings()
    for secret in secrets():
        mask_secret(secret)


def _be_parent_of_lineage() -> None:
    """Name the running task as the parent of the events that mmlora emits, and Airflow's receiver as theirs.

    It does so if Airflow's provider of OpenLineage is installed and on.
    """
    try:
        from airflow.providers.openlineage import conf
    except ModuleNotFoundError:
        return
    if conf.is_disabled():
        return
    from airflow.providers.openlineage.plugins import macros

    instance = get_current_context()["ti"]
    os.environ["OPENLINEAGE_PARENT_ID"] = macros.lineage_parent_id(instance)
    os.environ["OPENLINEAGE_ROOT_PARENT_ID"] = macros.lineage_root_parent_id(instance)
    if transport := conf.transport():
        os.environ.setdefault("OPENLINEAGE__TRANSPORT", json.dumps(transport))
    if path := conf.config_path():
        os.environ.setdefault("OPENLINEAGE_CONFIG", path)


def step(name: str, verb: str, doc: str, *params: str) -> Any:
    """Return a task named after a function of ``mmlora.<name>`` that takes a run's id and these Params."""

    def of_run(run: str) -> Any:
        return getattr(module(name), verb)(run, **options(*params))

    return workspace_task(task_id=verb, doc_md=doc)(of_run)


def run_date() -> date:
    """Return the running task's date: the run's Param, or else the end of its data interval, in UTC."""
    context = get_current_context()
    given = context["params"].get("date")
    if given:
        from mmlora.dates import parse_date

        return parse_date(given)
    # A run triggered without a logical date has no data interval.
    moment: datetime = context.get("data_interval_end") or context["dag_run"].run_after
    return moment.astimezone(UTC).date()


def options(*names: str) -> dict[str, Any]:
    """Return the run's Params that were filled in, as keyword arguments."""
    params = get_current_context()["params"]
    return {name: params[name] for name in names if params[name] is not None}


def chosen(domains: Sequence[str], wanted: Collection[str] | None) -> list[str]:
    """Return the domains named in the form, or all if it names none.

    Raises:
        UsageError: a named domain isn't one of ``domains``.
    """
    from mmlora.errors import UsageError

    unknown = sorted(set(wanted or ()).difference(domains))
    if unknown:
        valid = ", ".join(domains) or "none"
        raise UsageError(f"there is no domain {', '.join(map(repr, unknown))} to score; valid are {valid}")
    return [domain for domain in domains if not wanted or domain in wanted]


def period(*names: str) -> dict[str, date]:
    """Return the run's Params that are dates and were filled in, as keyword arguments."""
    from mmlora.dates import parse_date

    return {name: parse_date(text) for name, text in options(*names).items()}
