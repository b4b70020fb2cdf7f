"""``mmlora status``: what readers get for each domain, by which model, and what went wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mmlora.numerics import here
from mmlora.runs.champions import CHALLENGER, CHAMPION
from mmlora.workspace import Workspace, open_workspace

_TROUBLES = 20
_NIGHTS = 7


def status() -> dict[str, Any]:
    """Return each domain's newest publication and champion, the last nights, loads in trouble, the models.

    ``numerics`` is what this machine computes with on its CPU; a load's row keeps what it was computed with.
    """
    workspace = open_workspace()
    versions = workspace.bundles.versions()
    with workspace.open_warehouse() as warehouse, warehouse.reads_in_a_row():
        aliases = {warehouse.current(alias): alias for alias in (CHALLENGER, CHAMPION)}
        domains = []
        for domain in workspace.expected_domains():
            found = warehouse.publication(domain)
            checks = (found and warehouse.load(found.load_id).checks) or {}
            domains.append(
                {
                    "domain_id": str(domain),
                    "score_date": found and found.score_date.isoformat(),
                    "rows": found and found.rows,
                    "model_version": found and found.model_version,
                    "published_at": found and found.published_at.isoformat(timespec="seconds"),
                    "champion": warehouse.current(CHAMPION, domain),
                    "candidates": checks.get("candidates"),
                }
            )
        stalled = {load.load_key for load in warehouse.stale_loads()}
        troubles = [
            {
                "load_id": load.load_id,
                "domain_id": str(load.domain_id),
                "score_date": load.score_date.isoformat(),
                "state": "stalled" if load.load_key in stalled else load.state,
                "reason": load.reason,
            }
            for load in warehouse.loads(states=("running", "staged", "failed", "rejected"), limit=_TROUBLES)
        ]
        nights = [asdict(night) for night in warehouse.nights(limit=_NIGHTS)]
    return {
        "home": str(workspace.home),
        "numerics": asdict(here()),
        "domains": domains,
        "nights": nights,
        "troubles": troubles,
        "models": [
            {
                "model_version": version,
                "alias": aliases.get(version),
                "beside_baselines": _verdict(workspace, version),
            }
            for version in reversed(versions)
        ],
    }


def domain_status(domain: str) -> dict[str, Any]:
    """Return a domain's newest loads, whatever became of them, and what people did to its publications.

    Raises:
        UsageError: no such domain.
    """
    workspace = open_workspace()
    target = workspace.domain(domain)
    with workspace.open_warehouse() as warehouse:
        loads = warehouse.loads(domain=target, limit=_TROUBLES)
        ledger = warehouse.ledger(target, limit=_TROUBLES)
    columns = (
        "load_id",
        "score_date",
        "state",
        "rows",
        "model_version",
        "finished_at",
        "rows_freed_at",
        "reason",
    )
    return {
        "domain_id": str(target),
        "loads": [{name: getattr(load, name) for name in columns} for load in loads],
        "ledger": [{**asdict(entry), "domain_id": str(target)} for entry in ledger],
    }


def load_state(load_id: str, *, workspace: Workspace | None = None) -> dict[str, Any]:
    """Return what became of a load, and the newest date that its domain's readers get."""
    with (workspace or open_workspace()).open_warehouse() as warehouse:
        load = warehouse.load(load_id)
        latest = warehouse.publication(load.domain_id)
    return {
        "load_id": load.load_id,
        "domain_id": str(load.domain_id),
        "score_date": load.score_date.isoformat(),
        "state": load.state,
        "latest": latest and latest.score_date.isoformat(),
    }


def _verdict(workspace: Workspace, version: str) -> str | None:
    """Return how a model stands to its best baseline; None when it wasn't judged."""
    judgement = workspace.bundles.load(version).manifest.judgement
    return None if judgement is None else judgement.verdict
