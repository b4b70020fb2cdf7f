"""``mmlora metrics``: the state of nights, loads, checks and models, for Prometheus.

It needs only the warehouse, not data or models, and changes nothing.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import mmlora
from mmlora.pipeline.read import open_published
from mmlora.settings import load_settings
from mmlora.telemetry import figures
from mmlora.telemetry.figures import Figure
from mmlora.warehouse.figures import warehouse_figures

if TYPE_CHECKING:
    from mmlora.warehouse.warehouse import Warehouse


def metrics(*, home: Path | str | None = None, url: str | None = None) -> list[Figure]:
    """Return the figures of all metrics, as of now.

    Args:
        home: the workspace whose warehouse is read; that of the settings when None.
        url: the URL of a warehouse, independent of workspaces; then nothing is said of a disk.

    Raises:
        UsageError: there is no warehouse yet.
        TransientError: it can't be read at present.
    """
    with open_published(home, url) as warehouse:
        found = figures_of(warehouse)
    settings = load_settings() if home is None else load_settings(home=home)
    if url is None and settings.home.exists():
        disk = shutil.disk_usage(settings.home)
        found += [Figure(figures.FREE, disk.free), Figure(figures.SIZE, disk.total)]
    return found


def figures_of(warehouse: Warehouse) -> list[Figure]:
    """Return the figures of an open warehouse, as of now."""
    now, settings = datetime.now(UTC), load_settings().scoring
    silence = timedelta(seconds=settings.stale_after_seconds)
    with warehouse.reads_in_a_row():
        found = warehouse_figures(warehouse.database, warehouse.tables, now=now, silence=silence)
    return [
        Figure(figures.BUILD_INFO, 1, (mmlora.__version__,)),
        Figure(figures.WAREHOUSE_UP, 1),
        Figure(figures.COLLECTED, now.timestamp()),
        *found,
    ]
