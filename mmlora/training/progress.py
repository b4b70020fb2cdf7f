"""The progress of a phase's loop: everything that its next epoch depends on, as a state for a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from mmlora.training.checkpoint import CheckpointState
from mmlora.training.observer import EpochRecord


class TrainingProgress:
    """Counters, best weights and history, together with the parameters, optimizer and generators in use.

    Args:
        parameters: the trained parameters, and buffers that change with them.
        optimizer: the optimizer of these parameters.
        generator: decides the order of rows; torch's own generators are saved too, because dropout uses them.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
        generator: np.random.Generator,
    ) -> None:
        self._parameters, self._optimizer, self._generator = list(parameters), optimizer, generator
        self._device = self._parameters[0].device if self._parameters else torch.device("cpu")
        self.start_metric: float | None = None
        self.best_metric: float | None = None
        self.best_epoch = 0
        self.history: list[EpochRecord] = []
        self._best: list[Tensor] = []
        self._began, self._seconds_before = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Wall-clock time so far, including that of earlier processes up to their last epoch."""
        return self._seconds_before + time.perf_counter() - self._began

    @property
    def epoch(self) -> int:
        """The last finished epoch; 0 at the start."""
        return len(self.history)

    @property
    def epochs_without_gain(self) -> int:
        """Epochs since the best one."""
        return self.epoch - self.best_epoch

    def start(self, metric: float | None) -> None:
        """Start from the current parameters with this metric; None if no metric is used to choose."""
        self.start_metric = self.best_metric = metric
        self._best = self._values()

    def add(self, record: EpochRecord, *, higher_is_better: bool) -> None:
        """Record an epoch, and the parameters if they are the best so far."""
        self.history.append(record)
        if record.metric is None or self.best_metric is None:
            better = True  # there is no metric to choose by: the last epoch is kept
        else:
            gain = record.metric - self.best_metric
            better = (gain if higher_is_better else -gain) > 0
        if better:
            self.best_metric, self.best_epoch = record.metric, record.epoch
            self._best = self._values()

    def keep_best(self) -> None:
        """Set the parameters to their best values."""
        self._assign(self._best)

    def state(self) -> CheckpointState:
        """Return the whole state. The best values are left out if they are the current ones."""
        tensors = {f"parameter/{i}": value.detach() for i, value in enumerate(self._parameters)}
        if self.epochs_without_gain:
            tensors |= {f"best/{i}": value for i, value in enumerate(self._best)}
        moments: dict[int, dict[str, Tensor]] = self._optimizer.state_dict()["state"]
        for i, values in moments.items():
            tensors |= {f"optimizer/{i}/{name}": value for name, value in values.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self._device)
        facts = {
            "start_metric": self.start_metric,
            "best_metric": self.best_metric,
            "best_epoch": self.best_epoch,
            "history": [asdict(record) for record in self.history],
            "order": self._generator.bit_generator.state,
            "seconds": self.seconds,
        }
        return CheckpointState(tensors, facts)

    def restore(self, state: CheckpointState | None) -> bool:
        """Resume from a state; return False if there is none, or it is for different parameters."""
        if state is None:
            return False
        parameters = _numbered(state.tensors, "parameter")
        if [value.shape for value in parameters] != [value.shape for value in self._parameters]:
            return False
        self._assign(parameters)
        best = _numbered(state.tensors, "best")
        self._best = [value.to(self._device) for value in best] if best else self._values()
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in state.tensors.items():
            if key.startswith("optimizer/"):
                _, i, name = key.split("/")
                moments.setdefault(int(i), {})[name] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        torch.set_rng_state(state.tensors["random/cpu"])
        if self._device.type == "cuda" and "random/cuda" in state.tensors:
            torch.cuda.set_rng_state(state.tensors["random/cuda"], self._device)
        facts = state.facts
        self.start_metric, self.best_metric = facts["start_metric"], facts["best_metric"]
        self.best_epoch = facts["best_epoch"]
        self.history = [EpochRecord(**record) for record in facts["history"]]
        self._generator.bit_generator.state = facts["order"]
        self._seconds_before = facts.get("seconds", 0.0)  # older checkpoints don't have it
        return True

    def _values(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self._parameters]

    def _assign(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._parameters, values, strict=True):
                parameter.copy_(value)


def _numbered(tensors: dict[str, Tensor], kind: str) -> list[Tensor]:
    """Return ``<kind>/0``, ``<kind>/1``, ..."""
    count = sum(name.startswith(f"{kind}/") for name in tensors)
    return [tensors[f"{kind}/{i}"] for i in range(count)]
