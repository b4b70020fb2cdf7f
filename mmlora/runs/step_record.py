"""What a training step leaves, as a record: the part that it made, and how it went."""

from __future__ import annotations

from dataclasses import dataclass

from mmlora.records import Record
from mmlora.training.observer import PhaseReport


@dataclass(frozen=True)
class StepRecord(Record):
    """What a step left.

    Attributes:
        part: the hash of its tensors.
        report: how it went.
    """

    part: str
    report: PhaseReport
