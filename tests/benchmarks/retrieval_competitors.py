"""The competitors of the retrieval benchmark: each answers the same question, in a process of its own.

Run as ``python retrieval_competitors.py NAME FOLDER ROWS``; prints seconds, memory and what came back.
The name ``data`` writes the folder: two views' Parquet (600k rows of users, 300k of items, 8 features
each, of which one row in ten became known late) and the entity rows of each size.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

USERS, ITEMS, DAYS = 20_000, 10_000, 30
VIEWS = {"user_stats": ("user_id", USERS), "item_stats": ("item_id", ITEMS)}
FEATURES = [f"{view}:{view[0]}{number}" for view in VIEWS for number in range(8)]
NAMES = [feature.split(":")[1] for feature in FEATURES]
START = np.datetime64("2026-01-01", "us")
TIME = pa.timestamp("us", tz="UTC")
DAY = 86_400_000_000
BUDGET = 256 * 2**20


def make_data(folder: Path, sizes: Iterable[int]) -> None:
    """Write the views, and the entity rows of each size."""
    rng = np.random.default_rng(7)
    for view, (key, count) in VIEWS.items():
        rows = count * DAYS
        event = START + (np.repeat(np.arange(DAYS), count) * DAY + rng.integers(0, DAY, rows)).astype(
            "m8[us]"
        )
        late = np.where(rng.random(rows) < 0.1, rng.integers(0, 5 * DAY, rows), 0).astype("m8[us]")
        columns = {
            key: pa.array(np.tile(rng.permutation(count), DAYS)),
            "event_timestamp": pa.array(event, TIME),
            "created_timestamp": pa.array(event + late, TIME),
        }
        columns |= {f"{view[0]}{n}": pa.array(rng.random(rows), pa.float32()) for n in range(8)}
        pq.write_table(pa.table(columns), folder / f"{view}.parquet", row_group_size=100_000)
    for rows in sizes:
        at = START + rng.integers(0, DAYS * DAY, rows).astype("m8[us]")
        entities = {"user_id": rng.integers(0, USERS, rows), "item_id": rng.integers(0, ITEMS, rows)}
        pq.write_table(
            pa.table({**entities, "event_timestamp": pa.array(at, TIME)}), folder / f"entities-{rows}.parquet"
        )


def store_of(kind: str, folder: Path) -> Any:
    """Define the two views in a Feast store of this kind."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float32

    registry = folder / f"registry-{kind.rpartition('.')[2]}.db"
    config = RepoConfig(
        project="bench",
        provider="local",
        registry={"registry_type": "sql", "path": f"sqlite:///{registry}"},
        offline_store={"type": kind},
        online_store=None,
        entity_key_serialization_version=3,
    )
    objects: list[Any] = []
    for view, (key, _) in VIEWS.items():
        entity = Entity(name=key, join_keys=[key], value_type=ValueType.INT64)
        source = FileSource(
            name=view,
            path=str(folder / f"{view}.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created_timestamp",
        )
        schema = [Field(name=f"{view[0]}{n}", dtype=Float32) for n in range(8)]
        more = {"ttl": timedelta(days=400), "online": False}
        objects += [
            entity,
            FeatureView(name=view, entities=[entity], schema=schema, source=source, **more),
        ]
    store = FeatureStore(config=config)
    if not registry.with_suffix(".done").exists():
        store.apply(objects)
        registry.with_suffix(".done").touch()
    return store


def feast(kind: str) -> Callable[[Path, pa.Table, Any], Callable[[], Iterator[pa.Table]]]:
    """Retrieve through a Feast store; its entity rows are the data frame that it wants, made beforehand."""

    def prepare(folder: Path, entities: pa.Table) -> Callable[[], Iterator[pa.Table]]:
        store, frame = store_of(kind, folder), entities.to_pandas()
        # The file store knows no cutoff on the created time.
        known = {} if kind == "file" else {"filter_by_created_timestamp": True}
        return lambda: iter([store.get_historical_features(frame, FEATURES, **known).to_arrow()])

    return prepare


def ours(folder: Path, entities: pa.Table) -> Callable[[], Iterator[pa.Table]]:
    store = store_of("mmlora.features.asof.store.AsofOfflineStore", folder)
    return lambda: iter([store.get_historical_features(entities, FEATURES).to_arrow()])


def streamed(folder: Path, entities: pa.Table) -> Callable[[], Iterator[pa.RecordBatch]]:
    store = store_of("mmlora.features.asof.store.AsofOfflineStore", folder)
    return lambda: store.get_historical_features(entities, FEATURES).to_batches(memory_budget=BUDGET)


_READY = """
SELECT * EXCLUDE (event_timestamp, created_timestamp) FROM (
    SELECT *, greatest(event_timestamp, created_timestamp) AS available FROM read_parquet('{path}')
) WINDOW line AS (PARTITION BY {key} ORDER BY available, event_timestamp, created_timestamp)
QUALIFY event_timestamp = max(event_timestamp) OVER (line ROWS UNBOUNDED PRECEDING)
    AND available IS DISTINCT FROM lead(available) OVER line
"""


def by_hand(order: str) -> Callable[[Path, pa.Table], Callable[[], Iterator[pa.Table]]]:
    """One query with an ASOF join a view, as somebody who knows DuckDB would write it for these two views."""

    def prepare(folder: Path, entities: pa.Table) -> Callable[[], Iterator[pa.Table]]:
        import duckdb

        def run() -> Iterator[pa.Table]:
            with duckdb.connect() as connection:
                connection.execute("SET TimeZone = 'UTC'")
                numbered = entities.append_column("row", pa.array(np.arange(len(entities))))
                connection.register("asked", numbered if order else entities)
                if not order:
                    connection.execute("SET preserve_insertion_order = false")
                ready = {v: _READY.format(path=folder / f"{v}.parquet", key=k) for v, (k, _) in VIEWS.items()}
                users = ", ".join(f"u.u{n}" for n in range(8))
                items = ", ".join(f"i.i{n}" for n in range(8))
                yield connection.sql(
                    f"SELECT asked.*, {users}, {items} FROM asked "
                    f"ASOF LEFT JOIN ({ready['user_stats']}) AS u "
                    "ON asked.user_id = u.user_id AND asked.event_timestamp >= u.available "
                    f"ASOF LEFT JOIN ({ready['item_stats']}) AS i "
                    "ON asked.item_id = i.item_id AND asked.event_timestamp >= i.available" + order
                ).to_arrow_table()

        return run

    return prepare


COMPETITORS: dict[str, Callable[[Path, pa.Table], Callable[[], Iterator[Any]]]] = {
    "Feast duckdb": feast("duckdb"),
    "Feast file": feast("file"),
    "by hand": by_hand(""),
    "by hand, ordered": by_hand(" ORDER BY row"),
    "ours": ours,
    "ours, streamed": streamed,
}


def memory(what: str) -> int:
    """Return this process's memory, as Linux counts it (``VmRSS`` now, ``VmHWM`` at most)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def _clocks() -> np.ndarray:
    """Wall clock and processor seconds: a busy machine stretches the first, hardly the second."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    name, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if name == "data":
        make_data(folder, [int(size) for size in sys.argv[3:]])
        return
    prepare = COMPETITORS[name]
    entities = pq.read_table(folder / f"entities-{rows}.parquet")
    # A few rows first: what is imported and set up once is nobody's speed.
    for _ in prepare(folder, entities.slice(0, 100))():
        pass
    run = prepare(folder, entities)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts here
    seen, sums, ordered = 0, np.zeros(2 * len(NAMES)), True
    spent, clocks = np.zeros(2), _clocks()
    for part in run():
        spent += _clocks() - clocks
        seen += len(part)
        columns = [part.column(feature) for feature in NAMES]
        sums += [pc.sum(c.cast(pa.float64())).as_py() or 0 for c in columns] + [c.null_count for c in columns]
        same = entities.column("event_timestamp").slice(seen - len(part), len(part))
        found = part.column("event_timestamp").cast(TIME)
        ordered = (
            ordered and len(same) == len(part) and pc.all(pc.equal(found, same.combine_chunks())).as_py()
        )
        clocks = _clocks()
    spent += _clocks() - clocks
    answer = {"seconds": spent[0], "cpu": spent[1], "before": before, "peak": memory("VmHWM"), "rows": seen}
    print(json.dumps({**answer, "ordered": bool(ordered), "sums": [round(x, 2) for x in sums.tolist()]}))


if __name__ == "__main__":
    main()
