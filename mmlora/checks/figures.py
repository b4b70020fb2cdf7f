"""Aggregate the interactions in DuckDB to the small frame that both suites check, with one row per domain.

Only what was known by the as-of date counts: rows with an event before it and ``known_at`` no later. A row
with faulty times can't be dated, so it counts as known; otherwise the fault would hide itself.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa

from mmlora.checks.reading import open_interactions, read_ids
from mmlora.checks.thresholds import Thresholds
from mmlora.errors import DataError, UsageError
from mmlora.schema import Id, IdTypes

logger = logging.getLogger(__name__)

NO_DOMAIN = "(no domain)"
# Younger domains have no meaningful mean day to compare with: their first days are the launch.
MIN_HISTORY_DAYS = 7

_AS_OF = "getvariable('as_of')"
# A time of zero, in any time zone, is a missing time. Clocks differ by seconds and batches by minutes; an
# event known an hour before it happened has a wrong time zone.
_FUTURE = "known_at < event_timestamp - INTERVAL 1 HOUR"
_OUT_OF_RANGE = f"event_timestamp < TIMESTAMPTZ '1970-01-02 00:00:00+00' OR {_FUTURE}"

# Condition of the rows to count, by column of the frame.
FAULTS = {
    "wrong_type": "wrong_type_found IS NOT NULL",
    "null_user_id": "user_id IS NULL",
    "null_item_id": "item_id IS NULL",
    "null_domain_id": "domain_id IS NULL",
    "null_event_timestamp": "event_timestamp IS NULL",
    "null_known_at": "known_at IS NULL",
    "null_label": "label IS NULL",
    "label_not_0_or_1": "label NOT IN (-1, 0, 1)",
    "time_out_of_range": _OUT_OF_RANGE,
    "wrong_day_folder": "event_timestamp IS NOT NULL AND day IS DISTINCT FROM CAST(event_timestamp AS DATE)",
}

_VISIBLE = f"""
CREATE TEMP VIEW visible AS SELECT * FROM interactions
WHERE coalesce(known_at <= {_AS_OF}, true) AND coalesce(event_timestamp < {_AS_OF} OR {_FUTURE}, true)
"""

_FAULTS = f"""
CREATE TEMP TABLE faults AS
SELECT domain_id, min(event_timestamp) FILTER (NOT ({_OUT_OF_RANGE})) AS first_seen,
    {", ".join(f"count(*) FILTER ({rows}) AS {name}" for name, rows in FAULTS.items())},
    min(file || coalesce(' (' || wrong_type_found || ')', ''))
        FILTER ({" OR ".join(f"({rows})" for rows in FAULTS.values())}) AS first_file_at_fault
FROM visible GROUP BY domain_id
"""

_CLEAN = f"""
CREATE TEMP VIEW clean AS SELECT * FROM visible
WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND domain_id IS NOT NULL AND known_at IS NOT NULL
    AND event_timestamp < {_AS_OF}
"""

_DUPLICATES = """
CREATE TEMP TABLE duplicates AS
SELECT domain_id, sum(copies - 1)::BIGINT AS duplicate_keys FROM (
    SELECT domain_id, count(*) AS copies FROM clean
    GROUP BY domain_id, user_id, item_id, event_timestamp, known_at HAVING count(*) > 1
) GROUP BY domain_id
"""

# The latest version of each key that isn't withdrawn (label -1), in the last day and the window before it.
_RECENT = f"""
CREATE TEMP TABLE recent AS
SELECT user_id, item_id, domain_id, event_timestamp, arg_max(label, known_at) AS label FROM clean
WHERE event_timestamp >= {_AS_OF} - to_days(1 + getvariable('window_days')) GROUP BY ALL
HAVING coalesce(arg_max(label, known_at), 0) >= 0
"""

_COUNTS = f"""
CREATE TEMP TABLE counts AS
SELECT domain_id, count(*) FILTER (in_window) AS rows, count(*) FILTER (in_window AND label = 1) AS positives,
    count(DISTINCT user_id) FILTER (in_window) AS users, count(DISTINCT item_id) FILTER (in_window) AS items,
    count(*) FILTER (last_day) AS last_day_rows, count(*) FILTER (NOT last_day) AS earlier_rows
