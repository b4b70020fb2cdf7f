"""Made-up tables, and the store's current interactions read as every other room reads them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from mmlora.data.store import OfflineStore
from mmlora.resources import sql

FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
NOW = datetime(2024, 1, 10, 3, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
Row = tuple[object, object, object, str, int]
Make = Callable[..., pa.Table]
Current = Callable[..., list[tuple[object, ...]]]


def at(text: str) -> datetime:
    """Return an ISO time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> OfflineStore:
    return OfflineStore(tmp_path / "offline")


@pytest.fixture
def interactions() -> Callable[..., pa.Table]:
    """Make an interactions table of (user, item, domain, ISO time, label)."""

    def make(*rows: Row, **extra: list[object]) -> pa.Table:
        names = ["user_id", "item_id", "domain_id", "event_timestamp", "label"]
        return pa.table({**{n: [row[i] for row in rows] for i, n in enumerate(names)}, **extra})

    return make


@pytest.fixture
def current() -> Callable[..., list[tuple[object, ...]]]:
    """Read (user, item, domain, event, label, known_at) as known by a time."""

    def read(store: OfflineStore, known_as_of: datetime = FOREVER) -> list[tuple[object, ...]]:
        con = duckdb.connect()
        con.execute("SET TimeZone='UTC'")
        query = f"""
            WITH interactions AS ({sql("interactions_current.sql")})
            SELECT user_id, item_id, domain_id, event_timestamp, label, known_at
            FROM interactions ORDER BY ALL
        """
        params = {"interactions": store.interactions_glob, "known_as_of": known_as_of}
        return con.sql(query, params=params).fetchall()

    return read
