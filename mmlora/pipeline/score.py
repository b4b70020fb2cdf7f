"""``mmlora score``: score and publish a night's domains."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Unpack

from mmlora.duck import kept_open
from mmlora.errors import CheckError, MmloraError, TransientError, UsageError
from mmlora.load_checks import LoadChecks
from mmlora.nights.domains import left_out, scoring_domains
from mmlora.nights.engines import choose_engine
from mmlora.nights.failures import describe, failures_kept
from mmlora.nights.load import ScoreOptions, score
from mmlora.nights.overrides import Overrides
from mmlora.pipeline.metrics import figures_of
from mmlora.pipeline.outcomes import LoadOutcome, NightOutcome, SkippedDomain
from mmlora.pipeline.publish import publish
from mmlora.runs.champions import CHAMPION
from mmlora.runs.freshness import refuse_stale
from mmlora.telemetry import in_context, record, work
from mmlora.workspace import Progress, Workspace, open_workspace, silent

PUBLISHERS = 4
"""Loads published in parallel if the warehouse allows several writers; each uses three connections."""

logger = logging.getLogger(__name__)


def score_and_publish(
    on: date,
    *,
    domain: str | None = None,
    domains: Sequence[str] = (),
    progress: Progress = silent,
    **options: Unpack[ScoreOptions],
) -> NightOutcome:
    """Score and publish a date's domains independently: one that fails doesn't stop the others.

    If the warehouse allows several writers, loads are published while the next domains are scored. An
    interruption lets running publications finish.

    Args:
        on: the score date.
        domain: this domain only.
        domains: these domains only.
        progress: called with the pairs done.
        options: see :func:`score`; domains without a ``domain_id`` in ``pairs`` are skipped.
    """
    workspace = options["workspace"] = options.get("workspace") or open_workspace()
    begun = time.monotonic()
    wanted = [domain] if domain else list(domains)
    expected = wanted or workspace.expected_domains()
    # Kept open for the calls below.
    with workspace.open_warehouse() as warehouse, kept_open(), work("night", date=on):
        with failures_kept(workspace, on, *map(str, expected)):
            chosen, skipped = domains_to_score(workspace, on, wanted, options)
        loads = _loads(workspace, on, chosen, progress, options)
        record(lambda: figures_of(warehouse))
    return NightOutcome(tuple(loads), tuple(skipped), time.monotonic() - begun)


def domains_to_score(
    workspace: Workspace, on: date, wanted: Sequence[str], options: ScoreOptions
) -> tuple[list[str], list[SkippedDomain]]:
    """Return the domains to score, all or those wanted, and the skipped ones with the reasons.

    Raises:
        UsageError: an option is wrong for every domain.
        CheckError: the data doesn't reach the date, or no domain is left.
    """
    allow_stale, pairs = options.get("allow_stale", False), options.get("pairs")
    _check_options(workspace, options)
    refuse_stale(workspace, on, known_as_of=options.get("known_as_of"), allow=allow_stale)
    if wanted:
        return [str(workspace.domain(domain)) for domain in wanted], []
    override = options.get("override")
    domains = scoring_domains(
        on, pairs=pairs, allow_stale=allow_stale, override=override, workspace=workspace
    )
    skipped = left_out(workspace, on, pairs, allow_stale=allow_stale, override=override)
    return domains, [SkippedDomain(str(name), reason) for name, reason in skipped.items()]


def _check_options(workspace: Workspace, options: ScoreOptions) -> None:
    """Reject options that are wrong for every domain, before anything starts.

    Raises:
        UsageError: an engine, device, check or model version does not exist, or there is no champion at all.
    """
    choose_engine(
        workspace.settings, options.get("engine"), options.get("ray_address"), options.get("device")
    )
    Overrides.of(options.get("override"), options.get("reason"))
    if version := options.get("model_version"):
        workspace.bundles.load(version)
        return
    with workspace.open_warehouse() as warehouse, warehouse.reads_in_a_row():
        if not any(warehouse.current(CHAMPION, domain) for domain in workspace.expected_domains()):
            raise UsageError("there is no champion yet: train a model first (mmlora train --help)")


def _loads(
    workspace: Workspace, on: date, domains: Sequence[str], progress: Progress, options: ScoreOptions
) -> list[LoadOutcome]:
    """Score the domains in turn and publish each when it is scored; return outcomes in their order."""
    from mmlora.warehouse.backends import parse_url

    _, backend = parse_url(workspace.warehouse_url)
    if backend.one_writer or len(domains) == 1:
        return [
            _published(workspace, on, domain, _scored(on, domain, progress, options)) for domain in domains
        ]
    outcomes: list[Future[LoadOutcome]] = []
    with ThreadPoolExecutor(PUBLISHERS, "publish") as publishers:
        try:
            for domain in domains:
                scored = _scored(on, domain, progress, options)
                outcomes.append(publishers.submit(in_context(_published), workspace, on, domain, scored))
            return [outcome.result() for outcome in outcomes]
        except KeyboardInterrupt:
            publishers.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class _Scored:
    """A domain's load or its error; ``begun`` is the start by the monotonic clock."""

    begun: float
    load_id: str | None = None
    error: Exception | None = None


def _scored(on: date, domain: str, progress: Progress, options: ScoreOptions) -> _Scored:
    begun = time.monotonic()
    try:
        return _Scored(begun, score(on, domain, progress=progress, **options))
    except Exception as error:
        return _Scored(begun, error=error)


def _published(workspace: Workspace, on: date, domain: str, scored: _Scored) -> LoadOutcome:
    """Publish a domain's load; an error of scoring or publishing becomes a failed outcome."""
    if scored.error is not None:
        return _failed(on, domain, scored, scored.error)
    assert scored.load_id is not None  # set unless there is an error
    try:
        publish(scored.load_id, workspace=workspace)
    except Exception as error:
        return _failed(on, domain, scored, error)
    with workspace.open_warehouse() as warehouse:
        load = warehouse.load(scored.load_id)
    checks = load.checks or LoadChecks()
    return LoadOutcome(
        domain_id=domain,
        score_date=on,
        state=load.state,
        users=checks.users,
        items=checks.items,
        pairs=checks.pairs,
        rows=load.rows,
        model_version=load.model_version,
        candidates=checks.candidates,
        load_id=scored.load_id,
        reason=load.reason,
        seconds=time.monotonic() - scored.begun,
        resumed=checks.resumed,
        carried=checks.carried,
    )


def _failed(on: date, domain: str, scored: _Scored, error: Exception) -> LoadOutcome:
    logger.debug("domain %s, %s failed", domain, on, exc_info=error)
    code, reason = (error.exit_code if isinstance(error, MmloraError) else 1), describe(error)
    if code == TransientError.exit_code and scored.load_id is not None:
        reason += f"; scored already, so then: mmlora publish {scored.load_id}"
    return LoadOutcome(
        domain_id=domain,
        score_date=on,
        state="rejected" if isinstance(error, CheckError) else "failed",
        exit_code=code,
        load_id=scored.load_id,
        reason=reason,
        seconds=time.monotonic() - scored.begun,
    )
