"""Training sets: what they hold, and when they are built again."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.encoding.history import History
from mmlora.pipeline.data import import_tables
from mmlora.runs import retrieved, training_set
from mmlora.runs.training_set import build_training_set, read_rows
from mmlora.schema import Id, items_of
from mmlora.training.dataset import TrainingSet
from mmlora.workspace import Workspace, open_workspace

AS_OF = date(2001, 4, 1)


@pytest.fixture
def workspace(made_up_workspace: Path) -> Workspace:
    return open_workspace()


def build(workspace: Workspace, as_of: date = AS_OF, **choices: object) -> tuple[str, list[str]]:
    """Build a set; return its id and what was said to be done."""
    told: list[str] = []
    settings = workspace.settings.training.model_copy(update=choices)
    name = build_training_set(workspace, as_of, settings, lambda what, *_: told.append(what), left_out=())
    return name, told


def opened(workspace: Workspace, name: str) -> TrainingSet:
    return TrainingSet.open(workspace.training_set_folder(name))


def columns(workspace: Workspace, name: str) -> dict[str, bytes]:
    folder = workspace.training_set_folder(name)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


def bring(
    workspace: Workspace, folder: Path, event: datetime, user: Id = "u01", known: datetime | None = None
) -> None:
    """Import one more interaction."""
    row = {"user_id": [user], "item_id": [101], "domain_id": ["news"], "event_timestamp": [event]}
    row |= {"label": pa.array([1], pa.int8())} | ({"known_at": [known]} if known else {})
    path = folder / f"{event:%Y%m%d}.parquet"
    pq.write_table(pa.table(row), path)
    import_tables(path)


def test_rows_are_those_read_in_their_order_however_they_are_chunked(workspace, monkeypatch):
    whole, _ = build(workspace)
    expected = columns(workspace, whole)
    rows = read_rows(workspace, AS_OF, workspace.settings.training)
    data = opened(workspace, whole)
    assert data.label.tolist() == rows["label"].to_pylist()
    assert [data.domains[place] for place in data.domain] == rows["domain_id"].to_pylist()

    workspace.training_set_folder(whole).rename(workspace.home / "elsewhere")
    for path in (workspace.home / "training_sets" / ".features").glob("*.arrow"):
        path.unlink()
    monkeypatch.setattr(training_set, "CHUNK_ROWS", 997)
    pieces, told = build(workspace)
    assert pieces == whole and told.count("encode") == -(-len(data) // 997)
    found = columns(workspace, pieces)
    dense = found.pop("dense.npy"), expected.pop("dense.npy")
    assert found == expected
    ours, theirs = (np.frombuffer(content[128:], np.float32) for content in dense)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # a mean's last bits depend on the chunks


def test_what_came_later_makes_no_other_set(workspace, tmp_path):
    name, _ = build(workspace)
    assert build(workspace) == (name, [])
    before = datetime(2001, 3, 20, 12, tzinfo=UTC)
    bring(workspace, tmp_path, datetime(2001, 5, 1, tzinfo=UTC))  # of a later day
    bring(workspace, tmp_path, before)  # of an earlier one, but it arrives now
    again, told = build(workspace)
    assert again == name and set(told) == {"features"}  # restated for days to come

    bring(workspace, tmp_path, before + timedelta(days=1), known=before + timedelta(days=2))
    other, told = build(workspace)
    assert other != name and "encode" in told
    assert len(opened(workspace, other)) == len(opened(workspace, name)) + 1


def test_where_nothing_came_later_it_is_named_by_the_whole_store(workspace, made_up):
    name, _ = build(workspace, made_up.last_day + timedelta(days=1))
    assert opened(workspace, name).manifest.fingerprint == workspace.store.fingerprint()


def test_features_are_retrieved_once_for_sets_of_the_same_rows(workspace):
    first, told = build(workspace)
    assert "retrieve features" in told
    for choices in ({"min_count": 3}, {"split": "random"}, {"split": "random", "seed": 1}):
        name, told = build(workspace, **choices)
        assert name != first and set(told) == {"encode"}
    shared = columns(workspace, name)

    workspace.training_set_folder(name).rename(workspace.home / "elsewhere")
    for path in (workspace.home / "training_sets" / ".features").glob("*.arrow"):
        path.unlink()
    again, told = build(workspace, split="random", seed=1)
    assert again == name and "retrieve features" in told
    assert columns(workspace, again) == shared

    for choices in ({"window_days": 20}, {"label_maturity_hours": 24.0}, {"features": "profiles"}):
        assert "retrieve features" in build(workspace, **choices)[1]


def test_few_files_of_features_are_kept(workspace):
    folder = workspace.home / "training_sets" / ".features"
    for days in range(retrieved.KEPT + 2):
        build(workspace, window_days=20 + days)
        (folder / ".killed.arrow.partial").touch()
        (folder / "earlier.parquet").touch()  # as earlier versions stored them
    build(workspace, features="ids")
    assert len(list(folder.glob("*.arrow"))) == retrieved.KEPT
    build(workspace, min_count=2, window_days=20 + retrieved.KEPT)
    build(workspace, window_days=10)  # the one used last stays, not the one written last
    assert build(workspace, min_count=3, window_days=20 + retrieved.KEPT)[1].count("retrieve features") == 0
    assert not [*folder.glob("*.partial"), *folder.glob("*.parquet")]


def test_a_failed_retrieval_leaves_nothing(tmp_path):
    table = pa.table({"x": [1, 2]})

    def broken():
        yield table
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        retrieved.open_retrieved(tmp_path, "a", broken, [])
    assert not list(tmp_path.glob("[!.]*"))
    tables = retrieved.open_retrieved(tmp_path, "a", lambda: iter([table, table.slice(1)]), [])
    for _ in range(2):
        assert [found.num_rows for found in tables()] == [2, 1]


def test_another_source_of_a_view_of_ones_own_makes_another_set(workspace, tmp_path):
    (workspace.home / "feature_repo").mkdir()
    prices = tmp_path / "prices.parquet"
    epoch = pa.array([datetime(1970, 1, 1, tzinfo=UTC)] * 3, pa.timestamp("us", tz="UTC"))
    table = pa.table({"item_id": [101, 102, 103], "event_timestamp": epoch, "created_timestamp": epoch})
    pq.write_table(table.append_column("price", pa.array([1.0, 2.0, 3.0], pa.float32())), prices)
    (workspace.home / "feature_repo" / "prices.py").write_text(
        f"""
