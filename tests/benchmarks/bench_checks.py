"""The checks of the interactions over many rows: prints the seconds and the peak memory.

The store is made up: 100 domains of very different sizes, a million users, a hundred thousand items, a day's
rows in each file. Every row is read, and the last 29 days are compared with each other.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import duckdb

from mmlora.checks.figures import compute_figures
from mmlora.checks.thresholds import Thresholds

AS_OF = date(2026, 4, 11)
ROWS = """
COPY (
    SELECT (random() ** 2 * 1000000)::BIGINT AS user_id, (random() ** 3 * 100000)::BIGINT AS item_id,
        'd' || (random() ** 2 * 100)::INT AS domain_id, moment::TIMESTAMPTZ AS event_timestamp,
        (moment + INTERVAL 5 MINUTE)::TIMESTAMPTZ AS known_at, (random() < 0.1)::TINYINT AS label
    FROM (
        SELECT $day::TIMESTAMP + to_microseconds((random() * 86000000000)::BIGINT) AS moment FROM range($rows)
    ) ORDER BY domain_id
) TO '{file}' (FORMAT parquet)
"""


def make_store(offline: Path, days: int, rows: int) -> None:
    (offline / "interactions").mkdir(parents=True)
    (offline / "ids.json").write_text('{"user": "int64", "item": "int64", "domain": "string"}')
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for number in range(1, days + 1):
            day = AS_OF - timedelta(days=number)
            folder = offline / "interactions" / f"day={day}"
            folder.mkdir()
            file = folder / "rows.parquet"
            connection.execute(ROWS.format(file=file), {"day": day, "rows": rows // days})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--days", type=int, default=365)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder), options.days, options.rows)
        began = time.perf_counter()
        figures = compute_figures(Path(folder), as_of=AS_OF, thresholds=Thresholds(), expected_domains=())
        seconds = time.perf_counter() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{options.rows:,} rows, {figures.frame.num_rows} domains: {seconds:.1f} s, {memory:.1f} GB at most"
    )


if __name__ == "__main__":
    main()
