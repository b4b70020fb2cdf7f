"""Alerts of failed and late runs, by email, by a webhook or both (the settings ``[alerts]``).

An alert names the run and its date. Of a night or a backfill it also names the domains and dates whose scores
aren't published and why, their loads, and the command that scores them again.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from html import escape
from typing import Any

from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

logger = logging.getLogger(__name__)

Alert = dict[str, Any]
"""What the webhook gets: ``text``, ``event``, ``dag_id``, ``run_id``, ``date`` (null for a backfill, which
has ``start`` and ``end``); the ``domains`` of a night or the ``nights`` of a backfill that aren't published,
unless that can't be read; and the ``command``, unless all are published."""

NIGHTLY, BACKFILL = "nightly_scoring", "backfill"
_SECONDS = 10
"""How long the webhook may take to answer."""


def nightly_deadline() -> list[DeadlineAlert]:
    """Return the deadline of a nightly run, by the settings; none if they have none."""
    from mmlora.settings import load_settings

    minutes = load_settings().alerts.deadline_minutes
    if not minutes:
        return []
    return [
        DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(minutes=minutes),
            callback=SyncCallback(run_is_late, kwargs={"minutes": minutes}),
        )
    ]


def run_failed(context: Mapping[str, Any]) -> None:
    """Send the alert of a failed run: the ``on_failure_callback`` of every DAG."""
    run = context.get("dag_run")
    of_run = {name: getattr(run, name, None) for name in ("conf", "data_interval_end", "run_after")}
    run_id = str(context.get("run_id") or getattr(run, "run_id", "unknown"))
    send(alert("failed", context["dag"].dag_id, run_id, _date_of(of_run), of_run["conf"]))


def run_is_late(context: Mapping[str, Any], minutes: int) -> None:
    """Send the alert of a run that isn't done by its deadline."""
    run = context["dag_run"]
    send(
        alert(
            f"is not done after {minutes} minutes",
            run["dag_id"],
            run["dag_run_id"],
            _date_of(run),
            run["conf"],
        )
    )


def alert(
    event: str, dag_id: str, run_id: str, on: date | None, form: Mapping[str, Any] | None = None
) -> Alert:
    """Return what to say of a run.

    Args:
        event: what happened to it, as a verb: ``failed``, ``is not done after 240 minutes``.
        dag_id: its DAG.
        run_id: its id.
        on: its date; None if unknown.
        form: what its form was filled in with; the command has these options, and a backfill's dates.
    """
    from mmlora.airflow_plugin.unpublished import of_backfill, of_night

    said: Alert = {
        "event": event,
        "dag_id": dag_id,
        "run_id": run_id,
        "date": None if on is None else str(on),
    }
    dates = str(on or "an unknown date")
    lines = ["Its failed tasks say why. Clearing them goes on from where they failed."]
    if dag_id == BACKFILL and form:
        said |= {"date": None, "start": form.get("start"), "end": form.get("end")}
        dates = f"{said['start']} to {said['end']}"
        facts, lines = of_backfill(form)
        said |= facts
    elif dag_id == NIGHTLY and on is not None:
        facts, lines = of_night(on, form or {})
        said |= facts
    said["text"] = "\n".join([f"mmlora: {dag_id} of {dates} {event} (run {run_id})", *lines])
    return said


def send(said: Alert) -> None:
    """Send an alert on each channel of the settings; one that fails is logged, and the others go on."""
    from mmlora.redaction import redact
    from mmlora.settings import load_settings

    settings = load_settings().alerts
    logger.warning("%s", said["text"])
    channels: list[tuple[str, Callable[[], object]]] = []
    if settings.webhook:
        channels.append(("webhook", lambda: _post(settings.webhook, said)))
    if settings.email:
        channels.append(("email", lambda: _mail(settings.email, said)))
    for name, channel in channels:
        try:
            channel()
        except Exception as error:  # an alert must not fail because of one channel
            logger.error("the alert could not be sent by %s: %s", name, redact(str(error)))


def _date_of(run: Mapping[str, Any]) -> date | None:
    """Return the date that a run is of: see :func:`mmlora.airflow_plugin.tasks.run_date`."""
    from mmlora.dates import parse_date
    from mmlora.errors import UsageError

    if given := (run["conf"] or {}).get("date"):
        with suppress(UsageError):  # which is why the run failed
            return parse_date(given)
        return None
    moment = run["data_interval_end"] or run["run_after"]
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return None if moment is None else moment.date()


def _post(url: str, said: Alert) -> None:
    body = json.dumps(said).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_SECONDS):
        pass


def _mail(to: list[str], said: Alert) -> None:
    from airflow.utils.email import send_email

    subject, *_ = said["text"].splitlines()
    send_email(to, subject, f"<pre>{escape(said['text'])}</pre>")
