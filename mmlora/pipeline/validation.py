"""``mmlora validate``: the two suites, and a verdict for each domain, stored in the warehouse."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from datetime import date
from typing import Any

from mmlora.pipeline.workspace import Workspace, open_workspace
from mmlora.schema import DomainVerdict, Id

logger = logging.getLogger(__name__)


def validate(as_of: date) -> dict[str, Any]:
    """Check what was known at ``as_of`` 00:00 UTC and store the verdicts.

    Returns:
        ``as_of``, ``verdicts`` (by domain), ``domains`` (with figures), ``passed`` (no domain is broken, and
        the day has rows), ``day_failures``, ``failures`` and ``data_docs``.
    """
    from mmlora.checks.thresholds import Thresholds
    from mmlora.checks.validation import run_validation

    workspace = open_workspace()
    report = run_validation(
        workspace.offline,
        as_of=as_of,
        thresholds=Thresholds(**workspace.settings.checks.model_dump(exclude={"domains"})),
        expected_domains=workspace.expected_domains(),
        data_docs=workspace.home / "data_docs",
    )
    with workspace.open_warehouse() as warehouse:
        warehouse.record_verdicts(report.verdicts)
    counts = Counter(verdict.verdict for verdict in report.verdicts)
    logger.info("validated as of %s: %s", as_of, ", ".join(f"{n} {name}" for name, n in counts.items()))
    return {
        **stored_verdicts(as_of),
        "passed": report.passed,
        "day_failures": list(report.day_failures),
        "failures": list(report.failures),
    }


def stored_verdicts(as_of: date) -> dict[str, Any]:
    """Return a date's stored verdicts as :func:`validate` does, less what failed."""
    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse:
        verdicts = warehouse.verdicts(as_of)
    return {
        "as_of": as_of.isoformat(),
        "verdicts": {str(verdict.domain_id): verdict.verdict for verdict in verdicts},
        "domains": [asdict(verdict) for verdict in verdicts],
        "data_docs": str(workspace.home / "data_docs" / "index.html"),
    }


def verdicts_as_of(workspace: Workspace, as_of: date) -> dict[Id, DomainVerdict]:
    """Return the stored verdicts of a date by domain, validating first when a domain has none."""
    for attempt in ("stored", "validated now"):
        with workspace.open_warehouse() as warehouse:
            verdicts = warehouse.verdicts(as_of)
        unknown = set(workspace.expected_domains()).difference(found.domain_id for found in verdicts)
        if not unknown or attempt == "validated now":
            break
        validate(as_of)
    return {verdict.domain_id: verdict for verdict in verdicts}
