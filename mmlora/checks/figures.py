"""Aggregate the interactions in DuckDB to the small frame that both suites check, with one row per domain.

Only what was known by the as-of date counts: rows with an event before it and ``known_at`` no later. A row
with faulty times can't be dated, so it counts as known; otherwise the fault would hide itself.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from mmlora.checks.figure_queries import FRAME, STATEMENTS
from mmlora.checks.reading import open_interactions, read_ids
from mmlora.checks.thresholds import Thresholds
from mmlora.duck import in_memory
from mmlora.errors import DataError, UsageError
from mmlora.schema import Id, IdTypes

logger = logging.getLogger(__name__)

NO_DOMAIN = "(no domain)"


@dataclass(frozen=True)
class Figures:
    """The frame and its domains.

    Attributes:
        frame: one row per expected or seen domain, with its id as text in ``domain``; and one row for
            interactions without a domain, if there are any.
        domains: the ids in the frame's order, except the row without a domain.
    """

    frame: pa.Table
    domains: tuple[Id, ...]


def compute_figures(
    offline: Path,
    *,
    as_of: date,
    thresholds: Thresholds,
    expected_domains: Sequence[Id],
    empty_days: Collection[date] = (),
    labels_mature: bool = True,
) -> Figures:
    """Aggregate the interactions known by ``as_of`` to one row per domain.

    Args:
        offline: the offline store's folder.
        as_of: the date, 00:00 UTC, by which an interaction must have happened and be known.
        thresholds: the window and the volume floor are used here.
        expected_domains: domains that should have rows, in addition to those ever seen.
        empty_days: days that may have few rows or none.
        labels_mature: whether the last day's labels are final; otherwise its label rate isn't compared.

    Raises:
        DataError: a file cannot be read or lacks a column.
        UsageError: an expected domain isn't an id of the store's type.
    """
    ids = read_ids(offline)
    expected = {_parse(domain, ids) for domain in expected_domains}
    with in_memory(offline / ".spill") as connection:
        connection.execute(f"SET VARIABLE as_of = TIMESTAMPTZ '{as_of} 00:00:00+00'")
        connection.execute(f"SET VARIABLE window_days = {thresholds.window_days}")
        open_interactions(connection, offline, ids)
        try:
            for statement in STATEMENTS:
                connection.execute(statement)
        except duckdb.Error as error:  # a file's footer may be intact and its pages damaged
            raise DataError(str(offline / "interactions"), f"cannot be read to its end: {error}") from None
        seen = [row[0] for row in connection.execute("SELECT domain_id FROM faults").fetchall()]
        domains = tuple(sorted(expected.union(domain for domain in seen if domain is not None)))
        connection.register("expected", _expected(domains, ids, without_domain=None in seen))
        limits = {
            "window_days": thresholds.window_days,
            "volume_min_mean": thresholds.volume_min_mean,
            "declared_empty": as_of - timedelta(days=1) in empty_days,
            "labels_mature": labels_mature,
        }
        frame = connection.sql(f"SELECT * EXCLUDE (last_day), unnest(last_day) FROM ({FRAME})", params=limits)
        table = frame.to_arrow_table()
    logger.info("%s domains as of %s", len(domains), as_of)
    return Figures(table, domains)


def _parse(domain: Id, ids: IdTypes) -> Id:
    try:
        return ids.parse("domain", domain)
    except ValueError:
        raise UsageError(
            f"expected domain {domain!r} is not {ids.domain}, as the store's domains are"
        ) from None


def _expected(domains: tuple[Id, ...], ids: IdTypes, *, without_domain: bool) -> pa.Table:
    nulls = [None] if without_domain else []
    names = [*map(str, domains), *(NO_DOMAIN for _ in nulls)]
    return pa.table(
        {
            "domain": pa.array(names, pa.string()),
            "domain_id": pa.array([*domains, *nulls], ids.arrow("domain")),
            "number": range(len(names)),
        }
    )
