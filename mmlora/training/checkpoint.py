"""Checkpoints: where a phase stands after an epoch, so that a killed run goes on there and ends the same.

A phase that is called again with what it left ends bit-identical to one that was never stopped, on the same
machine with the same number of threads; with another number it goes on as well, but sums may round otherwise.
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
    """Where a phase stands.

    Attributes:
        tensors: by name.
        facts: whatever else, fit for JSON.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Checkpoint(Protocol):
    """Keeps the state of one phase; only the last one counts."""

    def load(self) -> CheckpointState | None:
        """Return what was saved last, or None."""

    def save(self, state: CheckpointState) -> None:
        """Keep a state in place of the one before, whole or not at all."""

    def clear(self) -> None:
        """Forget it: the phase's result is safe elsewhere."""


class NoCheckpoint:
    """For a phase that starts anew whenever it is called."""

    def load(self) -> CheckpointState | None:
        """Return None."""
        return None

    def save(self, state: CheckpointState) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""


class FileCheckpoint:
    """A checkpoint in a folder, as one safetensors file with the facts as JSON in its header.

    One process at a time may use it: the caller holds a lock.

    Args:
        folder: its own; made by the first save, removed by :meth:`clear`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.safetensors"

    def load(self) -> CheckpointState | None:
        """Return what was saved last; None when there is nothing, or nothing that can be read."""
        from safetensors import SafetensorError, safe_open

        if not self._file.exists():
            return None
        try:
            with safe_open(self._file, framework="pt") as file:
                # Copies: the file is mapped, and the next save puts another one in its place.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
                return CheckpointState(tensors, json.loads(file.metadata()["facts"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            logger.warning("%s can't be read (%s): training starts anew", self._file, error)
            return None

    def save(self, state: CheckpointState) -> None:
        """Write a file beside the last one, see it safe on disk, and rename it into place."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
        with replacing(self._file, alone=True) as aside:
            save_file(tensors, aside, metadata={"facts": json.dumps(state.facts)})

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