FROM (
    SELECT *, event_timestamp >= {_AS_OF} - to_days(getvariable('window_days')) AS in_window,
        event_timestamp >= {_AS_OF} - to_days(1) AS last_day FROM recent
) GROUP BY domain_id
"""

# The number of days without rows up to the as-of date, and the variation of the days before the last one.
_VOLUMES = f"""
CREATE TEMP TABLE volumes AS
SELECT domain_id, min(days_before) AS silent_days, sum(rows * rows) FILTER (days_before > 0) AS squares
FROM (
    SELECT domain_id, date_diff('day', event_timestamp, {_AS_OF}) - 1 AS days_before, count(*) AS rows
    FROM recent GROUP BY ALL
) GROUP BY domain_id
"""

# The bounds of the label rate are Wilson's at three standard deviations: five rows without a click prove
# nothing. The bound of the last day's rows is similar, but rows arrive in clumps, whose size (`spread`) is
# the ratio of the variance to the mean of the days before. The chance of silence is the probability that all
# clumps fell on the days before it.
_FRAME = f"""
WITH figures AS (
    SELECT e.domain, e.number, {", ".join(f"coalesce(f.{name}, 0) AS {name}" for name in FAULTS)},
        coalesce(d.duplicate_keys, 0) AS duplicate_keys, f.first_file_at_fault,
        coalesce(c.rows, 0) AS rows, coalesce(c.positives, 0) AS positives, coalesce(c.users, 0) AS users,
        coalesce(c.items, 0) AS items, coalesce(c.last_day_rows, 0) AS last_day_rows,
        CASE WHEN f.first_seen IS NOT NULL
            THEN least(date_diff('day', f.first_seen, {_AS_OF}) - 1, $window_days) END AS history_days,
        CASE WHEN history_days >= least({MIN_HISTORY_DAYS}, $window_days)
            THEN coalesce(c.earlier_rows, 0) / history_days END AS mean_day_rows,
        greatest(1, (v.squares / history_days - mean_day_rows ** 2) / nullif(mean_day_rows, 0)) AS spread,
        coalesce(v.silent_days, 0) AS silent_days
    FROM expected e LEFT JOIN faults f ON f.domain_id IS NOT DISTINCT FROM e.domain_id
        LEFT JOIN duplicates d ON d.domain_id = e.domain_id LEFT JOIN counts c ON c.domain_id = e.domain_id
        LEFT JOIN volumes v ON v.domain_id = e.domain_id
)
SELECT * EXCLUDE (number),
    coalesce(rows / nullif(users * items, 0), 0) AS density, positives / nullif(rows, 0) AS ctr,
    (positives + 4.5 - 3 * sqrt(positives * (1 - ctr) + 2.25)) / (rows + 9) AS ctr_at_least,
    (positives + 4.5 + 3 * sqrt(positives * (1 - ctr) + 2.25)) / (rows + 9) AS ctr_at_most,
    CASE WHEN mean_day_rows IS NOT NULL
        THEN last_day_rows / greatest(mean_day_rows, $volume_min_mean) END AS last_day_over_mean,
    CASE WHEN last_day_rows > 0
        THEN (last_day_rows + spread * (4.5 + 3 * sqrt(last_day_rows / spread + 2.25)))
            / nullif(mean_day_rows, 0) END AS last_day_under_mean,
    CASE WHEN silent_days > 0 THEN (1 - silent_days / (history_days + 1))
        ** (mean_day_rows * history_days / spread) END AS silence_chance
FROM figures ORDER BY number
"""


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
    offline: Path, *, as_of: date, thresholds: Thresholds, expected_domains: Sequence[Id]
) -> Figures:
    """Aggregate the interactions known by ``as_of`` to one row per domain.

    Args:
        offline: the offline store's folder.
        as_of: the date, 00:00 UTC, by which an interaction must have happened and be known.
        thresholds: the window and the volume floor are used here.
        expected_domains: domains that should have rows, in addition to those ever seen.

    Raises:
        DataError: a file cannot be read or lacks a column.
        UsageError: an expected domain isn't an id of the store's type.
    """
    ids = read_ids(offline)
    expected = {_parse(domain, ids) for domain in expected_domains}
    with tempfile.TemporaryDirectory(prefix="mmlora-checks-") as spill, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET temp_directory = $spill", {"spill": spill})
        connection.execute(f"SET VARIABLE as_of = TIMESTAMPTZ '{as_of} 00:00:00+00'")
        connection.execute(f"SET VARIABLE window_days = {thresholds.window_days}")
        open_interactions(connection, offline, ids)
        try:
            for statement in (_VISIBLE, _FAULTS, _CLEAN, _DUPLICATES, _RECENT, _COUNTS, _VOLUMES):
                connection.execute(statement)
        except duckdb.Error as error:  # a file's footer may be intact and its pages damaged
            raise DataError(str(offline / "interactions"), f"cannot be read to its end: {error}") from None
        seen = [row[0] for row in connection.execute("SELECT domain_id FROM faults").fetchall()]
        domains = tuple(sorted(expected.union(domain for domain in seen if domain is not None)))
        connection.register("expected", _expected(domains, ids, without_domain=None in seen))
        limits = {"window_days": thresholds.window_days, "volume_min_mean": thresholds.volume_min_mean}
        frame = connection.sql(_FRAME, params=limits).to_arrow_table()
    logger.info("%s domains as of %s", len(domains), as_of)
    return Figures(frame, domains)


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
