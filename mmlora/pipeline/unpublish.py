"""``mmlora unpublish`` and ``mmlora restore``: withdraw a published load, or publish it again."""

from __future__ import annotations

import getpass
from datetime import date

from mmlora.errors import UsageError
from mmlora.pipeline.status import LoadStatus, load_state
from mmlora.warehouse.shadows import refuse_shadow
from mmlora.workspace import open_workspace


def unpublish(domain: str, on: date, *, reason: str) -> LoadStatus:
    """Unpublish a domain and date; ``scores_latest`` then shows the previous date.

    Returns:
        The unpublished load, and the newest published date now.

    Raises:
        UsageError: nothing is published, the domain does not exist, or the reason is empty.
    """
    workspace = open_workspace()
    target, who, why = workspace.domain(domain), getpass.getuser(), _reason(reason)
    with workspace.open_warehouse() as warehouse:
        load = warehouse.unpublish(target, on, who=who, why=why)
        return load_state(load.load_id, workspace=workspace)


def restore(load_id: str, *, reason: str = "restored by hand") -> LoadStatus:
    """Publish a formerly published load again; return the same as :func:`unpublish`.

    Raises:
        UsageError: the load does not exist, or was never published.
        DataError: its rows are incomplete.
    """
    refuse_shadow(load_id)
    workspace, why = open_workspace(), _reason(reason)
    with workspace.open_warehouse() as warehouse:
        warehouse.restore(warehouse.load(load_id), who=getpass.getuser(), why=why)
        return load_state(load_id, workspace=workspace)


def _reason(text: str) -> str:
    if not text.strip():
        raise UsageError("--reason needs a text, which goes into the ledger")
    return text.strip()
