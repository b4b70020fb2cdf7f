"""A dry run: scoring without changing the warehouse; and a shadow, which leaves only a record of itself."""

from __future__ import annotations

import secrets
from datetime import UTC, date, datetime, timedelta

from mmlora.load_checks import LoadChecks
from mmlora.numerics import Numerics
from mmlora.schema import Id
from mmlora.warehouse import shadows
from mmlora.warehouse.loads import Load
from mmlora.warehouse.warehouse import Warehouse


class Rehearsal:
    """Stands in for the warehouse while a load is scored, and discards all changes.

    Args:
        warehouse: the warehouse for queries about what readers have.
    """

    prefix = "dry-run-"

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
            load_id=f"{self.prefix}{score_date}-{secrets.token_hex(6)}",
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
                    "code_version",
                )
            ),
        )

    def forget(self, *args: object, **facts: object) -> None:
        """Do nothing."""

    heartbeat = reject = fail = record = record_models = forget

    def mark_staged(
        self,
        load: Load,
        *,
        rows: int,
        content_hash: str,
        checks: LoadChecks,
        numerics: Numerics | None = None,
    ) -> None:
        """Do nothing."""


class Shadow(Rehearsal):
    """A rehearsal whose load is kept beside the published ones (:mod:`mmlora.warehouse.shadows`)."""

    prefix = shadows.PREFIX

    def __init__(self, warehouse: Warehouse) -> None:
        super().__init__(warehouse)
        self._warehouse = warehouse

    def mark_staged(
        self,
        load: Load,
        *,
        rows: int,
        content_hash: str,
        checks: LoadChecks,
        numerics: Numerics | None = None,
    ) -> None:
        """Record the shadow load."""
        shadows.record_shadow(
            self._warehouse.database,
            self._warehouse.tables,
            load_id=load.load_id,
            domain=load.domain_id,
            score_date=load.score_date,
            model_version=load.model_version,
            rows=rows,
            content_hash=content_hash,
            checks=checks,
        )