from feast import FeatureView, Field, FileSource
from feast.types import Float32

def views(offline, entities):
    source = FileSource(name="price", path="{prices}", timestamp_field="event_timestamp",
                        created_timestamp_column="created_timestamp")
    return [FeatureView(name="item_price", entities=[entities["item"]],
                        schema=[Field(name="price", dtype=Float32)], source=source, online=False,
                        tags={{"mmlora": "input"}})]
"""
    )
    workspace.feature_repo.apply()
    first, _ = build(workspace)
    assert build(workspace)[0] == first
    pq.write_table(table.append_column("price", pa.array([1.0, 2.0, 9.0], pa.float32())), prices)
    second, told = build(workspace)
    assert second != first and "retrieve features" in told
    dense = [columns(workspace, name)["dense.npy"] for name in (first, second)]
    assert dense[0] != dense[1]

    profiles, _ = build(workspace, features="profiles")  # which don't read it
    pq.write_table(table.append_column("price", pa.array([5.0, 5.0, 6.0], pa.float32())), prices)
    assert build(workspace, features="profiles")[0] == profiles


def test_a_history_is_of_the_days_before_and_training_rows_hold_none(workspace):
    data = opened(workspace, build(workspace)[0])
    rows = read_rows(workspace, AS_OF, workspace.settings.training).to_pandas()
    held = data.batch(np.arange(len(data))).vectors
    name = next(field.name for field in data.manifest.contract.fields if field.kind == "history")
    history = data.encoder.fields[name]
    assert isinstance(history, History)
    assert not held[name][np.asarray(data.split) == 0].any() and held[items_of(name)].any()

    rows["day"] = rows["event_timestamp"].dt.date
    tested = np.flatnonzero(np.asarray(data.split) == 2)[::5]
    for place in tested:
        row = rows.iloc[place]
        before = rows[(rows["user_id"] == row["user_id"]) & (rows["day"] < row["day"])]
        lists = (before["item_id"].tolist(), [1.0] * len(before), before["label"].astype(float).tolist())
        expected = history.of_users(name, *(pa.array([of]) for of in lists))
        np.testing.assert_allclose(held[name][place].numpy(), expected[0], atol=1e-5)
    assert held[name][tested].any()


def test_a_setting_leaves_the_history_out(workspace):
    contract = opened(workspace, build(workspace, item_history=False)[0]).manifest.contract
    assert not any(field.view == "user_history" for field in contract.fields)
