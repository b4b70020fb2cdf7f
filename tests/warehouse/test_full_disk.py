"""A real file system that is full or read-only: worth a retry, and readers keep what they have."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from mmlora.errors import TransientError, meaning_of
from mmlora.schema import IdTypes, scores_schema
from mmlora.scoring.staging import StagedWriter
from mmlora.warehouse.warehouse import Warehouse
from tests.warehouse.conftest import Desk, Row

MEGABYTES = 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a file system can't be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


@pytest.fixture(params=["sqlite", "duckdb"])
def small(request: pytest.FixtureRequest, small_disk: Path, tmp_path: Path) -> Iterator[Desk]:
    """A desk at a warehouse on the small disk; its staged files are elsewhere."""
    with Warehouse.open(f"{request.param}:///{small_disk / 'warehouse.db'}", ids=IdTypes()) as warehouse:
        yield Desk(warehouse, tmp_path / "staging")


def many(desk: Desk) -> list[Row]:
    return desk.rows(2, users=5000, items=8)


def test_a_full_disk_stops_a_publication_and_readers_keep_what_they_have(
    small: Desk, small_disk: Path
) -> None:
    small.publish(small.rows(1))
    load = small.begin()
    files = small.stage_table(load, small.table(many(small)), rows_a_file=5000)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"0" * 65_536)
            file.flush()
    with pytest.raises(TransientError):
        small.warehouse.publish(load, files)
    filler.unlink()
    assert small.seen() == small.seen_by_sql() == small.rows(1)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert small.warehouse.publish(load, files).state == "published"
    assert small.seen() == many(small)


def test_a_disk_that_becomes_read_only_is_worth_a_retry(small: Desk, small_disk: Path) -> None:
    small.publish(small.rows(1))
    load, files = small.stage(small.rows(2))
    small.warehouse.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        with pytest.raises(TransientError) as caught:
            small.warehouse.publish(load, files)
        assert caught.value.exit_code == 75
    finally:
        small.warehouse.close()
        subprocess.run(["mount", "-o", "remount,rw,size=64m", str(small_disk)], check=True)
    assert small.seen() == small.rows(1)
    assert small.warehouse.publish(load, files).state == "published"
    assert small.seen() == small.rows(2)


def test_staging_on_a_full_disk_leaves_no_part(small_disk: Path) -> None:
    desk_rows = {"user_id": list(range(400_000)), "item_id": [n * 7919 for n in range(400_000)]}
    table = pa.table(
        {**desk_rows, "domain_id": ["books"] * 400_000, "score_date": [Desk.day] * 400_000}
        | {"score": [n / 400_000 for n in range(400_000)], "position": [1] * 400_000},
        schema=scores_schema(IdTypes()),
    )
    with pytest.raises(Exception) as caught, StagedWriter(small_disk / "load", ids=IdTypes()) as writer:
        writer.write(table)
    assert isinstance(meaning_of(caught.value), TransientError)
    assert list((small_disk / "load").glob("part-*")) == []
