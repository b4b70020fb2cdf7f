"""A stored file that is gone, cut, swapped or new is noticed before anything reads it."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.data.store import OfflineStore
from mmlora.errors import DataError

NOW = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture
def stored(store, interactions):
    """A store of two days of equal size, and a profile."""
    rows = [(user, "i", "d", f"2024-02-0{day}T10:00:00Z", 0) for day in (1, 2) for user in (1, 2)]
    items = pa.table({"item_id": ["i"], "price": [1.5]})
    store.write(interactions(*rows), {"item": items}, imported_at=NOW)
    return store


def of(store, folder):
    return sorted((store.root / folder).rglob("*.parquet"))


def swap(store):
    one, two = of(store, "interactions")
    content = one.read_bytes()
    stat = two.stat()
    two.write_bytes(content + b"\0" * (stat.st_size - len(content)))
    os.truncate(two, stat.st_size)
    os.utime(two, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as rsync and cp -p leave it


def add(store):
    pq.write_table(
        pq.read_table(of(store, "interactions")[0]), of(store, "interactions")[0].with_name("x.parquet")
    )


CHANGES = {
    "interactions gone": (lambda s: of(s, "interactions")[0].unlink(), "day=2024-02-01/.* is missing"),
    "a day gone": (
        lambda s: shutil.rmtree(s.root / "interactions/day=2024-02-02"),
        "day=2024-02-02/.* is missing",
    ),
    "profiles gone": (lambda s: of(s, "profiles")[0].unlink(), "profiles/item/.* is missing"),
    "cut": (lambda s: os.truncate(of(s, "interactions")[1], 100), "has 100 bytes, and"),
    "swapped": (swap, "holds other bytes than were stored"),
    "written by hand": (add, "x.parquet was not written by an import"),
    "domains changed": (lambda s: (s.root / "domains.json").write_text("[]"), "domains.json has 2 bytes"),
    "ids gone": (lambda s: (s.root / "ids.json").unlink(), "ids.json is missing"),
    "manifest cut": (lambda s: os.truncate(s.root / "manifest.json", 9), "manifest.json can't be read"),
}


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_was_done_to_a_stored_file_is_named(stored, interactions, change, message, read_before):
    if read_before:
        OfflineStore(stored.root).ids  # noqa: B018
    change(stored)

    with pytest.raises(DataError, match=message) as caught:
        OfflineStore(stored.root).ids  # noqa: B018
    assert "mmlora data accept-files" in str(caught.value)
    with pytest.raises(DataError, match=message):
        stored.write(interactions((9, "i", "d", "2024-02-03T10:00:00Z", 0)), {}, imported_at=NOW)


def test_what_is_there_can_be_accepted_and_the_rest_imported_again(stored, interactions, current):
    before = current(stored)
    of(stored, "interactions")[0].unlink()
    os.truncate(of(stored, "interactions")[0], 100)

    wrong = OfflineStore(stored.root).accept_files()

    assert [text.partition("/")[2][:14] for text in wrong] == ["day=2024-02-01", "day=2024-02-02"]
    assert len(list((stored.root / "damaged").rglob("*.parquet"))) == 1
    rows = [(user, "i", "d", f"2024-02-0{day}T10:00:00Z", 0) for day in (1, 2) for user in (1, 2)]
    again = OfflineStore(stored.root)
    again.write(interactions(*rows), {}, imported_at=NOW, history=True)
    assert current(again) == before


def test_files_are_hashed_when_first_read_and_when_they_changed_only(stored, monkeypatch):
    hashed = []
    import mmlora.manifest as manifest

    real = manifest.record
    monkeypatch.setattr(manifest, "record", lambda path: (hashed.append(path.name), real(path))[1])
    for _ in range(2):
        OfflineStore(stored.root).ids  # noqa: B018
    assert len(hashed) == 5
    os.utime(of(stored, "interactions")[0])
    OfflineStore(stored.root).ids  # noqa: B018
    assert len(hashed) == 6


def test_a_copied_store_is_whole(stored, tmp_path):
    shutil.copytree(stored.root, tmp_path / "copy")
    assert OfflineStore(tmp_path / "copy").ids == stored.ids


def test_a_store_of_before_there_were_manifests_gets_one(stored):
    (stored.root / "manifest.json").unlink()
    OfflineStore(stored.root).ids  # noqa: B018
    assert len(json.loads((stored.root / "manifest.json").read_text())["files"]) == 5
