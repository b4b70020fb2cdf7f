"""What a day's features cost beside a full build, over histories of growing length; prints a Markdown table.

Made-up interactions with the same number of rows a day: users come and stay for some weeks, items and domains
remain, and items have a category, tags and a vector. Features are built through the day before the last, and
then for the last. Seconds are of processor time, of all threads.
``make bench BENCH=features ARGS="--rows 250000 1000000"``.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from mmlora.features.build import build

FIRST = date(2024, 1, 1)
ITEMS, DOMAINS = 5_000, 8

INTERACTIONS = """
COPY (
    SELECT (day * {arrivals} + random() * {arrivals} * {stay})::BIGINT AS user_id,
           ({items} * random() ** 2)::BIGINT AS item_id,
           'domain' || (random() * {domains})::INTEGER AS domain_id,
           event_timestamp, event_timestamp AS known_at, (random() < 0.2)::TINYINT AS label,
           strftime(event_timestamp, '%Y-%m-%d') AS day
    FROM (
        SELECT day, (DATE '{first}' + day::INTEGER)::TIMESTAMPTZ
               + to_microseconds((random() * 86399e6)::BIGINT) AS event_timestamp
        FROM range({days}) AS days(day), range({daily})
    )
) TO '{target}' (FORMAT parquet, PARTITION_BY (day))
"""
PROFILES = """
COPY (
    SELECT range AS item_id, TIMESTAMPTZ '1970-01-01 00:00:00+00' AS event_timestamp,
           TIMESTAMPTZ '1970-01-01 00:00:00+00' AS created_timestamp, 'category' || range % 40 AS category,
           ['tag' || range % 90, 'tag' || range % 70] AS tags,
           [random()::FLOAT, random()::FLOAT, random()::FLOAT, random()::FLOAT] AS look
    FROM range({items} + 1)
) TO '{target}' (FORMAT parquet)
"""


def make_store(offline: Path, days: int, options: argparse.Namespace) -> None:
    (offline / "profiles" / "item").mkdir(parents=True)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SELECT setseed(0.5)")
        placeholders: dict[str, Any] = {
            "arrivals": options.arrivals,
            "stay": options.stay,
            "items": ITEMS,
            "domains": DOMAINS - 1,
            "first": FIRST,
            "days": days,
            "daily": options.daily,
        }
        connection.execute(INTERACTIONS.format(target=offline / "interactions", **placeholders))
        items = offline / "profiles" / "item" / "0.parquet"
        connection.execute(PROFILES.format(target=items, items=ITEMS))


def processor_seconds(work: Callable[[], object]) -> float:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return usage.ru_utime + usage.ru_stime

    began = used()
    work()
    return used() - began


def measure(rows: int, options: argparse.Namespace) -> str:
    days = rows // options.daily
    last = FIRST + timedelta(days=days)
    with tempfile.TemporaryDirectory() as folder:
        offline = Path(folder)
        make_store(offline, days, options)
        full = processor_seconds(lambda: build(offline, through=last - timedelta(days=1)))
        reports: list[Any] = []
        day = processor_seconds(lambda: reports.append(build(offline, through=last)))
        assert reports[0].since == last - timedelta(days=1), reports[0].reason
        written = sum(reports[0].rows.values())
    return f"| {rows:,} | {days} | {full:.1f} | {day:.2f} | {day / full:.1%} | {written:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000, 4_000_000])
    parser.add_argument("--daily", type=int, default=5_000, help="rows a day")
    parser.add_argument("--arrivals", type=int, default=100, help="new users a day")
    parser.add_argument("--stay", type=int, default=40, help="days for which a user stays")
    options = parser.parse_args()
    print("| rows | days | full build, s | the day, s | of the full build | rows written for the day |")
    print("|---|---|---|---|---|---|")
    for rows in options.rows:
        print(measure(rows, options), flush=True)


if __name__ == "__main__":
    main()
