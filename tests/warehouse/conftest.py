"""A warehouse of each kind, and a desk to stage made-up loads and to look at what readers see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.content_hash import ContentHash
from mmlora.load_checks import AuditCheck, LoadChecks
from mmlora.schema import Id, IdTypes, scores_schema
from mmlora.warehouse.loads import Load
from mmlora.warehouse.warehouse import Warehouse

Row = tuple[Id, Id, float, int]
AUDITED = LoadChecks(users=3, audit=(AuditCheck("schema", True, "1 files"),))


class Desk:
    """Works on one warehouse, on one domain and date unless told otherwise."""

    day = date(2000, 12, 31)
    domain: Id = "books"

    def __init__(self, warehouse: Warehouse, folder: Path) -> None:
        self.warehouse = warehouse
        self.folder = folder

    def rows(self, version: int, users: int = 3, items: int = 4) -> list[Row]:
        """Made-up scores, different for each version; in a reader's order."""
        return [
            (user, item, version / 4 + item % 16 / 64, item + 1)
            for user in range(users)
            for item in range(items)
        ]

    def table(self, rows: Sequence[Row], domain: Id | None = None, day: date | None = None) -> pa.Table:
        columns: Any = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
        user, item, score, position = columns
        return pa.table(
            {
                "user_id": user,
                "item_id": item,
                "domain_id": [domain or self.domain] * len(rows),
                "score_date": [day or self.day] * len(rows),
                "score": score,
                "position": position,
            },
            schema=scores_schema(self.warehouse.ids),
        )

    def begin(self, domain: Id | None = None, day: date | None = None, **options: Any) -> Load:
        return self.warehouse.begin_load(
            domain or self.domain, day or self.day, model_version="v1", contract_hash="c0", **options
        )

    def write(self, load: Load, table: pa.Table, rows_a_file: int = 5) -> list[Path]:
        """Stage a table in small files."""
        folder = self.folder / load.load_id
        folder.mkdir(parents=True)
        files = []
        for number, start in enumerate(range(0, max(table.num_rows, 1), rows_a_file)):
            files.append(folder / f"part-{number:05}.parquet")
            pq.write_table(table.slice(start, rows_a_file), files[-1])
        return files

    def stage(
        self, rows: Sequence[Row], domain: Id | None = None, day: date | None = None
    ) -> tuple[Load, list[Path]]:
        load = self.begin(domain, day)
        table = self.table(rows, domain, day)
        return load, self.stage_table(load, table)

    def stage_table(self, load: Load, table: pa.Table, **options: int) -> list[Path]:
        """Stage a table, as the audit sees it."""
        files, content = self.write(load, table, **options), ContentHash(table.schema)
        content.update(table)
        self.warehouse.mark_staged(
            load, rows=table.num_rows, content_hash=content.hexdigest(), checks=AUDITED
        )
        return files

    def publish(self, rows: Sequence[Row], domain: Id | None = None, day: date | None = None) -> Load:
        return self.warehouse.publish(*self.stage(rows, domain, day))

    def seen(self, domain: Id | None = None, day: date | None = None, **options: Any) -> list[Row]:
        """What a reader gets through Python."""
        reader = self.warehouse.read(domain or self.domain, score_date=day or self.day, **options)
        table = reader.read_all()
        names = ("user_id", "item_id", "score", "position")
        return list(zip(*(table[name].to_pylist() for name in names), strict=True))

    def seen_by_sql(self, view: str = "scores_published") -> list[Row]:
        """What a ranking job's own SQL gets."""
        return self.sql(f"SELECT user_id, item_id, score, position FROM {view} ORDER BY 1, 4")

    def sql(self, text: str) -> list[Any]:
        with self.warehouse.database.writing() as connection:
            result = connection.exec_driver_sql(text)
            return [tuple(row) for row in result] if result.returns_rows else []


@pytest.fixture(params=["sqlite", "duckdb", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database of each kind."""
    if request.param != "postgresql":
        return f"{request.param}:///{tmp_path / 'folder' / 'warehouse.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def warehouse(url: str) -> Iterator[Warehouse]:
    with Warehouse.open(url, ids=IdTypes()) as opened:
        yield opened


@pytest.fixture
def desk(warehouse: Warehouse, tmp_path: Path) -> Desk:
    return Desk(warehouse, tmp_path / "staging")


@pytest.fixture
def text_desk(url: str, tmp_path: Path) -> Iterator[Desk]:
    """A desk at a warehouse whose ids are all text."""
    with Warehouse.open(url, ids=IdTypes("string", "string", "string")) as opened:
        yield Desk(opened, tmp_path / "staging")
