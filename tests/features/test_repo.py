from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import ContractError, UsageError
from mmlora.features.build import build
from mmlora.features.repo import FeatureRepo
from mmlora.features.views import ACTIVITY_VIEWS
from mmlora.schema import FeatureField, IdTypes, midnight

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
IDS = ["user_id", "item_id", "domain_id"]
THROUGH = date(2000, 7, 1)
AFFINITIES = ("user_affinity", "domain_affinity", "user_domain_affinity")


def times(values):
    return pa.array(values, pa.timestamp("us", tz="UTC"))


def profiles(string_ids):
    user = [f"u{i}" if string_ids else i for i in range(6)]
    item = [f"i{i}" if string_ids else i for i in range(5)]
    users = {"user_id": user, "event_timestamp": times([EPOCH] * 6), "created_timestamp": times([EPOCH] * 6)}
    users |= {
        "age": [20, 30, None, 50, 60, 70],
        "gender": list("FMFMFM"),
        "income": [float(i) for i in range(6)],
    }
    users |= {"embedding": pa.array([[float(i), 1.0] for i in range(6)], pa.list_(pa.float32()))}
    items = {"item_id": item, "event_timestamp": times([EPOCH] * 5), "created_timestamp": times([EPOCH] * 5)}
    items |= {"genres": [["drama"], ["war", "drama"], [], None, ["war"]]}
    return {"user": pa.table(users), "item": pa.table(items)}


@pytest.fixture(scope="module", params=[False, True], ids=["int ids", "string ids"])
def home(request, workspace, make_rows):
    ids = IdTypes("string", "string") if request.param else IdTypes()
    rows = make_rows(11, string_ids=request.param)
    return workspace(rows, ids=ids, through=THROUGH, profiles=profiles(request.param))


@pytest.fixture(scope="module")
def repo(home):
    return FeatureRepo(home=home)


@pytest.fixture(scope="module")
def asked(home):
    """Every interaction, shuffled, at its own time."""
    table = pq.read_table(home / "offline" / "interactions", partitioning=None)
    order = list(range(len(table)))
    random.Random(1).shuffle(order)
    return table.select(["user_id", "item_id", "domain_id", "event_timestamp"]).take(order)


def test_the_contract_names_every_field(repo, home):
    contract = repo.contract("all")
    assert [f.name for f in contract.fields[:3]] == ["user_id", "item_id", "domain_id"]
    assert {(f.view, f.kind) for f in contract.fields[:3]} == {("", "categorical")}
    kinds = {f.name: (f.dtype, f.kind) for f in contract.fields[3:]}
    assert kinds["user_profile__age"] == ("INT64", "categorical")
    assert kinds["user_profile__gender"] == ("STRING", "categorical")
    assert kinds["user_profile__income"] == ("DOUBLE", "dense")
    assert kinds["user_profile__embedding"] == ("FLOAT_LIST", "vector")
    assert kinds["item_profile__genres"] == ("STRING_LIST", "bag")
    built = [f"{view.name}__{name}" for view in ACTIVITY_VIEWS for name in view.features]
    built += [f"user_history__{name}" for name in ("items", "rows", "clicks")]
    built += [f"{view}__genres{end}" for view in AFFINITIES for end in ("", "_lift", "_rows")]
    assert [f.name for f in contract.fields[8:]] == built
    affinity = {f.name: (f.dtype, f.kind, dict(f.tags)) for f in contract.fields if f.view in AFFINITIES}
    genres = {"match": "item_profile__genres", "vocabulary": "item_profile__genres", "max_length": "32"}
    assert affinity["user_affinity__genres"] == ("STRING_LIST", "bag", genres)
    met = next(f for f in contract.fields if f.kind == "history")
    assert met.dtype == f"{contract.fields[1].dtype}_LIST"
    assert (met.tag("rows"), met.tag("clicks")) == ("user_history__rows", "user_history__clicks")
    weights = {"kind": "weights", "weights": "user_affinity__genres", "max_length": "32"}
    assert affinity["user_affinity__genres_lift"] == ("FLOAT_LIST", "weights", weights)
    assert affinity["user_affinity__genres_rows"] == ("FLOAT_LIST", "weights", weights)
    keys = {f.view: f.keys for f in contract.fields if f.view}
    assert all(set(keys[view.name]) == set(view.keys) for view in ACTIVITY_VIEWS)
    transforms = {f.name for f in contract.fields if f.tag("transform") == "log1p"}
    assert "user_activity__interactions_7d" in transforms and "user_activity__ctr_7d" not in transforms
    assert repo.contract("profiles").fields == contract.fields[:8]
    assert repo.contract("ids").fields == contract.fields[:3]
    with pytest.raises(UsageError, match="ids, profiles, all"):
        repo.contract("everything")


