"""What tuning came to, as the run of the best settings keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmlora.records import Record
from mmlora.training.search import Step


@dataclass(frozen=True)
class Trial(Record):
    """A trial that was trained to its end.

    Attributes:
        settings: those that differ from one's own.
        wauc: on validation rows.
        seconds: taken to train it, in all attempts.
        run_id: its run.
    """

    settings: Mapping[str, Any]
    wauc: float
    seconds: float
    run_id: str


@dataclass(frozen=True)
class TuningRecord(Record):
    """The trials of one climb.

    Attributes:
        minutes: the budget.
        own_run: the run of one's own settings.
        seconds: spent on trials.
        trials: in order, one's own settings first.
        steps: the changes that were kept.
        own_wauc: validation wauc of one's own settings.
        best_wauc: validation wauc of the best.
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
