"""Feature views of a user's own: every fault is named when they are applied, and none stays for scoring."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.errors import UsageError
from mmlora.features.repo import FeatureRepo
from mmlora.schema import IdTypes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HEAD = """
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Bytes, Float32, Int64, String, UnixTimestamp

shop = Entity(name="shop", join_keys=["sku"], value_type=ValueType.STRING)

def source(path, event="event_timestamp", created="created_timestamp", name=None, **more):
    return FileSource(name=name or path, path=f"{HOME}/{path}.parquet", timestamp_field=event,
                      created_timestamp_column=created, **more)

def view(name, of, fields, entities, tag="input"):
    schema = [Field(name=n, dtype=t, tags=tags) for n, t, tags in fields]
    return FeatureView(name=name, entities=entities, schema=schema, source=of, online=False,
                       tags={"mmlora": tag} if tag else {})

def views(offline, entities):
    user, item, domain = (entities[name] for name in ("user", "item", "domain"))
    return [
"""


@pytest.fixture(scope="module")
def home(workspace, make_rows) -> Path:
    made: Path = workspace(make_rows(12), ids=IdTypes(), through=date(2000, 6, 1), profiles={})
    times = pa.array([EPOCH] * 2, pa.timestamp("us", tz="UTC"))
    rows = {
        "item_id": [0, 1],
        "user_id": [0, 1],
        "sku": ["a", "b"],
        "event_timestamp": times,
        "created_timestamp": times,
        "written": ["2000-05-01", "2000-05-02 10:00:00"],
        "unwritten": ["2000-05-01", "first of May"],
        "unknown": pa.array([EPOCH, None], times.type),
        "epoch": [0, 1],
        "price": pa.array([1.5, 2.5], pa.float32()),
        "count": [1, 2],
        "whole": [1.0, None],
        "digits": ["1", "2"],
        "words": [["a"], ["b", "c"]],
        "vector": [[1.0, 2.0], [3.0, 4.0]],
        "joined": times,
    }
    pq.write_table(pa.table(rows), made / "items.parquet")
    (made / "broken.parquet").write_bytes(b"not Parquet")
    (made / "feature_repo").mkdir()
    return made


def define(home: Path, *views: str) -> FeatureRepo:
    text = HEAD.replace("{HOME}", str(home)) + ",\n".join(f"        {view}" for view in views) + "]\n"
    (home / "feature_repo" / "own.py").write_text(text)
    return FeatureRepo(home=home)


FAULTS = {
    "view('v', source('items', 'happened'), [('price', Float32, {})], [item])": (
        "has no column happened; it has"
    ),
    "view('v', source('items', created='arrived'), [('price', Float32, {})], [item])": "no column arrived;",
    "view('v', source('items', ''), [('price', Float32, {})], [item])": "no timestamp_field",
    "view('v', source('items'), [('cost', Float32, {}), ('tax', Float32, {})], [item])": (
        "no column cost, tax;"
    ),
    "view('v', source('items'), [('price', Float32, {})], [domain])": "no column domain_id;",
    "view('v', source('nowhere'), [('price', Float32, {})], [item])": "no Parquet files under",
    "view('v', source('broken'), [('price', Float32, {})], [item])": "can't be read as Parquet",
    "view('v', source('items', field_mapping={'sku': 'item_id'}), [('price', Float32, {})], [item])": (
        "column sku is string, but the imported item_id is int64"
    ),
    "view('v', source('items', 'epoch'), [('price', Float32, {})], [item])": (
        "column epoch is int64, not a time"
    ),
    "view('v', source('items', 'unwritten'), [('price', Float32, {})], [item])": "(first: 'first of May')",
    "view('v', source('items', created='unknown'), [('price', Float32, {})], [item])": (
        "column unknown has no time in 1 rows"
    ),
    "view('v', source('items'), [('sku', Float32, {})], [item])": (
        "field sku is Float32, but its column string"
    ),
    "view('v', source('items'), [('price', Int64, {})], [item])": (
        "field price is Int64, but its column float"
    ),
    "view('v', source('items'), [('price', Array(Float32), {})], [item])": "field price is Array(Float32)",
    "view('v', source('items'), [('words', String, {})], [item])": "field words is String",
    "view('v', source('items'), [('words', Array(Float32), {})], [item])": "field words is Array(Float32)",
    "view('v', source('items'), [('sku', UnixTimestamp, {})], [item])": "field sku is UnixTimestamp",
    "view('v', source('items'), [('sku', Bytes, {})], [item])": "types with an encoding are",
    "view('v', source('items'), [('sku', String, {'kind': 'dense'})], [item])": "is encoded as a number",
    "view('v', source('items'), [('price', Float32, {'kind': 'number'})], [item])": "has kind number",
    "view('v', source('items'), [('price', Float32, {'transform': 'sqrt'})], [item])": "valid are log, log1p",
    "view('v', source('items'), [('words', Array(String), {'max_length': 'ten'})], [item])": (
        "tag max_length is 'ten'"
    ),
    "view('v', source('items'), [('words', Array(String), {'match': 'items__tags'})], [user])": (
        "tag match names 'items__tags', which is not a field of a view"
    ),
    "view('v', source('items'), [], [item])": "has no fields",
    "view('v', source('items'), [('price', Float32, {})], [user, item])": (
        "keyed by user_id and item_id together"
    ),
    "view('v', source('items'), [('price', Float32, {})], [])": "it has no entity; valid are",
    "view('v', source('items'), [('price', Float32, {})], [shop])": "it has entity shop; valid are",
    "view('v', source('items'), [('price', Float32, {})], [item], 'inputs')": "tag mmlora is 'inputs'",
    "view('item_activity', source('items'), [('price', Float32, {})], [item])": "are named item_activity",
    "view('v', source('items', name='Item_Activity'), [('price', Float32, {})], [item])": (
        "two data sources are named Item_Activity"
    ),
    "view('v', source('items', 'happened'), [('price', Float32, {})], [item], None)": (
        "has no column happened"
    ),
}


@pytest.mark.parametrize("view", FAULTS)
def test_applying_definitions_names_a_fault(home: Path, view: str) -> None:
    with pytest.raises(UsageError) as caught:
        define(home, view).apply()
    assert FAULTS[view] in str(caught.value)
    assert str(home / "feature_repo" / "own.py") in str(caught.value) or "are named" in str(caught.value)


def test_all_faults_of_all_files_are_reported_and_nothing_is_applied(home: Path) -> None:
    (home / "feature_repo" / "own.py").unlink(missing_ok=True)
    repo = FeatureRepo(home=home)
    repo.apply()
    before = repo.contract("all")
    views = [view.replace("'v'", f"'v{n}'") for n, view in enumerate(FAULTS)]
    repo = define(home, *views)
    others = {"nothing": "answer = 42", "syntax": "def views(:", "raises": "def views(a, b):\n    1 / 0"}
    others |= {"none": "def views(a, b): pass", "strange": "def views(a, b): return [1]"}
    for name, text in others.items():
        (home / "feature_repo" / f"{name}.py").write_text(text)
    with pytest.raises(UsageError) as caught:
        repo.apply()
    for name in others:
        (home / "feature_repo" / f"{name}.py").unlink()
    said = str(caught.value)
    assert [fault for fault in FAULTS.values() if fault not in said] == []
    for fault in (
        "nothing.py: it doesn't define a function views",
        "syntax.py: SyntaxError in line 1",
        "raises.py: ZeroDivisionError in line 2: division by zero",
        "none.py: views() returned NoneType",
        "strange.py: views() returned a list with int in it",
    ):
        assert fault in said
    assert FeatureRepo(home=home).contract("all") == before


def test_valid_definitions_are_accepted(home: Path) -> None:
    fields = [
        ("price", "Float32", {}),
        ("count", "Float32", {}),
        ("whole", "Int64", {}),
        ("digits", "Int64", {}),
        ("words", "Array(String)", {"max_length": "2"}),
        ("vector", "Array(Float32)", {}),
        ("joined", "UnixTimestamp", {}),
        ("written", "String", {"kind": "dense", "transform": "days_since", "format": "iso"}),
        ("sku", "String", {"kind": "bag", "transform": "words"}),
    ]
    schema = "[" + ", ".join(f"('{name}', {kind}, {tags})" for name, kind, tags in fields) + "]"
    repo = define(
        home,
        f"view('own', source('items', 'written', ''), {schema}, [item])",
        "view('others', source('items', name='other'), [('price', Float32, {})], [user, item], None)",
    )
    repo.apply()
    names = [field.name for field in repo.contract("all").fields]
    assert [name for name in names if name.startswith("own__")] == [f"own__{name}" for name, *_ in fields]
    assert not any(name.startswith("others__") for name in names)
    rows = pa.table({"item_id": [1], "event_timestamp": pa.array([datetime(2001, 1, 1, tzinfo=UTC)])})
    found = repo.retrieve(rows, repo.contract("all").keyed_by(["item_id"])).to_pylist()[0]
    assert (found["own__price"], found["own__words"]) == (2.5, ["b", "c"])