def test_the_contract_is_the_same_when_applied_again(repo, home):
    before = repo.contract("all").hash
    again = FeatureRepo(home=home)
    again.apply()
    assert again.contract("all").hash == before


def test_rows_are_returned_as_requested_with_features_of_2000(repo, asked):
    contract = repo.contract("all")
    found = repo.retrieve(asked, contract)
    assert found.column_names == [field.name for field in contract.fields]
    assert found.select(IDS).to_pylist() == asked.select(IDS).to_pylist()
    for view in ACTIVITY_VIEWS:
        share = 1 - found.column(f"{view.name}__{view.features[0]}").null_count / len(found)
        assert share > 0.5, view.name
    assert found.column("user_profile__gender").null_count == 0


@pytest.mark.parametrize("rows", [1, 37, 10_000])
def test_streaming_gives_the_same_rows_in_chunks(repo, asked, rows):
    some = asked.slice(0, 100)
    for group in ("ids", "all"):
        contract = repo.contract(group)
        tables = list(repo.stream(some, contract, rows=rows))
        assert [len(table) for table in tables] == [min(rows, 100 - at) for at in range(0, 100, rows)]
        whole = repo.retrieve(some, contract)
        assert pa.concat_tables(tables).cast(whole.schema).equals(whole)


def test_streaming_refuses_the_same_requests_as_retrieval(repo, asked):
    contract = repo.contract("profiles")
    field = replace(contract.fields[3], name="user_profile__shoe_size")
    with pytest.raises(ContractError, match="shoe_size"):
        list(repo.stream(asked, replace(contract, fields=(field,)), rows=10))
    with pytest.raises(UsageError, match="event_timestamp"):
        list(repo.stream(asked.select(["user_id"]), contract, rows=10))


def test_activity_equals_interactions_counted_by_hand(repo, asked, make_rows, home):
    string_ids = pa.types.is_string(asked.schema.field("user_id").type)
    versions = sorted(make_rows(11, string_ids=string_ids), key=lambda row: row.known_at)
    found = repo.retrieve(asked, repo.contract("all")).to_pylist()
    for row, features in list(zip(asked.to_pylist(), found, strict=True))[:150]:
        at = row["event_timestamp"]
        today = midnight(at.date())
        # A row's features are of its last midnight, with what had become known by its own time.
        latest = {v.key: v for v in versions if v.event_timestamp < today and v.known_at <= at}
        own = [v for v in latest.values() if v.user_id == row["user_id"]]
        week = [
            v
            for v in own
            if v.domain_id == row["domain_id"] and v.event_timestamp >= today - timedelta(days=7)
        ]
        assert (features["user_activity__interactions_ever"] or 0) == len(own)
        assert (features["user_activity__clicks_ever"] or 0) == sum(v.label for v in own)
        assert (features["user_domain_activity__clicks_7d"] or 0) == sum(v.label for v in week)


def test_only_features_with_given_keys_are_returned(repo, asked):
    contract = repo.contract("all")
    users = asked.select(["user_id", "event_timestamp"])
    found = repo.retrieve(users, contract)
    assert found.column_names == [f.name for f in contract.keyed_by(["user_id"]).fields]
    assert {name.split("__")[0] for name in found.column_names[1:]} == {
        "user_profile",
        "user_activity",
        "user_affinity",
        "user_history",
    }
    assert repo.retrieve(asked, repo.contract("ids")).to_pylist() == asked.select(IDS).to_pylist()
    with pytest.raises(UsageError, match="event_timestamp"):
        repo.retrieve(asked.select(["user_id"]), contract)


def test_ids_of_the_wrong_type_are_refused(repo, asked):
    other = pa.array(["x"]) if pa.types.is_integer(asked.schema.field("user_id").type) else pa.array([1])
    with pytest.raises(ContractError, match="user_id"):
        repo.retrieve(
            pa.table({"user_id": other, "event_timestamp": times([EPOCH])}), repo.contract("profiles")
        )


def test_a_contract_with_other_features_is_refused(repo, asked):
    contract = repo.contract("profiles")
    field = replace(contract.fields[3], name="user_profile__shoe_size")
    with pytest.raises(ContractError, match="shoe_size"):
        repo.retrieve(asked, replace(contract, fields=(field,)))


