"""Checkpoints: the state of a phase after an epoch, from which a killed run resumes and ends the same.

A phase that resumes from its checkpoint ends bit-identical to one that was never stopped, on the same
machine with the same number of threads; with another number it resumes too, but sums may round differently.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from mmlora.files import replacing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointState:
    """The state of a phase.

    Attributes:
        tensors: the tensors by name.
        facts: everything else, JSON-ready.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Checkpoint(Protocol):
    """Stores the state of one phase; only the last state counts."""

    def load(self) -> CheckpointState | None:
        """Return the last saved state, or None."""

    def save(self, state: CheckpointState) -> None:
        """Replace the saved state atomically."""

    def clear(self) -> None:
        """Delete the saved state, once the phase's result is stored elsewhere."""


class NoCheckpoint:
    """For a phase that starts from scratch whenever it is called."""

    def load(self) -> CheckpointState | None:
        """Return None."""
        return None

    def save(self, state: CheckpointState) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""


class FileCheckpoint:
    """A checkpoint in a folder, as one safetensors file with the facts as JSON in its header.

    Only one process at a time may use it: the caller holds a lock.

    Args:
        folder: a folder for this checkpoint alone; created by the first save, removed by :meth:`clear`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.safetensors"

    def load(self) -> CheckpointState | None:
        """Return the last saved state; None if there is none or it can't be read."""
        from safetensors import SafetensorError, safe_open

        if not self._file.exists():
            return None
        try:
            with safe_open(self._file, framework="pt") as file:
                # Copies, because the file is memory-mapped, and the next save replaces it.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                return CheckpointState(tensors, json.loads(file.metadata()["facts"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            logger.warning("%s can't be read (%s): training starts from scratch", self._file, error)
            return None

    def save(self, state: CheckpointState) -> None:
        """Write a new file beside the last one, sync it to disk, and rename it into place."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
        with replacing(self._file, alone=True) as aside:
            save_file(tensors, aside, metadata={"facts": json.dumps(state.facts)})

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
