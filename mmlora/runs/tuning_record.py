"""The record of tuning, stored with the run of the best settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmlora.records import Record
from mmlora.training.search import Step


@dataclass(frozen=True)
class Trial(Record):
    """A completed trial.

    Attributes:
        settings: the settings that differ from the initial ones.
        wauc: wauc on validation rows.
        seconds: training time over all attempts.
        run_id: the id of its run.
    """

    settings: Mapping[str, Any]
    wauc: float
    seconds: float
    run_id: str


@dataclass(frozen=True)
class TuningRecord(Record):
    """The trials of one search.

    Attributes:
        minutes: the budget.
        own_run: the run of the initial settings.
        seconds: time spent on trials.
        trials: the trials in order, the initial settings first.
        steps: the changes that were kept.
        own_wauc: validation wauc of the initial settings.
        best_wauc: validation wauc of the best settings.
        lines: the changed settings as lines of ``mmlora.toml``.
        sentence: what changed and what each change gained.
    """

    minutes: float
    own_run: str
    seconds: int
    trials: tuple[Trial, ...]
    steps: tuple[Step, ...]
    own_wauc: float
    best_wauc: float
    lines: tuple[str, ...]
    sentence: str
