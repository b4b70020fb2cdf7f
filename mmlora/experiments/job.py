"""A job: all that a process needs to run a cell, as plain values; light to import, for the parent process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmlora.experiments.cell import Cell
from mmlora.experiments.data import Rows
from mmlora.settings import TrainingSettings


@dataclass(frozen=True)
class Job:
    """All that a process needs to run a cell.

    Attributes:
        cell: the cell.
        key: the name of its folder.
        folder: the experiment's.
        rows: its training set.
        settings: its training settings.
        threads: torch threads.
    """

    cell: Cell
    key: str
    folder: Path
    rows: Rows
    settings: TrainingSettings
    threads: int
