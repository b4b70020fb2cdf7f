"""``mmlora publish``: publish a staged load."""

from __future__ import annotations

from contextlib import suppress

from mmlora.files import discard_unheld
from mmlora.nights.carrying import forget_digests
from mmlora.nights.failures import failures_kept
from mmlora.runs.datasets import scores, staged
from mmlora.telemetry import note, work
from mmlora.warehouse.readers import keep_promises
from mmlora.warehouse.shadows import refuse_shadow
from mmlora.workspace import STAGING_LOCK, Workspace, open_workspace


def publish(load_id: str, *, workspace: Workspace | None = None) -> str:
    """Publish a staged load: write its rows, then move the pointer; a published one is left as it is.

    Its staged files are removed when it, or a later load, is published.

    Args:
        load_id: the load.
        workspace: the caller's workspace, whose open warehouse is used; that of the settings when None.
    """
    refuse_shadow(load_id)
    workspace = workspace or open_workspace()
    folder = workspace.staging_folder(load_id)
    with workspace.open_warehouse() as warehouse:
        load = warehouse.load(load_id)
        domain, on = load.domain_id, load.score_date
        reads, writes = [staged(workspace)], [scores(workspace)]
        publishing = work("publish", domain=domain, date=on, load=load_id, reads=reads, writes=writes)
        with publishing, failures_kept(workspace, on, str(domain)):
            note(rows=load.rows, model_version=load.model_version)
            promise = workspace.settings.promises.of(str(load.domain_id))
            keep_promises(warehouse.database, warehouse.tables, {load.domain_id: promise})
            load = warehouse.publish(load, sorted(folder.glob("part-*.parquet")))
        if load.state == "published":
            forget_digests(workspace, load)
        earlier = warehouse.loads(
            domain=load.domain_id, score_date=load.score_date, states=("failed", "rejected", "superseded")
        )
    for name in (load_id, *(load.load_id for load in earlier)):
        folder = workspace.staging_folder(name)
        with suppress(OSError):  # what stays is removed by `mmlora gc`
            discard_unheld(folder, folder / STAGING_LOCK)  # a load that was given up may still be scored
    return load_id
