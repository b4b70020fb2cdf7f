"""A job: everything that a process needs to run a cell or a trial, as plain values. Cheap to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmlora.experiments.cell import Cell
from mmlora.experiments.data import PreparedRows
from mmlora.settings import TrainingSettings


@dataclass(frozen=True)
class Job:
    """Everything that a process needs to run a cell, or a trial, i.e. a cell whose test rows are not read.

    Attributes:
        cell: the cell.
        key: name of its folder; the number of a trial.
        folder: the experiment's folder.
        rows: its training set.
        settings: its training settings.
        threads: number of torch threads.
        study: the study of a trial; empty for a cell.
    """

    cell: Cell
    key: str
    folder: Path
    rows: PreparedRows
    settings: TrainingSettings
    threads: int
    study: str = ""

    @property
    def result_folder(self) -> Path:
        """The folder of its result."""
        if self.study:
            return study_folder(self.folder, self.study) / "trials" / self.key
        return self.folder / "cells" / self.key


def study_folder(folder: Path, study: str) -> Path:
    """Return the folder of an experiment's study."""
    return folder / "tune" / study