@pytest.fixture(scope="module")
def leak(workspace):
    """Two quiet users; one's click is corrected, and one's profile changes, long after."""
    ids = IdTypes()
    day = datetime(2000, 5, 1, 12, tzinfo=UTC)
    rows = [(1, 1, "a", day, day, 1), (2, 1, "a", day, day, 0)]
    users = {"user_id": [1, 2, 1], "event_timestamp": times([EPOCH, EPOCH, day + timedelta(days=3)])}
    users |= {
        "created_timestamp": times([EPOCH, EPOCH, day + timedelta(days=6)]),
        "plan": ["free", "free", "paid"],
    }
    home = workspace(rows, ids=ids, through=date(2000, 5, 20), profiles={"user": pa.table(users)})
    offline = home / "offline"
    late = {"user_id": [1, 1], "item_id": [1, 1], "domain_id": ["a", "a"]}
    late |= {"event_timestamp": times([day, day + timedelta(days=8)])}
    late |= {
        "known_at": times([day + timedelta(days=5), day + timedelta(days=8)]),
        "label": pa.array([0, 1], pa.int8()),
    }
    pq.write_table(
        pa.table(late).slice(0, 1), offline / "interactions" / "day=2000-05-01" / "correction.parquet"
    )
    (offline / "interactions" / "day=2000-05-09").mkdir()
    pq.write_table(pa.table(late).slice(1), offline / "interactions" / "day=2000-05-09" / "future.parquet")
    build(offline, through=date(2000, 5, 20), prior_ctr=0.25, prior_weight=8.0)
    return FeatureRepo(home=home), day


@pytest.mark.parametrize(
    ("days", "known", "clicks", "plan"),
    [
        (2, None, 1, "free"),  # before the correction
        (4, None, 1, "free"),  # the paid plan has begun, but nobody knew
        (6, None, 0, "paid"),  # corrected, and known
        (8, None, 0, "paid"),  # the later click is of this very moment: not before it
        (9, None, 1, "paid"),
        (2, 5, 0, "free"),  # with hindsight
        (4, 7, 0, "paid"),
        (9, 4, 1, "free"),  # with less than was known
    ],
)
def test_no_future_data_leaks(leak, days, known, clicks, plan):
    repo, day = leak
    asked = pa.table({"user_id": [1, 2], "event_timestamp": times([day + timedelta(days=days)] * 2)})
    for rows in (
        asked,
        pa.concat_tables([asked, asked.set_column(1, "event_timestamp", times([EPOCH] * 2))]),
    ):
        moment = day + timedelta(days=known) if known else None
        found = repo.retrieve(rows, repo.contract("all"), known_as_of=moment).to_pylist()
        assert found[0]["user_activity__clicks_ever"] == clicks
        assert found[0]["user_profile__plan"] == plan
        assert (found[1]["user_activity__clicks_ever"], found[1]["user_profile__plan"]) == (0, "free")


def test_user_views_become_input_and_can_be_removed(workspace, make_rows):
    home = workspace(make_rows(12), ids=IdTypes(), through=THROUGH, profiles={})
    (home / "feature_repo").mkdir()
    prices = {
        "user_id": [0, 1],
        "item_id": [0, 1],
        "event_timestamp": times([EPOCH] * 2),
        "created_timestamp": times([EPOCH] * 2),
    }
    pq.write_table(pa.table(prices | {"price": pa.array([1.5, 2.5], pa.float32())}), home / "prices.parquet")
    own = home / "feature_repo" / "prices.py"
    own.write_text(
        f"""
from feast import FeatureView, Field, FileSource
from feast.types import Float32

def views(offline, entities):
    source = FileSource(name="price", path="{home}/prices.parquet", timestamp_field="event_timestamp",
                        created_timestamp_column="created_timestamp")
    field = Field(name="price", dtype=Float32, tags={{"kind": "categorical"}})
    return [FeatureView(name="item_price", entities=[entities["item"]], schema=[field], source=source,
                        online=False, tags={{"mmlora": "input"}})]
"""
    )
    repo = FeatureRepo(home=home)
    before = repo.contract("all")
    repo.apply()
    contract = repo.contract("all")
    (field,) = set(contract.fields) - set(before.fields)
    assert (field.name, field.keys, field.kind) == ("item_price__price", ("item_id",), "categorical")
    rows = pa.table({"item_id": [1, 7, 0], "event_timestamp": times([midnight(THROUGH)] * 3)})
    assert repo.retrieve(rows, contract).column("item_price__price").to_pylist() == [2.5, None, 1.5]

    own.write_text(own.read_text().replace("entities=[", 'entities=[entities["user"], '))
    with pytest.raises(UsageError, match="item_price: is keyed by user_id and item_id together"):
        repo.apply()
    own.write_text("answer = 42\n")
    with pytest.raises(UsageError, match="doesn't define a function views"):
        repo.apply()
    own.unlink()
    repo.apply()
    assert repo.contract("all") == before
    with pytest.raises(ContractError, match="item_price"):
        repo.retrieve(rows, contract)


