"""``mmlora score --shadow``: score a night by another model, beside the published loads."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from typing import Literal, Unpack

from mmlora.errors import UsageError
from mmlora.nights.failures import describe
from mmlora.nights.load import ScoreOptions, score
from mmlora.pipeline.outcomes import SkippedDomain
from mmlora.pipeline.score import domains_to_score
from mmlora.records import Record
from mmlora.runs.champions import CHALLENGER
from mmlora.warehouse.shadows import shadow
from mmlora.workspace import Progress, Workspace, open_workspace, silent


@dataclass(frozen=True)
class ShadowOutcome(Record):
    """The outcome of one domain.

    Attributes:
        domain_id: the domain.
        score_date: the date.
        state: ``shadow`` or ``failed``.
        model_version: the model.
        load_id: the shadow load; None without one.
        rows: its rows.
        exit_code: the command line's exit status for the failure; 0 without one.
        reason: the reason of the failure.
        seconds: time taken.
    """

    domain_id: str
    score_date: date
    state: Literal["shadow", "failed"]
    model_version: str
    load_id: str | None = None
    rows: int | None = None
    exit_code: int = 0
    reason: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class ShadowNight(Record):
    """The outcome of a night: a load per domain, and the domains that were not scored."""

    loads: tuple[ShadowOutcome, ...]
    skipped: tuple[SkippedDomain, ...]


def score_shadow(
    on: date,
    model: str,
    *,
    domain: str | None = None,
    progress: Progress = silent,
    **options: Unpack[ScoreOptions],
) -> ShadowNight:
    """Score a date's domains by a model into shadow loads, which readers never see.

    Args:
        on: the score date.
        model: the model version, or ``challenger``.
        domain: this domain only.
        progress: called with the pairs done.
        options: those of ``score_and_publish``, without ``model_version``.

    Raises:
        UsageError: the version does not exist, or there is no challenger.
    """
    workspace = open_workspace()
    options["workspace"] = workspace
    with workspace.open_warehouse():  # opened once for all domains
        version = options["model_version"] = _version(workspace, model)
        domains, skipped = domains_to_score(workspace, on, [domain] if domain else [], options)
        loads = [_shadow(workspace, on, name, version, progress, options) for name in domains]
    return ShadowNight(tuple(loads), tuple(skipped))


def _version(workspace: Workspace, model: str) -> str:
    if model != CHALLENGER:
        return model
    with workspace.open_warehouse() as warehouse:
        version = warehouse.current(CHALLENGER)
    if version is None:
        raise UsageError("there is no challenger: train another model, or give a version (mmlora status)")
    return version


def _shadow(
    workspace: Workspace, on: date, domain: str, version: str, progress: Progress, options: ScoreOptions
) -> ShadowOutcome:
    begun = time.monotonic()
    try:
        load_id = score(on, domain, shadow=True, progress=progress, **options)
    except Exception as error:
        code = getattr(error, "exit_code", 1)
        return ShadowOutcome(domain, on, "failed", version, exit_code=code, reason=describe(error))
    with workspace.open_warehouse() as warehouse:
        load = shadow(warehouse.database, warehouse.tables, load_id)
    seconds = time.monotonic() - begun
    return ShadowOutcome(domain, on, "shadow", version, load_id, load.rows, seconds=seconds)
