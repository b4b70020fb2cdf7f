"""The model's input: encoded rows of any domains, as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B encoded rows.

    Attributes:
        categorical: indices into each field's own vocabulary, ``[B, Fc]`` int64.
        dense: standardised values, ``[B, Fd]`` float32.
        vectors: dense vectors by field name, each ``[B, W]`` float32.
        bags: multi-hot indices by field name, each ``[B, L]`` int64, padded with 0.
        domain: the domain's index, ``[B]`` int64; -1 for a domain absent at training.
        label: 0/1, ``[B]`` float32; None when scoring.
    """

    categorical: Tensor
    dense: Tensor
    domain: Tensor
    vectors: dict[str, Tensor] = field(default_factory=dict)
    bags: dict[str, Tensor] = field(default_factory=dict)
    label: Tensor | None = None

    def __len__(self) -> int:
        return int(self.domain.shape[0])

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return a batch with ``change`` applied to every tensor."""
        return Batch(
            categorical=change(self.categorical),
            dense=change(self.dense),
            domain=change(self.domain),
            vectors={name: change(value) for name, value in self.vectors.items()},
            bags={name: change(value) for name, value in self.bags.items()},
            label=None if self.label is None else change(self.label),
        )

    def take(self, rows: Tensor) -> Batch:
        """Gather rows by index (``[M]`` int64)."""
        return self.map(lambda value: value.index_select(0, rows))

    def to(self, device: str) -> Batch:
        """Move to a device."""
        return self.map(lambda value: value.to(device, non_blocking=True))
