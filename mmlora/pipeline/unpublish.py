"""``mmlora unpublish`` and ``mmlora restore``: what readers have is taken back, or given back."""

from __future__ import annotations

import getpass
from datetime import date

from mmlora.errors import UsageError
from mmlora.pipeline.status import LoadStatus, load_state
from mmlora.workspace import open_workspace


def unpublish(domain: str, on: date, *, reason: str) -> LoadStatus:
    """Take away what readers see of a domain and date; ``scores_latest`` goes back to the date before.

    Returns:
        The load that was taken back.

    Raises:
        UsageError: nothing is published there, there is no such domain, or no reason.
    """
    workspace = open_workspace()
    target, who, why = workspace.domain(domain), getpass.getuser(), _reason(reason)
    with workspace.open_warehouse() as warehouse:
        load = warehouse.unpublish(target, on, who=who, why=why)
        return load_state(load.load_id, workspace=workspace)


def restore(load_id: str, *, reason: str = "restored by hand") -> LoadStatus:
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
