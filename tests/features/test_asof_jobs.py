"""What the ASOF store's jobs do beside the join: streams, on-demand features, places, writing and pulling."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import ContractError, UsageError
from mmlora.features.asof import job as asof_job

START = datetime(2000, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", tz="UTC")
REFS = ["prices:price", "prices:name"]


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def rows(*items: tuple[int, float, float, float]) -> pa.Table:
    """Make rows of item, event day, created day and price."""
    item, event, created, price = zip(*items, strict=True)
    return pa.table(
        {
            "item_id": pa.array(item, pa.int64()),
            "at": pa.array(map(day, event), TIME),
            "created": pa.array(map(day, created), TIME),
            "price": pa.array(price, pa.float64()),
            "name": [f"{i}@{p}" for i, p in zip(item, price, strict=True)],
        }
    )


STORED = rows((1, 0, 0, 1.0), (1, 2, 2, 2.0), (1, 2, 4, 2.5), (2, 1, 1, 5.0))
ASKED = pa.table(
    {
        "item_id": pa.array([2, 1, 1, 3, 1], pa.int64()),
        "event_timestamp": pa.array([day(1), day(3), day(5), day(5), day(0.5)], TIME),
        "rebate": [1.0, 1.0, 2.0, 3.0, 0.5],
    }
)
PRICES = [5.0, 2.0, 2.5, None, 1.0]


@pytest.fixture
def make_store(tmp_path):
    """Return a function: path of the source, settings of the store -> a Feast store with one view."""

    def make(path, ttl=None, entityless=False, endpoint=None, online=False, **settings):
        from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
        from feast.types import Float64, Int64, String

        config = RepoConfig(
            project="small",
            provider="local",
            registry=str(tmp_path / "registry.db"),
            offline_store={"type": "mmlora.features.asof.store.AsofOfflineStore", **settings},
            online_store={"type": "sqlite", "path": str(tmp_path / "online.db")} if online else None,
            entity_key_serialization_version=3,
        )
        source = FileSource(
            name="prices",
            path=str(path),
            timestamp_field="at",
            created_timestamp_column="created",
            s3_endpoint_override=endpoint,
        )
        item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
        fields = [Field(name="price", dtype=Float64), Field(name="name", dtype=String)]
        key = [] if entityless else [Field(name="item_id", dtype=Int64)]
        view = FeatureView(
            name="prices",
            entities=[] if entityless else [item],
            schema=fields + key,
            source=source,
            ttl=ttl,
            online=online,
        )
        store = FeatureStore(config=config)
        store.registry.apply_entity(item, "small")
        store.registry.apply_feature_view(view, "small")
        return store

    return make


@pytest.fixture
def stored(tmp_path):
    pq.write_table(STORED, tmp_path / "prices.parquet")
    return tmp_path / "prices.parquet"


def prices(store, asked=ASKED, **options):
    found = store.get_historical_features(asked, REFS, **options).to_arrow()
    return found.column("price").to_pylist()


def partitioned(folder):
    for item in (1, 2):
        (folder / f"item_id={item}").mkdir(parents=True)
        part = STORED.filter(pa.compute.equal(STORED["item_id"], item)).drop_columns("item_id")
        pq.write_table(part, folder / f"item_id={item}" / "0.parquet")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "half.parquet").write_bytes(b"being written")
    return folder


def test_reads_files_folders_patterns_and_partitions(make_store, tmp_path, stored):
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(STORED.slice(0, 2), folder / "a.parquet")
    pq.write_table(STORED.slice(2), folder / "b.parquet")
    for path in (stored, folder, folder / "*.parquet", partitioned(tmp_path / "by_item"), f"file://{stored}"):
        assert prices(make_store(path)) == PRICES, path


def test_reads_and_writes_behind_an_fsspec_url(make_store):
    import fsspec

    memory = fsspec.filesystem("memory")
    with memory.open("/bucket/prices/0.parquet", "wb") as stream:
        pq.write_table(STORED, stream)
    for path in ("memory://bucket/prices", "memory://bucket/prices/0.parquet", "memory://bucket/*/*.parquet"):
        assert prices(make_store(path)) == PRICES
    store = make_store("memory://bucket/prices")
    # Feast's write_to_offline_store looks into the source by itself, and knows fewer protocols.
    view = store.get_feature_view("prices")
    store._get_provider().offline_store.offline_write_batch(store.config, view, rows((3, 4, 4, 9.0)), None)
    assert prices(store) == [5.0, 2.0, 2.5, 9.0, 1.0]


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask")), reason="no moto or s3fs"
)
def test_reads_and_writes_s3(make_store, monkeypatch, tmp_path):
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        import s3fs

        bucket = s3fs.S3FileSystem(endpoint_url=endpoint)
        bucket.mkdir("shop")
        with bucket.open("shop/prices/0.parquet", "wb") as stream:
            pq.write_table(STORED, stream)
        store = make_store("s3://shop/prices", endpoint=endpoint)
        assert prices(store) == PRICES
        store.write_to_offline_store("prices", rows((3, 4, 4, 9.0)).to_pandas())
        assert prices(store) == [5.0, 2.0, 2.5, 9.0, 1.0]
        assert prices(make_store("s3://shop/prices/0.parquet", endpoint=endpoint)) == PRICES
    finally:
        server.stop()


def test_created_times_are_respected_on_request(make_store, stored):
    store = make_store(stored, filter_by_created_timestamp="asked")
    assert prices(store) == [5.0, 2.5, 2.5, None, 1.0]
    assert prices(store, filter_by_created_timestamp=True) == PRICES


def test_views_without_entities_hold_for_every_row(make_store, tmp_path):
    table = rows((1, 0, 0, 1.0), (1, 2, 2, 2.0)).drop_columns("item_id")
    pq.write_table(table, tmp_path / "all.parquet")
    assert prices(make_store(tmp_path / "all.parquet", entityless=True)) == [1.0, 2.0, 2.0, 2.0, 1.0]
    expiring = make_store(tmp_path / "all.parquet", entityless=True, ttl=timedelta(days=1))
    assert prices(expiring) == [1.0, 2.0, None, None, 1.0]


def on_demand(store):
    from feast import Field, RequestSource
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    view = store.get_feature_view("prices")

    @on_demand_feature_view(
        sources=[view, RequestSource(name="asked", schema=[Field(name="rebate", dtype=Float64)])],
        schema=[Field(name="net", dtype=Float64), Field(name="unasked", dtype=Float64)],
    )
    def sale(inputs: pd.DataFrame) -> pd.DataFrame:
        net = inputs["price"] - inputs["rebate"]
        return pd.DataFrame({"net": net, "unasked": net})

    store.registry.apply_feature_view(sale, "small")
    return ["sale:net", "prices:price"]


@pytest.mark.parametrize("full", [False, True])
def test_on_demand_features_are_computed_and_streamed(make_store, stored, monkeypatch, full):
    store = make_store(stored)
    job = store.get_historical_features(ASKED, on_demand(store), full_feature_names=full)
    whole = job.to_arrow()
    net = whole.column("sale__net" if full else "net").to_pandas()
    np.testing.assert_array_equal(net, [4.0, 1.0, 0.5, np.nan, 0.5])
    assert not {"unasked", "sale__unasked"} & set(whole.column_names)
    monkeypatch.setattr(asof_job, "CHUNK_ROWS", 2)
    streamed = pa.Table.from_batches(job.to_batches())
    pd.testing.assert_frame_equal(streamed.to_pandas(), whole.to_pandas())
    with pytest.raises(UsageError, match="rebate"):
        store.get_historical_features(ASKED.drop_columns("rebate"), on_demand(store))


def test_streams_the_same_rows_in_the_same_order(make_store, tmp_path):
    rng = np.random.default_rng(5)
    count = 5_000
    at = np.datetime64("2000-01-01", "us") + rng.integers(0, 30 * 86_400_000_000, count).astype("m8[us]")
    table = {"item_id": rng.integers(0, 50, count), "at": pa.array(at, TIME), "created": pa.array(at, TIME)}
    table |= {"price": rng.random(count), "name": pa.array(map(str, range(count)))}
    pq.write_table(pa.table(table), tmp_path / "many.parquet")
    when = np.datetime64("2000-01-01", "us") + rng.integers(0, 30 * 86_400_000_000, 40_000).astype("m8[us]")
    asked = pa.table({"item_id": rng.integers(0, 55, 40_000), "event_timestamp": pa.array(when, TIME)})
    job = make_store(tmp_path / "many.parquet").get_historical_features(asked, REFS)
    batches = list(job.to_batches(memory_budget=64 * 2**20, batch_rows=999))
    assert max(len(batch) for batch in batches) <= 999
    assert pa.Table.from_batches(batches).equals(job.to_arrow().combine_chunks())
    with pytest.raises(UsageError, match="too small"):
        next(job.to_batches(memory_budget=1000))


def test_a_budget_bounds_the_rows_in_memory(make_store, stored, tmp_path, monkeypatch):
    big = pa.concat_tables([STORED.set_column(4, "name", pa.array(["x" * 9_000_000] * 4))])
    pq.write_table(big, tmp_path / "big.parquet")
    job = make_store(tmp_path / "big.parquet").get_historical_features(ASKED, REFS)
    with pytest.raises(UsageError, match="memory budget"):
        list(job.to_batches(memory_budget=64 * 2**20))


def test_written_rows_are_readable_and_others_unchanged(make_store, tmp_path, stored):
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(STORED, folder / "a.parquet")
    for path in (stored, folder):
        store = make_store(path)
        store.write_to_offline_store("prices", rows((3, 4, 4, 9.0)).to_pandas())
        assert prices(store) == [5.0, 2.0, 2.5, 9.0, 1.0]
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]
    with pytest.raises(UsageError, match="partitioned"):
        make_store(partitioned(tmp_path / "parts")).write_to_offline_store(
            "prices", rows((3, 4, 4, 9.0)).to_pandas()
        )
    with pytest.raises((ContractError, ValueError), match="price"):
        store.write_to_offline_store("prices", rows((3, 4, 4, 9.0)).drop_columns("price").to_pandas())


def test_pulls_the_latest_and_all_of_a_time_range(make_store, stored):
    store = make_store(stored)
    pull = store._get_provider().offline_store
    what = {
        "config": store.config,
        "data_source": store.get_feature_view("prices").batch_source,
        "join_key_columns": ["item_id"],
        "feature_name_columns": ["price"],
        "timestamp_field": "at",
        "created_timestamp_column": "created",
        "start_date": day(1),
        "end_date": day(2),
    }
    latest = pull.pull_latest_from_table_or_query(**what).to_arrow().sort_by("item_id")
    assert latest.column_names == ["item_id", "price", "at", "created"]
    assert latest.column("price").to_pylist() == [2.5, 5.0]
    everything = pull.pull_all_from_table_or_query(**what)
    assert sorted(everything.to_arrow().column("price").to_pylist()) == [2.0, 2.5, 5.0]
    what |= {"start_date": day(90), "end_date": None}
    assert pull.pull_all_from_table_or_query(**what).to_arrow().schema.names == latest.column_names


def test_materialises_into_the_online_store(make_store, stored):
    store = make_store(stored, online=True)
    store._get_provider().update_infra(
        "small", [], [store.get_feature_view("prices")], [], [store.get_entity("item")], False
    )
    store.materialize(day(0), day(30))
    found = store.get_online_features(["prices:price"], [{"item_id": 1}, {"item_id": 2}]).to_dict()
    assert found["price"] == [2.5, 5.0]


@pytest.mark.parametrize("name", ["saved.parquet", "saved"])
def test_saves_datasets_without_overwriting(make_store, stored, tmp_path, name):
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    store, storage = make_store(stored), SavedDatasetFileStorage(path=str(tmp_path / name))
    for asked in (ASKED, ASKED.slice(0, 2)):
        job = store.get_historical_features(asked, REFS)
        overwrite = asked is not ASKED
        if overwrite:
            with pytest.raises(SavedDatasetLocationAlreadyExists):
                job.persist(storage)
        job.persist(storage, allow_overwrite=overwrite)
        assert pq.read_table(tmp_path / name).equals(job.to_arrow())


def test_metadata_describes_the_request(make_store, stored):
    metadata = make_store(stored).get_historical_features(ASKED, REFS).metadata
    assert (metadata.features, metadata.keys) == (REFS, ["item_id", "rebate"])
    times = (metadata.min_event_timestamp, metadata.max_event_timestamp)
    assert times == (day(0.5), day(5)) and all(a < b for a, b in pairwise(times))
