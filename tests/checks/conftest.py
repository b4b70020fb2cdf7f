"""Small made-up stores, written by hand as the offline store lies on disk."""

import json
import random
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmlora.checks.thresholds import Thresholds
from mmlora.checks.validation import ValidationReport, run_validation
from mmlora.schema import Id, IdTypes, interactions_schema

AS_OF = date(2024, 3, 1)
LIMITS = Thresholds(
    window_days=10,
    rich_min_rows=50,
    rich_min_positives=10,
    rich_min_users=5,
    rich_min_items=5,
    volume_max_ratio=5,
    volume_min_mean=20,
)
Row = dict[str, Any]


def row(
    domain: Id | None, at: datetime, *, user: Any = 1, item: Any = "i", label: Any = 0, **more: Any
) -> Row:
    given = {"user_id": user, "item_id": item, "domain_id": domain, "event_timestamp": at, "known_at": at}
    return {**given, "label": label, **more}


def days_ago(days: float) -> datetime:
    """A time before 00:00 UTC of AS_OF."""
    return datetime(AS_OF.year, AS_OF.month, AS_OF.day, tzinfo=UTC) - timedelta(days=days)


def healthy(domain: Id, *, days: int = 12, a_day: int = 30, seed: int = 0) -> list[Row]:
    """Return a rich domain's rows up to AS_OF."""
    rng = random.Random(f"{domain}{seed}")
    return [
        row(
            domain,
            days_ago(day) + timedelta(seconds=60 * place),
            user=rng.randrange(40),
            item=f"i{rng.randrange(40)}",
            label=int(rng.random() < 0.4),
        )
        for day in range(1, days + 1)
        for place in range(a_day)
    ]


class Store:
    """An offline store under a folder."""

    def __init__(self, root: Path, ids: IdTypes) -> None:
        self.root, self.ids = root, ids
        self.schema = interactions_schema(ids)
        root.mkdir(parents=True, exist_ok=True)
        (root / "ids.json").write_text(json.dumps(ids.to_dict()))

    def write(self, rows: Sequence[Row], name: str = "a", **types: pa.DataType) -> None:
        """Write rows into their days' folders; ``types`` replaces columns' types."""
        fields = [pa.field(f.name, types.get(f.name, f.type)) for f in self.schema]
        by_day: dict[str, list[Row]] = {}
        for each in rows:
            by_day.setdefault(f"{(each['event_timestamp'] or days_ago(1)):%Y-%m-%d}", []).append(each)
        for day, mine in by_day.items():
            self.drop(pa.Table.from_pylist(mine, schema=pa.schema(fields)), f"day={day}/{name}.parquet")

    def drop(self, table: pa.Table, name: str) -> None:
        path = self.root / "interactions" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)


Validate = Callable[..., ValidationReport]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "offline", IdTypes(user="int64", item="string", domain="string"))


@pytest.fixture
def validate(tmp_path: Path) -> Validate:
    def run(
        store: Store, *expected: Id, as_of: date = AS_OF, limits: Thresholds = LIMITS
    ) -> ValidationReport:
        return run_validation(
            store.root, as_of=as_of, thresholds=limits, expected_domains=expected, data_docs=tmp_path / "docs"
        )

    return run


def verdicts(report: ValidationReport) -> dict[Id, str]:
    return {each.domain_id: each.verdict for each in report.verdicts}
