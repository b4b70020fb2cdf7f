"""The ASOF store against brute force in Python, and against Feast's own DuckDB store."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import ContractError, UsageError
from mmlora.features.asof import job as asof_job

START = datetime(2000, 1, 1, tzinfo=UTC)
TTL = timedelta(days=1)
OURS = "mmlora.features.asof.store.AsofOfflineStore"
REFS = ["plain:a", "plain:tags", "expiring:a", "both:b", "uncreated:a"]


def hours(rng: random.Random, most: int) -> datetime:
    return START + timedelta(hours=rng.randrange(most))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Rows of each view: (keys, event, created, value), with late rows, corrections and restated pasts."""
    rng = random.Random(3)
    folder = tmp_path_factory.mktemp("sources")
    rows = {}
    for name, keys in {"plain": 1, "both": 2, "uncreated": 1}.items():
        known = {}
        for value in range(300):
            key = tuple([rng.randrange(6), f"i{rng.randrange(3)}"][:keys])
            event = hours(rng, 100)
            created = (
                event + timedelta(hours=rng.choice([-5, 0, 0, 0, 7, 60])) if name != "uncreated" else event
            )
            known[key, event, created] = value  # what an equal (event, created) would mean nobody can say
        if name == "uncreated":
            known = {
                (k, e, e): v for k, e, v in {(k, e): (k, e, v) for (k, e, _), v in known.items()}.values()
            }
        rows[name] = [(*key, value) for key, value in known.items()]
        table = {
            "who": [key[0] for key, *_ in rows[name]],
            "item_id": [key[1] if keys == 2 else None for key, *_ in rows[name]],
            "at": pa.array([event for _, event, _, _ in rows[name]], pa.timestamp("us", tz="UTC")),
            "created": pa.array([created for _, _, created, _ in rows[name]], pa.timestamp("us", tz="UTC")),
            "raw": pa.array([float(value) for *_, value in rows[name]], pa.float32()),
            "tags": [[str(value), "x"] for *_, value in rows[name]],
        }
        (folder / name).mkdir()
        half = len(rows[name]) // 2
        pq.write_table(pa.table(table).slice(0, half), folder / name / "0.parquet")
        pq.write_table(pa.table(table).slice(half), folder / name / "1.parquet")
    return folder, rows


