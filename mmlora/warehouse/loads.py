"""Loads: attempts to score one domain and date, and the transitions between their states.

::

    running → staged → published → superseded
        └───────┴────→ failed, rejected

The functions run inside the caller's transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

import mmlora
from mmlora.errors import ContractError, DataError, TransientError, UsageError
from mmlora.load_checks import LoadChecks
from mmlora.numerics import Numerics
from mmlora.redaction import redact
from mmlora.schema import Id, LoadState
from mmlora.warehouse.database import clock, hold
from mmlora.warehouse.tables import Tables

OPEN: tuple[LoadState, ...] = ("running", "staged")


@dataclass(frozen=True)
class Load:
    """A load's state at the time it was read.

    Attributes:
        load_id: its name, and the name of its folder under ``staging/``.
        load_key: the integer key of its rows.
        attempt: 1 for the first attempt at its domain and date; a later one wins.
        rows: number of its rows; None until it is staged.
        content_hash: hash of its rows; None until it is staged.
        processor: the processor that computed them (:class:`~mmlora.numerics.Numerics`, like the next two);
            None until it is staged, and in older loads.
        kernels: how the kernels were chosen.
        torch_version: the version of torch.
        checks: its size, candidates and audit.
        reason: why it failed or was rejected.
        heartbeat_at: time of its process's last heartbeat.
        finished_at: when it was published, failed or was rejected.
        rows_freed_at: when its rows stopped counting (:mod:`mmlora.warehouse.freeing`); None while they
            count.
        rows_deleted_at: when its last row was deleted.
        code_version: version of mmlora that scored it; None in older loads.
    """

    load_id: str
    load_key: int
    domain_id: Id
    score_date: date
    attempt: int
    state: LoadState
    model_version: str
    contract_hash: str
    rows: int | None
    content_hash: str | None
    checks: LoadChecks | None
    reason: str | None
    started_at: datetime
    heartbeat_at: datetime
    staged_at: datetime | None
    finished_at: datetime | None
    processor: str | None
    kernels: str | None
    torch_version: str | None
    rows_freed_at: datetime | None
    rows_deleted_at: datetime | None
    code_version: str | None

    @property
    def numerics(self) -> Numerics | None:
        """The environment that computed its rows; None if unknown."""
        if self.processor is None or self.kernels is None or self.torch_version is None:
            return None
        return Numerics(self.processor, self.kernels, self.torch_version)

    def same_rows_as(self, other: Load) -> bool:
        """Compare two loads by content hash.

        Raises:
            ContractError: the hashes can't be compared, because the loads were computed by different or
                unknown processors, kernels or versions of torch.
        """
        left, right = self.numerics, other.numerics
        if left is None or left != right or not left.repeats:
            unknown = "a machine that was not recorded"
            raise ContractError(
                f"load {self.load_id} was computed by {left or unknown}, and {other.load_id} by "
                f"{right or unknown}: their content hashes can't be compared; read both and compare the "
                "scores by tolerance (1e-5)",
                expected=left,
                found=right,
            )
        return self.content_hash == other.content_hash


def find(connection: sa.Connection, tables: Tables, load_key: int, *, lock: bool = False) -> Load:
    """Return a load's present state; ``lock`` prevents changes until the transaction ends."""
    query = sa.select(tables.score_loads).where(tables.score_loads.c.load_key == load_key)
    return _load(connection.execute(query.with_for_update() if lock else query).one())


def find_by_id(connection: sa.Connection, tables: Tables, load_id: str) -> Load:
    """Return a load by its name.

    Raises:
        UsageError: there is no load of that name.
    """
    row = connection.execute(
        sa.select(tables.score_loads).where(tables.score_loads.c.load_id == load_id)
    ).one_or_none()
    if row is None:
        raise UsageError(f"there is no load {load_id!r} in the warehouse; `mmlora status` lists the loads")
    return _load(row)


def listing(
    connection: sa.Connection,
    tables: Tables,
    *,
    domain: Id | None = None,
    score_date: date | None = None,
    states: Sequence[LoadState] = (),
    limit: int | None = None,
) -> list[Load]:
    """Return loads, newest first."""
    column = tables.score_loads.c
    query = sa.select(tables.score_loads).order_by(column.load_key.desc()).limit(limit)
    if domain is not None:
        query = query.where(column.domain_id == domain)
    if score_date is not None:
        query = query.where(column.score_date == score_date)
    if states:
        query = query.where(column.state.in_(states))
    return [_load(row) for row in connection.execute(query)]


def freed_nights(connection: sa.Connection, tables: Tables, domain: Id, start: date, end: date) -> list[date]:
    """Return the dates of a domain that readers had scores of until these were freed, in order."""
    load, pointer = tables.score_loads.c, tables.publications.c
    followed = sa.select(pointer.score_date).where(pointer.domain_id == domain)
    query = (
        sa.select(load.score_date)
        .where(
            load.domain_id == domain,
            load.score_date.between(start, end),
            load.state == "superseded",
            load.rows_freed_at.is_not(None),
            load.score_date.not_in(followed),
        )
        .distinct()
        .order_by(load.score_date)
    )
    return list(connection.execute(query).scalars())


