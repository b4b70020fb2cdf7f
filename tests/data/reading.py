"""Reading a delivery, as most tests do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.data.options import ReadOptions
from mmlora.data.reader import Delivery, read_delivery
from mmlora.schema import Entity, IdTypes

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HEAD = "user_id,item_id,domain_id,event_timestamp,label\n"
LONG = 1577134800018226901
ReadUsers = Callable[..., Delivery]


def read_tables(
    interactions: Path,
    users: Path | None = None,
    *,
    now: datetime | None = None,
    ids: IdTypes | None = None,
    **options: Any,
) -> tuple[pa.Table, dict[Entity, pa.Table]]:
    """Read interactions and user profiles; ``options`` are those of ``ReadOptions``."""
    profiles: dict[Entity, list[Path]] = {"user": [users]} if users else {}
    delivery = read_delivery([interactions], profiles, options=ReadOptions(**options), ids=ids, now=now)
    assert delivery.interactions is not None
    return delivery.interactions, delivery.profiles


def read_interactions(*paths: Path, **options: Any) -> Delivery:
    """Read interactions alone."""
    return read_delivery(list(paths), {}, options=ReadOptions(**options), now=NOW)


def read_users(paths: list[Path], stored: dict[Entity, pa.Schema] | None = None, **options: Any) -> Delivery:
    """Read user profiles alone."""
    return read_delivery([], {"user": paths}, options=ReadOptions(**options), stored=stored, now=NOW)


def write_and_read_users(
    folder: Path, content: bytes | str | dict[str, object], name: str = "u.csv", **options: Any
) -> Delivery:
    """Read user profiles from a file of these bytes, or from plain Parquet of these columns."""
    path = folder / name
    if isinstance(content, dict):
        pq.write_table(pa.table(content), path := folder / "plain.parquet")
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_users([path], **options)
