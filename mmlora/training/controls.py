"""Controls: altered views of the same rows, and untrained gates.

They separate what an arm gains from its domains, gate or phases from what it gains from more parameters,
restarts and steps. A view is training data like any other, so every phase runs on it unchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmlora.batch import Batch
from mmlora.errors import UsageError
from mmlora.models.builder import assemble_model
from mmlora.models.ctr import State
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.training.dataset import TrainingSet
from mmlora.training.epoch import RowNumbers, SplitPart, TrainingData
from mmlora.training.phases import Expert
from mmlora.training.rows import domains_of, of_domain


@dataclass(frozen=True)
class _View:
    """The rows as they are; each view below changes one thing.

    Attributes:
        data: the rows.
    """

    data: TrainingData

    @property
    def domain(self) -> npt.NDArray[Any]:
        """Domain index of every row."""
        return self.data.domain

    @property
    def num_domains(self) -> int:
        """Number of domains, the same as in the data, so that inputs keep their meaning."""
        return self.data.num_domains

    def rows(self, split: SplitPart) -> RowNumbers:
        """Return the row numbers of a split."""
        return self.data.rows(split)

    def batch(self, rows: RowNumbers) -> Batch:
        """Return a batch of rows."""
        return self.data.batch(rows)


@dataclass(frozen=True)
class WithoutFields(_View):
    """The rows without some inputs; their domain is still known, but the model doesn't see it.

    Attributes:
        data: the rows.
        fields: all of the data's fields, in the order of a batch.
        dropped: names of the fields to leave out.
    """

    fields: tuple[FieldShape, ...]
    dropped: frozenset[str]

    @property
    def kept(self) -> tuple[FieldShape, ...]:
        """The remaining fields, which are those of the model's specification."""
        return tuple(field for field in self.fields if field.name not in self.dropped)

    def batch(self, rows: RowNumbers) -> Batch:
        """Return rows without the dropped inputs."""
        batch = self.data.batch(rows)
        return replace(
            batch,
            categorical=batch.categorical[:, self._columns("categorical")],
            dense=batch.dense[:, self._columns("dense")],
            vectors={name: values for name, values in batch.vectors.items() if name not in self.dropped},
            bags={name: values for name, values in batch.bags.items() if name not in self.dropped},
        )

    def _columns(self, kind: str) -> list[int]:
        names = [field.name for field in self.fields if field.kind == kind]
        return [place for place, name in enumerate(names) if name not in self.dropped]


@dataclass(frozen=True)
class ShuffledDomains(_View):
    """The rows, each adapted as if it came from another row's domain: a placebo.

    Domains are permuted within each split, so that each keeps its number of rows. Inputs stay as they are,
    including the domain's own field; only the choice and the training of experts change.

    Attributes:
        data: the rows.
        seed: seed of the permutation.
    """

    seed: int

    @cached_property
    def domain(self) -> npt.NDArray[Any]:
        """The domain that each row is adapted as."""
        generator, domain = np.random.default_rng([self.seed, 7]), np.array(self.data.domain)
        for part in ("train", "validation", "test"):
            rows = self.data.rows(part)
            domain[rows] = domain[generator.permutation(rows)]
        return domain

    def batch(self, rows: RowNumbers) -> Batch:
        """Return a batch of rows, with the shuffled domains."""
        domain = torch.from_numpy(self.domain[rows].astype(np.int64))
        return replace(self.data.batch(rows), domain=domain)


@dataclass(frozen=True)
class OneDomain(_View):
    """The rows of one domain, under their row numbers in all rows.

    Attributes:
        data: all domains' rows.
        index: the domain's index.
    """

    index: int

    def rows(self, split: SplitPart) -> RowNumbers:
        """Return this domain's row numbers of a split."""
        return of_domain(self.data, self.data.rows(split), self.index)


class WithoutTest(TrainingSet):
    """A training set whose test rows can't be read, for choosing settings on validation rows."""

    def rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the row numbers of a part of the split.

        Raises:
            UsageError: the test part was requested.
        """
        if split == "test":
            raise UsageError("test rows can't be read while settings are chosen: use validation rows")
        return super().rows(split)


def trainable_domains(data: TrainingData, label: npt.NDArray[Any]) -> list[int]:
    """Return the domains whose training rows have both labels, which an expert needs.

    Args:
        data: the rows.
        label: label of every row, 0/1, ``[N]``.
    """
    rows = data.rows("train")
    positive = label[rows] > 0
    both = domains_of(data, rows[positive]) & domains_of(data, rows[~positive])
    return [int(index) for index in np.flatnonzero(both)]


def uniform_gate(
    spec: ModelSpec, backbone: Mapping[str, torch.Tensor], experts: Collection[Expert], data: TrainingData
) -> State:
    """Return a gate that gives every expert the same weight, 1 / E, in a model without ``gate_top_k``."""
    return _untrained_gate(replace(spec, gate_top_k=None), backbone, experts, data, None)


def random_gate(
    spec: ModelSpec,
    backbone: Mapping[str, torch.Tensor],
    experts: Collection[Expert],
    data: TrainingData,
    *,
    seed: int,
) -> State:
    """Return a gate with random logits: a domain's from N(0, 1), a row's from x V with V from N(0, 1 / H).

    So the logits have the same variance whether the gate sees the domain or a row's H inputs x, as long as
    these have unit variance.
    """
    return _untrained_gate(spec, backbone, experts, data, torch.Generator().manual_seed(seed))


def _untrained_gate(
    spec: ModelSpec,
    backbone: Mapping[str, torch.Tensor],
    experts: Collection[Expert],
    data: TrainingData,
    generator: torch.Generator | None,
) -> State:
    """Replace every parameter by zeros or random numbers; domains without training rows are marked."""
    model = assemble_model(spec, backbone=backbone, experts=[(e.domain, e.state) for e in experts])
    assert model.gate is not None  # there are experts
    with torch.no_grad():
        for name, parameter in model.gate.named_parameters():
            if generator is None:
                parameter.zero_()
            else:
                width = parameter.shape[0] if name.endswith("weight") else 1
                parameter.normal_(std=width**-0.5, generator=generator)
    state = model.gate_state()
    present = torch.from_numpy(domains_of(data, data.rows("train"))).float()
    return {name: present.clone() if name.endswith("present") else value for name, value in state.items()}
