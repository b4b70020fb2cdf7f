"""``mmlora unpublish`` and ``mmlora restore``: what readers have is taken back, or given back."""

from __future__ import annotations

import getpass
from datetime import date
from typing import Any

from mmlora.errors import UsageError
from mmlora.pipeline.status import load_state
from mmlora.workspace import open_workspace


def unpublish(domain: str, on: date, *, reason: str) -> dict[str, Any]:
    """Take away what readers see of a domain and date; ``scores_latest`` goes back to the date before.

    Returns:
        ``load_id`` (of what was taken back), ``domain_id``, ``score_date``, ``state``, and ``latest``: the
        date that readers get as the newest now, or None.

    Raises:
        UsageError: nothing is published there, there is no such domain, or no reason.
    """
    workspace = open_workspace()
    target, who, why = workspace.domain(domain), getpass.getuser(), _reason(reason)
    with workspace.open_warehouse() as warehouse:
        load = warehouse.unpublish(target, on, who=who, why=why)
        return load_state(load.load_id, workspace=workspace)


def restore(load_id: str, *, reason: str = "restored by hand") -> dict[str, Any]:
    """Give readers a load back that they had before, of its domain and date; returns as :func:`unpublish`.

    Raises:
        UsageError: there is no such load, or readers never had it.
        DataError: its rows are no longer all there.
    """
    workspace, why = open_workspace(), _reason(reason)
    with workspace.open_warehouse() as warehouse:
        warehouse.restore(warehouse.load(load_id), who=getpass.getuser(), why=why)
        return load_state(load_id, workspace=workspace)


def _reason(text: str) -> str:
    if not text.strip():
        raise UsageError("--reason needs a text, which goes into the ledger")
    return text.strip()
