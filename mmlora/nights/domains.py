"""Which domains are scored on a date, and why the others are not."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import date

from mmlora.errors import CheckError
from mmlora.nights.candidates import without_pairs
from mmlora.runs.verdicts import verdicts_as_of
from mmlora.schema import DomainVerdict, Id
from mmlora.workspace import Workspace, open_workspace

logger = logging.getLogger(__name__)


def scoring_domains(
    on: date,
    *,
    pairs: str | None = None,
    allow_stale: bool = False,
    override: Collection[str] | None = None,
    workspace: Workspace | None = None,
) -> list[str]:
    """Return the domains to score on a date: all except those that :func:`left_out` returns.

    Args:
        on: the score date.
        pairs: see :func:`score`.
        allow_stale: also score domains that are broken only because their last day is missing.
        override: also score domains that are broken only because of these checks.
        workspace: see :func:`score`.

    Raises:
        CheckError: there are no domains left to score.
    """
    workspace = workspace or open_workspace()
    others = left_out(workspace, on, pairs, allow_stale=allow_stale, override=override)
    for domain, reason in others.items():
        logger.warning("domain %s isn't scored on %s: %s", domain, on, reason)
    domains = [str(domain) for domain in workspace.expected_domains() if domain not in others]
    if not domains:
        raise CheckError(
            f"validation as of {on}", [f"{domain}: {reason}" for domain, reason in others.items()][:5]
        )
    return domains


def left_out(
    workspace: Workspace,
    on: date,
    pairs: str | None = None,
    *,
    allow_stale: bool = False,
    override: Collection[str] | None = None,
) -> dict[Id, str]:
    """Return why domains aren't scored on a date: broken, absent, or not in the pair table."""
    verdicts = verdicts_as_of(workspace, on)
    absent = {d: "absent: nobody to score" for d, found in verdicts.items() if found.verdict == "absent"}
    broken = {
        domain: "broken: " + "; ".join(found.reasons)
        for domain, found in verdicts.items()
        if is_broken(found, allow_stale=allow_stale, override=override)
    }
    others = {**absent, **broken}
    rest = [domain for domain in workspace.expected_domains() if domain not in others]
    return {**others, **without_pairs(workspace, on, rest, pairs)}


def is_broken(verdict: DomainVerdict, *, allow_stale: bool, override: Collection[str] | None) -> bool:
    """Return whether a verdict keeps its domain from being scored.

    Args:
        verdict: the domain's verdict.
        allow_stale: pass a domain that is broken only because its last day is missing.
        override: pass a domain that is broken only because of these checks.
    """
    return (
        verdict.verdict == "broken"
        and not (allow_stale and _is_silent(verdict))
        and not _is_overridden(verdict, {*(override or ()), *(("silence",) if allow_stale else ())})
    )


def _is_silent(verdict: DomainVerdict) -> bool:
    from mmlora.checks.thresholds import SILENT

    return all(reason.startswith(SILENT) for reason in verdict.reasons)


def _is_overridden(verdict: DomainVerdict, override: Collection[str]) -> bool:
    failed = {check.name for check in verdict.checks if check.blocks}
    return bool(failed) and failed.issubset(override)