def stale(connection: sa.Connection, tables: Tables, older_than: timedelta) -> list[Load]:
    """Return the running loads without a heartbeat for longer than ``older_than``, newest first.

    A staged load has no process: it waits to be published.
    """
    silent_since = clock(connection) - older_than
    return [
        load for load in listing(connection, tables, states=("running",)) if load.heartbeat_at < silent_since
    ]


def begin(
    connection: sa.Connection,
    tables: Tables,
    *,
    domain: Id,
    score_date: date,
    model_version: str,
    contract_hash: str,
    stale_after: timedelta,
) -> Load:
    """Begin a load; loads of the same domain and date whose heartbeats stopped are marked as failed."""
    hold(connection, "load", domain, score_date)
    for load in stale(connection, tables, stale_after):
        if (load.domain_id, load.score_date) == (domain, score_date):
            end(connection, tables, load, "failed", reason="given up: its process stopped sending heartbeats")
    column = tables.score_loads.c
    attempt = (
        1
        + connection.execute(
            sa.select(sa.func.coalesce(sa.func.max(column.attempt), 0)).where(
                column.domain_id == domain, column.score_date == score_date
            )
        ).scalar_one()
    )
    now = clock(connection)
    row = connection.execute(
        sa.insert(tables.score_loads)
        .values(
            load_id=f"{score_date.isoformat()}-{attempt}-{secrets.token_hex(6)}",
            domain_id=domain,
            score_date=score_date,
            attempt=attempt,
            state="running",
            model_version=model_version,
            contract_hash=contract_hash,
            code_version=mmlora.__version__,
            started_at=now,
            heartbeat_at=now,
        )
        .returning(*tables.score_loads.c)
    ).one()
    return _load(row)


def beat(connection: sa.Connection, tables: Tables, load: Load) -> None:
    """Record a heartbeat of the load's process."""
    _change(connection, tables, load, OPEN, heartbeat_at=clock(connection))


def stage(
    connection: sa.Connection,
    tables: Tables,
    load: Load,
    *,
    rows: int,
    content_hash: str,
    checks: LoadChecks,
    numerics: Numerics | None,
) -> None:
    """Record that all rows are in staged files and passed the audit."""
    now = clock(connection)
    _change(
        connection,
        tables,
        load,
        ("running",),
        state="staged",
        rows=rows,
        content_hash=content_hash,
        checks=checks.to_json(),
        staged_at=now,
        heartbeat_at=now,
        **(asdict(numerics) if numerics else {}),
    )


def end(
    connection: sa.Connection,
    tables: Tables,
    load: Load,
    state: LoadState,
    *,
    reason: str,
    checks: LoadChecks | None = None,
) -> None:
    """End an open load as ``failed`` or ``rejected``."""
    kept = {} if checks is None else {"checks": checks.to_json()}
    now = clock(connection)
    _change(connection, tables, load, OPEN, state=state, reason=redact(reason), finished_at=now, **kept)


def why_closed(load: Load) -> str:
    """Return a message that says why a load ended without being published, and what to do."""
    return (
        f"load {load.load_id} of domain {load.domain_id!r}, {load.score_date}, is {load.state} "
        f"({load.reason}): score the date again, which starts a new load"
    )


def refuse_freed(load: Load) -> None:
    """Reject a load whose rows were freed.

    Raises:
        DataError: its rows were freed.
    """
    if load.rows_freed_at is not None:
        raise DataError(
            f"load {load.load_id}",
            f"`mmlora gc` freed its {load.rows or 0:,} rows on {load.rows_freed_at:%Y-%m-%d %H:%M} UTC: take "
            "another load (`mmlora status --domain`), or score the date again",
        )


def _change(
    connection: sa.Connection, tables: Tables, load: Load, allowed: Sequence[LoadState], **values: object
) -> None:
    column = tables.score_loads.c
    changed = connection.execute(
        sa.update(tables.score_loads)
        .where(column.load_key == load.load_key, column.state.in_(allowed))
        .values(**values)
    )
    if changed.rowcount == 1:
        return
    current = find(connection, tables, load.load_key)
    if current.state in ("failed", "rejected"):  # its process was presumed dead: a retry begins a new load
        raise TransientError(why_closed(current))
    raise UsageError(f"load {load.load_id} is {current.state}, but must be {' or '.join(allowed)} for this")


def _load(row: sa.Row[Any]) -> Load:
    checks = None if row.checks is None else LoadChecks.from_json(row.checks)
    return Load(**{**row._mapping, "checks": checks})
