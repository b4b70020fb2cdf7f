"""Which files of features count: those of one build, as they were written, in this workspace."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from mmlora import manifest
from mmlora.errors import DataError
from mmlora.features.build import build
from mmlora.features.built import built_files, snapshot
from mmlora.features.plan import BuildState
from mmlora.features.repo import FeatureRepo
from mmlora.schema import IdTypes

THROUGH = date(2000, 6, 1)
IDS = IdTypes()


@pytest.fixture
def home(workspace, make_rows) -> Path:
    items = pa.table(
        {
            "item_id": pa.array(range(5)),
            "event_timestamp": pa.array([datetime(2000, 4, 1, tzinfo=UTC)] * 5, pa.timestamp("us", "UTC")),
            "created_timestamp": pa.array([datetime(2000, 4, 1, tzinfo=UTC)] * 5, pa.timestamp("us", "UTC")),
            "size": [1.0, 2.0, 3.5, 4.0, 9.0],
        }
    )
    return workspace(make_rows(3, days=20), ids=IDS, through=THROUGH, profiles={"item": items})


def entities() -> pa.Table:
    at = pa.array([datetime(2000, 5, 25, tzinfo=UTC)] * 6, pa.timestamp("us", "UTC"))
    return pa.table({"user_id": pa.array(range(6)), "event_timestamp": at})


def features(home: Path) -> pa.Table:
    repo = FeatureRepo(home=home)
    return repo.retrieve(entities(), repo.contract("all"))


def rebuild(home: Path) -> None:
    """Build all anew, of other values."""
    report = build(home / "offline", through=THROUGH, prior_ctr=0.9, prior_weight=8.0)
    assert report.since is None


def first_file(home: Path) -> Path:
    return Path(built_files(home / "offline" / "features" / "user_activity")[0])


def test_a_full_rebuild_does_not_disturb_concurrent_reads(home):
    before = features(home)
    with snapshot():
        repo = FeatureRepo(home=home)
        assert repo.retrieve(entities(), repo.contract("all")).equals(before)
        rebuild(home)
        assert repo.retrieve(entities(), repo.contract("all")).equals(before)
    assert not features(home).equals(before)


def test_unused_files_are_removed_a_day_later(home):
    old, folder = first_file(home), home / "offline" / "features"
    rebuild(home)
    assert old.exists() and first_file(home) != old
    state = BuildState.load(folder)
    long_ago = {path: moment - 2 * 86_400 for path, moment in state.retired.items()}
    BuildState(**{**state.__dict__, "retired": long_ago}).save(folder)
    rebuild_again = build(home / "offline", through=THROUGH, prior_ctr=0.1, prior_weight=8.0)
    assert rebuild_again.since is None and not old.exists()


def test_built_files_are_hashed_once(home, monkeypatch):
    features(home)
    monkeypatch.setattr(manifest, "record", lambda path: pytest.fail(f"{path} is hashed again"))
    features(home)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: os.truncate(path, 50), "has 50 bytes"),
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "holds other bytes"),
    ],
)
def test_a_changed_file_is_refused_and_rebuilt(home, change, message):
    before = features(home)
    change(first_file(home))

    with pytest.raises(DataError, match=f"user_activity/.* {message}.*\n.*mmlora features build"):
        features(home)
    report = build(home / "offline", through=THROUGH, prior_ctr=0.25, prior_weight=8.0)
    assert report.reason == "built files are missing or changed"
    assert features(home).equals(before)


def test_a_copied_workspace_reads_its_own_files(home, tmp_path):
    before = features(home)
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    assert features(copy).equals(before)
    rebuild(copy)
    assert features(home).equals(before)
    assert not features(copy).equals(before)
    moved = home.rename(tmp_path / "moved")
    shutil.rmtree(copy)
    assert features(moved).equals(before)
    assert str(home) not in (moved / "feast" / "feature_store.yaml").read_text()
