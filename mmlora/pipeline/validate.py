"""``mmlora validate``: run the two suites, and store a verdict per domain in the warehouse."""

from __future__ import annotations

from datetime import date
from typing import Any

from mmlora.runs.verdicts import check_domains, stored_verdicts
from mmlora.workspace import open_workspace


def validate(as_of: date) -> dict[str, Any]:
    """Check the data known at ``as_of`` 00:00 UTC and store the verdicts.

    Returns:
        ``as_of``, ``verdicts`` (by domain), ``domains`` (with figures), ``passed`` (no domain is broken, and
        the day has rows), ``day_failures``, ``failures`` and ``data_docs``.
    """
    workspace = open_workspace()
    with workspace.open_warehouse():
        report = check_domains(workspace, as_of)
        stored = stored_verdicts(workspace, as_of)
    return {
        **stored,
        "passed": report.passed,
        "day_failures": list(report.day_failures),
        "failures": list(report.failures),
    }
