"""Parts on disk and the content hash."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlora.content_hash import ContentHash
from mmlora.errors import UsageError
from mmlora.schema import IdTypes, scores_schema
from mmlora.scoring import staging
from mmlora.scoring.staging import StagedWriter, part_files

IDS = IdTypes("string", "int64")
SCHEMA = scores_schema(IDS)


def load(users: list[str]) -> pa.Table:
    rows = len(users)
    return pa.table(
        [users, range(rows), ["d"] * rows, [date(2024, 1, 1)] * rows, [0.5] * rows, range(1, rows + 1)],
        schema=SCHEMA,
    )


def content_hash(*tables: pa.Table) -> str:
    content = ContentHash(SCHEMA)
    for table in tables:
        content.update(table)
    return content.hexdigest()


@settings(deadline=None, max_examples=50)
@given(users=st.lists(st.text(max_size=4), min_size=1, max_size=12), cut=st.integers(0, 12))
def test_the_hash_does_not_depend_on_cuts(users: list[str], cut: int) -> None:
    table = load(users)
    pieces = [table.slice(0, cut), table.slice(cut)]
    assert content_hash(table) == content_hash(*pieces) == content_hash(pa.concat_tables(pieces))


def test_the_hash_tells_any_change() -> None:
    table = load(["ab", "c", "d"])
    null = pa.table([[None, "c", "d"], *table.columns[1:]], names=table.column_names).cast(SCHEMA_WITH_NULLS)
    variants = [
        load(["a", "bc", "d"]),  # the same bytes, cut elsewhere
        load(["c", "ab", "d"]),
        load(["ab", "c"]),
        load(["", "c", "d"]),
        null,
    ]
    hashes = {content_hash(variant) for variant in [table, *variants]}
    assert len(hashes) == len(variants) + 1


SCHEMA_WITH_NULLS = pa.schema([field.with_nullable(True) for field in SCHEMA])


def test_parts_hold_every_row_and_can_be_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "ROWS_PER_GROUP", 4)
    tables = [load([f"{batch}-{row}" for row in range(3)]) for batch in range(11)]
    with StagedWriter(tmp_path / "load", ids=IDS) as writer:
        for number, table in enumerate(tables):
            writer.write(table)
            if number % 4 == 3:
                writer.end_part()
    files = part_files(tmp_path / "load")
    assert files == writer.files
    assert [file.name for file in files] == [f"part-0000{number}.parquet" for number in range(3)]
    assert [pq.read_metadata(file).num_rows for file in files] == [12, 12, 9]
    assert pa.concat_tables([pq.read_table(file) for file in files]).equals(pa.concat_tables(tables))
    assert writer.content_hash == content_hash(pa.concat_tables(tables))

    with StagedWriter(tmp_path / "again", ids=IDS) as again:
        again.take_part(files[0])
        for table in tables[4:]:
            again.write(table)
    assert (again.content_hash, again.rows) == (writer.content_hash, writer.rows)
    assert [pq.read_metadata(file).num_rows for file in again.files] == [12, 21]
    with pytest.raises(UsageError, match="already has staged rows"):
        StagedWriter(tmp_path / "again", ids=IDS)


def test_a_broken_off_load_leaves_no_part_that_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), StagedWriter(tmp_path / "load", ids=IDS) as writer:
        writer.write(load(["a"]))
        raise RuntimeError
    assert not list((tmp_path / "load").iterdir())