def test_errors_say_what_to_run_first(tmp_path, make_rows, write_interactions):
    repo = FeatureRepo(home=tmp_path)
    with pytest.raises(UsageError, match="import data first"):
        repo.apply()
    with pytest.raises(UsageError, match="import data first"):
        repo.contract("ids")
    write_interactions(tmp_path / "offline", make_rows(1), ids=IdTypes(), name="all")
    (tmp_path / "offline" / "ids.json").write_text('{"user": "int64", "item": "int64", "domain": "string"}')
    with pytest.raises(UsageError, match="mmlora features build"):
        repo.contract("all")
    repo.apply()
    rows = pa.table({"user_id": [1], "event_timestamp": times([EPOCH])})
    with pytest.raises(UsageError, match="mmlora features build"):
        repo.retrieve(rows, repo.contract("all"))


def test_feast_is_imported_lazily(tmp_path):
    (tmp_path / "offline").mkdir()
    (tmp_path / "offline" / "ids.json").write_text('{"user": "int64", "item": "int64", "domain": "string"}')
    code = (
        "import sys; from pathlib import Path; from mmlora.features import build, repo;"
        f"repo.FeatureRepo(home=Path({str(tmp_path)!r})).contract('ids');"
        "print([m for m in ('feast', 'pandas', 'torch') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_dates_and_texts_are_returned_in_the_models_form(workspace, make_rows):
    users = list(range(25))
    stamps = {name: times([EPOCH] * 25) for name in ("event_timestamp", "created_timestamp")}
    table = {
        "joined": times([datetime(2000, 5, 1 + n // 20, tzinfo=UTC) for n in users]),
        "born": [f"1990-01-{1 + n % 20:02d}" for n in users],
        "motto": [f"to be the number {n}" for n in users],
        "note": [f"n{n}" for n in users],
    }
    profiles = {"user": pa.table({"user_id": users, **stamps, **table})}
    home = workspace(make_rows(13), ids=IdTypes(), through=THROUGH, profiles=profiles)
    repo = FeatureRepo(home=home)
    contract = repo.contract("profiles")
    assert [field.name for field in contract.fields[3:]] == [
        "user_profile__joined",
        "user_profile__born",
        "user_profile__motto",
    ]
    assert [field.kind for field in contract.fields[3:]] == ["dense", "dense", "bag"]
    moments = [datetime(2000, 5, 2, 12, tzinfo=UTC), datetime(2000, 4, 1, tzinfo=UTC)]
    rows = pa.table({"user_id": [3, 4], "event_timestamp": times(moments)})
    rows = rows.append_column("item_id", pa.array([1, 1])).append_column("domain_id", pa.array(["a", "a"]))
    whole = repo.retrieve(rows, contract)
    assert whole["user_profile__joined"].to_pylist() == [1.5, None]
    assert whole["user_profile__born"].to_pylist() == [3771.5, 3739.0]
    assert [len(words) for words in whole["user_profile__motto"].to_pylist()] == [5, 5]
    assert pa.concat_tables(repo.stream(rows, contract, rows=1)).to_pylist() == whole.to_pylist()

    note = FeatureField("user_profile__note", "user_profile", ("user_id",), "STRING", "categorical")
    older = replace(contract, fields=(*contract.fields, note))
    assert repo.retrieve(rows, older)["user_profile__note"].to_pylist() == ["n3", "n4"]
    known = repo.types(older)
    assert all(known[field.name] == (field.dtype, field.keys) for field in older.fields)

    again = FeatureRepo(home=home, columns={"users.note": "categorical", "users.motto": "drop"})
    again.apply()
    assert [field.name for field in again.contract("profiles").fields[3:]] == [
        "user_profile__joined",
        "user_profile__born",
        "user_profile__note",
    ]
    assert again.retrieve(rows, contract).to_pylist() == whole.to_pylist()