@pytest.fixture(scope="module")
def stores(sources, tmp_path_factory):
    """The same definitions behind our store and behind Feast's."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.data_format import ParquetFormat
    from feast.types import Array, Float32, String

    folder, _ = sources

    def make(offline):
        home = tmp_path_factory.mktemp("feast")
        config = RepoConfig(
            project="small",
            provider="local",
            registry={"registry_type": "sql", "path": f"sqlite:///{home / 'registry.db'}"},
            offline_store={"type": offline},
            online_store=None,
            entity_key_serialization_version=3,
        )
        user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
        item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)

        def view(name, source, keys, fields, **more):
            mapping = {"who": "user_id", "raw": fields[0].name}
            created = {} if source == "uncreated" else {"created_timestamp_column": "created"}
            file = FileSource(
                name=name,
                path=str(folder / source),
                file_format=ParquetFormat(),
                timestamp_field="at",
                field_mapping=mapping,
                **created,
            )
            return FeatureView(name=name, entities=keys, schema=fields, source=file, online=False, **more)

        a, b = Field(name="a", dtype=Float32), Field(name="b", dtype=Float32)
        store = FeatureStore(config=config)
        store.apply(
            [
                user,
                item,
                view("plain", "plain", [user], [a, Field(name="tags", dtype=Array(String))]),
                view("expiring", "plain", [user], [a], ttl=TTL),
                view("both", "both", [user, item], [b]),
                view("uncreated", "uncreated", [user], [a]),
            ]
        )
        return store

    return make(OURS), make("duckdb")


def oracle(rows, key, at, known, ttl=None):
    found = [
        (event, created, value)
        for own, event, created, value in ((row[:-3], *row[-3:]) for row in rows)
        if own == key and event <= at and created <= known and (ttl is None or event + ttl >= at)
    ]
    return max(found)[2] if found else None


def flat(rows):
    return {
        name: [(*key, event, created, value) for key, event, created, value in of]
        for name, of in rows.items()
    }


def expected(rows, entities, known_as_of=None):
    result = []
    for user, item, at in entities:
        known = known_as_of or at
        plain = oracle(rows["plain"], (user,), at, known)
        result.append(
            {
                "plain__a": plain,
                "plain__tags": None if plain is None else [str(plain), "x"],
                "expiring__a": oracle(rows["plain"], (user,), at, known, TTL),
                "both__b": oracle(rows["both"], (user, item), at, known),
                "uncreated__a": oracle(rows["uncreated"], (user,), at, known),
            }
        )
    return result


def ask(store, entities, known_as_of=None, **options):
    names = ["user_id", "item_id", "event_timestamp"]
    types = [pa.int64(), pa.string(), pa.timestamp("us", tz="UTC")]
    columns = zip(*entities, strict=True) if entities else [[], [], []]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, types, strict=True)], names=names)
    if known_as_of:
        table = table.replace_schema_metadata({"known_as_of": known_as_of.isoformat()})
    return store.get_historical_features(table, REFS, full_feature_names=True, **options).to_arrow()


def some_entities(seed, count, times=120):
    rng = random.Random(seed)
    # 9 and "zz" are unknown; None is nobody; repeated rows are wanted repeatedly.
    return [
        (rng.choice([*range(6), 9, None]), rng.choice(["i0", "i1", "i2", "zz", None]), hours(rng, times))
        for _ in range(count)
    ]


@pytest.mark.parametrize("known", [None, 0, 40, 90, 500])
def test_equals_brute_force_with_any_knowledge(stores, sources, known):
    rows, entities = flat(sources[1]), some_entities(1, 700)
    known_as_of = None if known is None else START + timedelta(hours=known)
    found = ask(stores[0], entities, known_as_of)
    assert [
        tuple(r.values()) for r in found.select(["user_id", "item_id", "event_timestamp"]).to_pylist()
    ] == entities
    features = [f for f in found.column_names if "__" in f]
    assert found.select(features).to_pylist() == expected(rows, entities, known_as_of)


@pytest.mark.parametrize("known", [None, 20, 500])
@pytest.mark.parametrize("at", [10, 55, 99, 130])
def test_one_time_for_all_rows_equals_brute_force(stores, sources, at, known):
    rows = flat(sources[1])
    entities = [(user, item, START + timedelta(hours=at)) for user, item, _ in some_entities(at, 60)]
    known_as_of = None if known is None else START + timedelta(hours=known)
    found = ask(stores[0], entities, known_as_of)
    assert found.select([f for f in found.column_names if "__" in f]).to_pylist() == expected(
        rows, entities, known_as_of
    )


def test_chunk_size_does_not_change_results(stores, monkeypatch):
    entities = some_entities(2, 333)
    whole = ask(stores[0], entities)
    monkeypatch.setattr(asof_job, "CHUNK_ROWS", 50)
    assert ask(stores[0], entities).equals(whole)


def test_equals_feasts_own_store(stores):
    entities = [
        row for row in dict.fromkeys(some_entities(4, 200)) if row[0] is not None and row[1] is not None
    ]
    frame = pd.DataFrame(entities, columns=["user_id", "item_id", "event_timestamp"])
    refs = [ref for ref in REFS if ref != "plain:tags"]

    def sorted_rows(store):
        job = store.get_historical_features(
            frame, refs, full_feature_names=True, filter_by_created_timestamp=True
        )
        names = ["user_id", "item_id", "event_timestamp", *(ref.replace(":", "__") for ref in refs)]
        result = job.to_df()[names]
        return result.sort_values(names[:3], ignore_index=True)

    pd.testing.assert_frame_equal(sorted_rows(stores[0]), sorted_rows(stores[1]), check_dtype=False)


def test_rows_created_later_are_hidden_by_default(stores):
    entities = some_entities(5, 100)
    assert ask(stores[0], entities).equals(ask(stores[0], entities, filter_by_created_timestamp=True))


def test_data_frames_and_sql_text_give_the_same(stores):
    entities = some_entities(6, 50)
    table = ask(stores[0], entities)
    frame = pd.DataFrame(entities, columns=["user_id", "item_id", "event_timestamp"]).astype(
        {"user_id": "Int64"}
    )
    text = ", ".join(
        f"({'NULL' if u is None else u}::BIGINT, {'NULL' if i is None else repr(i)}, TIMESTAMPTZ '{t}')"
        for u, i, t in entities
    )
    query = f"SELECT * FROM (VALUES {text}) AS t(user_id, item_id, event_timestamp)"
    for source in (frame, query):
        found = stores[0].get_historical_features(source, REFS, full_feature_names=True).to_arrow()
        assert found.select(REFS_NAMES).to_pylist() == table.select(REFS_NAMES).to_pylist()
    frame.attrs["known_as_of"] = "2000-01-02"
    found = stores[0].get_historical_features(frame, REFS, full_feature_names=True).to_arrow()
    asked = ask(stores[0], entities, datetime(2000, 1, 2, tzinfo=UTC))
    assert (
        found.select(REFS_NAMES).to_pylist()
        == asked.select(REFS_NAMES).to_pylist()
        != table.select(REFS_NAMES).to_pylist()
    )


REFS_NAMES = [ref.replace(":", "__") for ref in REFS]


def test_short_names_and_no_rows(stores):
    found = (
        stores[0]
        .get_historical_features(pa.table({"user_id": [1], "event_timestamp": [START]}), ["plain:a"])
        .to_arrow()
    )
    assert found.column_names == ["user_id", "event_timestamp", "a"]
    empty = ask(stores[0], [])
    assert len(empty) == 0 and empty.schema.field("plain__a").type == pa.float32()


def test_refuses_unsupported_requests(stores, tmp_path):
    from feast import FeatureView, Field, FileSource
    from feast.types import Float32, Int64

    store = stores[0]
    frame = pa.table({"user_id": [1], "event_timestamp": [START]})
    with pytest.raises(UsageError, match="needs item_id"):
        store.get_historical_features(frame, ["both:b"])
    with pytest.raises(UsageError, match="event_timestamp"):
        store.get_historical_features(frame.select(["user_id"]), ["plain:a"])
    with pytest.raises(UsageError, match="start_date"):
        store.get_historical_features(features=["plain:a"], start_date=START, end_date=START)
    with pytest.raises(ContractError, match="user_id is string"):
        store.get_historical_features(frame.set_column(0, "user_id", pa.array(["1"])), ["plain:a"])

    with pytest.raises(UsageError, match="twice"):
        store.get_historical_features(frame.append_column("a", pa.array([1.0])), ["plain:a"])

    user = store.get_entity("user")
    places = {
        "unknown": ("nowhere://bucket/x.parquet", UsageError, "can't be read"),
        "gone": (str(tmp_path / "none"), UsageError, "no Parquet files under"),
        "other": (str(sources_of(store) / "both"), ContractError, "has no column .*event_timestamp"),
    }
    for name, (path, kind, message) in places.items():
        source = FileSource(name=name, path=path, timestamp_field="event_timestamp")
        schema = [Field(name="a", dtype=Float32), Field(name="user_id", dtype=Int64)]
        view = FeatureView(name=name, entities=[user], schema=schema, source=source, online=False)
        store.registry.apply_feature_view(view, store.project)
        with pytest.raises(kind, match=message):
            store.get_historical_features(frame, [f"{name}:a"])


def sources_of(store):
    return Path(store.get_feature_view("plain").batch_source.path).parent
