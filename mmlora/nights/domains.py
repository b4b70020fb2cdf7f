"""Which domains are scored on a date, and why the others are not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date

from mmlora.errors import CheckError
from mmlora.nights.candidates import without_pairs
from mmlora.runs.verdicts import verdicts_as_of
from mmlora.schema import DomainVerdict, Id
from mmlora.workspace import Workspace, open_workspace

logger = logging.getLogger(__name__)


def scoring_domains(
    on: date, *, pairs: str | None = None, allow_stale: bool = False, workspace: Workspace | None = None
) -> list[str]:
    """Return the domains to score on a date: all except those that :func:`left_out` returns.

    Args:
        on: the score date.
        pairs: see :func:`score`.
        allow_stale: also score domains that are broken only because their last day is missing.
        workspace: see :func:`score`.

    Raises:
        CheckError: there are no domains left to score.
    """
    workspace = workspace or open_workspace()
    others = left_out(workspace, on, pairs, allow_stale=allow_stale)
    for domain, reason in others.items():
        logger.warning("domain %s isn't scored on %s: %s", domain, on, reason)
    domains = [str(domain) for domain in workspace.expected_domains() if domain not in others]
    if not domains:
        raise CheckError(
            f"validation as of {on}", [f"{domain}: {reason}" for domain, reason in others.items()][:5]
        )
    return domains


def left_out(
    workspace: Workspace, on: date, pairs: str | None = None, *, allow_stale: bool = False
) -> dict[Id, str]:
    """Return why domains aren't scored on a date: broken, absent, or not in the pair table."""
    verdicts = verdicts_as_of(workspace, on)
    absent = {d: "absent: nobody to score" for d, found in verdicts.items() if found.verdict == "absent"}
    broken = {d: "broken: " + "; ".join(why) for d, why in broken_domains(verdicts, allow_stale).items()}
    others = {**absent, **broken}
    rest = [domain for domain in workspace.expected_domains() if domain not in others]
    return {**others, **without_pairs(workspace, on, rest, pairs)}


def broken_domains(verdicts: Mapping[Id, DomainVerdict], allow_stale: bool) -> dict[Id, tuple[str, ...]]:
    """Return why domains are broken; ``allow_stale`` passes those without a last day only."""
    from mmlora.checks.thresholds import SILENT

    broken = {domain: found.reasons for domain, found in verdicts.items() if found.verdict == "broken"}
    if not allow_stale:
        return broken
    stale = {domain for domain, why in broken.items() if all(reason.startswith(SILENT) for reason in why)}
    return {domain: why for domain, why in broken.items() if domain not in stale}
