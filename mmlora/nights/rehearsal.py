"""A dry run: scoring without changing the warehouse."""

from __future__ import annotations

import secrets
from datetime import UTC, date, datetime, timedelta

from mmlora.schema import Id
from mmlora.warehouse.loads import Load
from mmlora.warehouse.warehouse import Warehouse


class Rehearsal:
    """Stands in for the warehouse while a load is scored, and discards all changes.

    Args:
        warehouse: the warehouse for queries about what readers have.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self.publications = warehouse.publications
        self.load = warehouse.load
        self.rows_of = warehouse.rows_of
        self.read_publications = warehouse.read_publications

    def begin_load(
        self, domain: Id, score_date: date, *, model_version: str, contract_hash: str, stale_after: timedelta
    ) -> Load:
        """Return a load that isn't recorded in the warehouse."""
        now = datetime.now(UTC)
        return Load(
            load_id=f"dry-run-{score_date}-{secrets.token_hex(6)}",
            load_key=0,
            domain_id=domain,
            score_date=score_date,
            attempt=0,
            state="running",
            model_version=model_version,
            contract_hash=contract_hash,
            started_at=now,
            heartbeat_at=now,
            **dict.fromkeys(
                (
                    "rows",
                    "content_hash",
                    "checks",
                    "reason",
                    "staged_at",
                    "finished_at",
                    "processor",
                    "kernels",
                    "torch_version",
                    "rows_freed_at",
                    "rows_deleted_at",
                )
            ),
        )

    def forget(self, *args: object, **facts: object) -> None:
        """Do nothing."""

    heartbeat = mark_staged = reject = fail = record = forget
