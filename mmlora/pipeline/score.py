"""``mmlora score``: staged loads become what readers see; a night's domains, scored and published."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from typing import Any

from mmlora.errors import CheckError, MmloraError, TransientError, UsageError
from mmlora.nights.engines import choose_engine
from mmlora.nights.failures import describe, failures_kept
from mmlora.nights.load import left_out, score, scoring_domains
from mmlora.pipeline.publish import publish
from mmlora.runs.champions import CHAMPION
from mmlora.runs.freshness import refuse_stale
from mmlora.workspace import Progress, Workspace, open_workspace, silent

PUBLISHERS = 4
"""Loads published side by side where a warehouse takes several writers; each takes three connections."""

logger = logging.getLogger(__name__)


def score_and_publish(
    on: date,
    *,
    domain: str | None = None,
    pairs: str | None = None,
    progress: Progress = silent,
    **options: Any,
) -> dict[str, Any]:
    """Score and publish a date's domains, each by itself: one that fails doesn't stop the others.

    Where the warehouse takes several writers, loads are published while the next domains are scored.
    Interrupted, publications under way are finished.

    Args:
        on: the score date.
        domain: this domain only.
        pairs: see :func:`score`; a domain that the table's ``domain_id`` doesn't have is skipped.
        progress: told the pairs done.
        options: see :func:`score`.

    Returns:
        ``loads`` (one row a domain, with what its candidates' policy removed), ``skipped``, ``pairs``
        published and ``seconds`` in all.
    """
    workspace = open_workspace()
    begun = time.monotonic()
    with failures_kept(workspace, on, *map(str, [domain] if domain else workspace.expected_domains())):
        domains, skipped = domains_to_score(workspace, on, domain, pairs, options)
    rows = _loads(workspace, on, domains, progress, {**options, "pairs": pairs})
    return {
        "loads": rows,
        "skipped": skipped,
        "pairs": sum(row["pairs"] or 0 for row in rows if row["state"] == "published"),
        "seconds": time.monotonic() - begun,
    }


def domains_to_score(
    workspace: Workspace, on: date, domain: str | None, pairs: str | None, options: dict[str, Any]
) -> tuple[list[str], list[dict[str, str]]]:
    """Return the domains to score, and those that aren't with the reasons, by a night's options.

    Raises:
        UsageError: something would be wrong for every domain.
        CheckError: the data doesn't reach the date, or no domain is left.
    """
    allow_stale = bool(options.get("allow_stale"))
    _refuse_misuse(workspace, options)
    refuse_stale(workspace, on, known_as_of=options.get("known_as_of"), allow=allow_stale)
    if domain:
        return [str(workspace.domain(domain))], []
    domains = scoring_domains(on, pairs=pairs, allow_stale=allow_stale)
    others = left_out(workspace, on, pairs, allow_stale=allow_stale)
    return domains, [{"domain_id": str(name), "reason": reason} for name, reason in others.items()]


def _refuse_misuse(workspace: Workspace, options: dict[str, Any]) -> None:
    """Refuse, before anything starts, what would be wrong for every domain.

    Raises:
        UsageError: an engine, device, check or model version that isn't there, or no champion at all.
    """
    from mmlora.nights.load_size import check_override

    choose_engine(workspace.settings, *(options.get(name) for name in ("engine", "ray_address", "device")))
    check_override(options.get("override"), options.get("reason"))
    if version := options.get("model_version"):
        workspace.bundles.load(version)
        return
    with workspace.open_warehouse() as warehouse:
        if not any(warehouse.current(CHAMPION, domain) for domain in workspace.expected_domains()):
            raise UsageError("there is no champion yet: train a model first (mmlora train --help)")


def _loads(
    workspace: Workspace, on: date, domains: Sequence[str], progress: Progress, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Score the domains in turn and publish each once it is scored; the rows are in the domains' order."""
    from mmlora.warehouse.backends import parse_url

    _, backend = parse_url(workspace.warehouse_url)
    if backend.one_writer or len(domains) == 1:
        return [
            _one(workspace, on, domain, time.monotonic(), _scored(on, domain, progress, options))
            for domain in domains
        ]
    rows: list[Future[dict[str, Any]]] = []
    with ThreadPoolExecutor(PUBLISHERS, "publish") as publishers:
        try:
            for domain in domains:
                begun, scored = time.monotonic(), _scored(on, domain, progress, options)
                rows.append(publishers.submit(_one, workspace, on, domain, begun, scored))
            return [row.result() for row in rows]
        except KeyboardInterrupt:
            publishers.shutdown(wait=False, cancel_futures=True)
            raise


def _scored(on: date, domain: str, progress: Progress, options: dict[str, Any]) -> Future[str]:
    """Score one domain: the load's name, or what went wrong."""
    load_id: Future[str] = Future()
    try:
        load_id.set_result(score(on, domain, progress=progress, **options))
    except Exception as error:
        load_id.set_exception(error)
    return load_id


def _one(workspace: Workspace, on: date, domain: str, begun: float, scored: Future[str]) -> dict[str, Any]:
    """Publish one domain's load; a failure, of its scoring as well, becomes a row that says why."""
    empty = dict.fromkeys(("users", "items", "pairs", "rows", "model_version", "candidates"))
    row: dict[str, Any] = {"domain_id": domain, "score_date": on.isoformat(), "state": "failed", **empty}
    row["exit_code"] = 0
    try:
        row["load_id"] = scored.result()
        load_id = publish(row["load_id"])
    except Exception as error:
        logger.debug("domain %s, %s failed", domain, on, exc_info=True)
        code, reason = (error.exit_code if isinstance(error, MmloraError) else 1), describe(error)
        if isinstance(error, CheckError):
            row["state"] = "rejected"
        if code == TransientError.exit_code and "load_id" in row:
            reason += f"; scored already, so then: mmlora publish {row['load_id']}"
        return {**row, "exit_code": code, "reason": reason, "seconds": time.monotonic() - begun}
    with workspace.open_warehouse() as warehouse:
        load = warehouse.load(load_id)
    checks = load.checks or {}
    sizes = {name: checks.get(name) for name in ("users", "items", "pairs")}
    sizes["candidates"] = checks.get("candidates")
    done = {"load_id": load_id, "state": load.state, "rows": load.rows, "model_version": load.model_version}
    return {**row, **sizes, **done, "reason": load.reason, "seconds": time.monotonic() - begun}
