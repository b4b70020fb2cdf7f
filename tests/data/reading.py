"""Reading a delivery of single files, as most tests do."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmlora.data.options import ReadOptions
from mmlora.data.reader import read_delivery
from mmlora.schema import Entity, IdTypes


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
