"""The heartbeat of a load, by which others see that its process is alive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mmlora.errors import MmloraError
from mmlora.telemetry import in_context

if TYPE_CHECKING:
    from mmlora.nights.rehearsal import Rehearsal
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

logger = logging.getLogger(__name__)


@contextmanager
def heartbeat(warehouse: Warehouse | Rehearsal, load: Load, seconds: float) -> Iterator[None]:
    """Send a heartbeat for the load every ``seconds``, whatever its process is doing."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(seconds):
            try:
                warehouse.heartbeat(load)
            except MmloraError as error:
                # The load was given up, or the database is gone: its own steps will report it.
                logger.warning("load %s: can't send a heartbeat: %s", load.load_id, error)

    thread = threading.Thread(target=in_context(beat), name=f"heartbeat-{load.load_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
