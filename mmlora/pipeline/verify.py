"""``mmlora verify``: check that published rows are the audited ones."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Any

from mmlora.errors import UsageError
from mmlora.pipeline.read import open_published
from mmlora.workspace import Progress, silent


def verify(
    *,
    domain: str | None = None,
    start: date | None = None,
    end: date | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Count and hash the published rows of each domain and date.

    Args:
        domain: this domain only.
        start: the first score date, included.
        end: the last score date, included.
        progress: called after each publication.

    Returns:
        One row per publication: ``domain_id``, ``score_date``, ``load_id``, ``rows``, ``fault`` (empty if
        there is none) and ``mend``, the command that repairs it.

    Raises:
        UsageError: the warehouse does not exist, or the dates are in the wrong order.
    """
    if start and end and start > end:
        raise UsageError(f"--start {start} is after --end {end}: give the earlier date first")
    rows = []
    with open_published() as warehouse:
        try:
            target = None if domain is None else warehouse.ids.parse("domain", domain)
        except ValueError:
            raise UsageError(f"domain {domain!r}: domain ids are whole numbers here") from None
        total = len(warehouse.publications(domain=target, start=start, end=end))
        for verified in warehouse.verify(domain=target, start=start, end=end):
            row = asdict(verified)
            rows.append({**row, "domain_id": str(row["domain_id"]), "score_date": f"{row['score_date']}"})
            progress("verify", min(len(rows), total), total)
    return rows
