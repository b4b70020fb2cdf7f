"""A job: what a process needs to run a cell or a trial, as plain values; light to import, for the parent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmlora.experiments.cell import Cell
from mmlora.experiments.data import PreparedRows
from mmlora.settings import TrainingSettings


@dataclass(frozen=True)
class Job:
    """All that a process needs to run a cell, or a trial: a cell whose test rows nobody reads.

    Attributes:
        cell: the cell.
        key: the name of its folder; a trial's number.
        folder: the experiment's.
        rows: its training set.
        settings: its training settings.
        threads: torch threads.
        study: the study that a trial belongs to; empty for a cell.
    """

    cell: Cell
    key: str
    folder: Path
    rows: PreparedRows
    settings: TrainingSettings
    threads: int
    study: str = ""

    @property
    def place(self) -> Path:
        """The folder of its result."""
        if self.study:
            return study_folder(self.folder, self.study) / "trials" / self.key
        return self.folder / "cells" / self.key


def study_folder(folder: Path, study: str) -> Path:
    """Return where a study of an experiment keeps its trials."""
    return folder / "tune" / study
