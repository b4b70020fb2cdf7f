"""Warm starts: cross terms and backbone begin with the weights of a trained model, value by value.

Indices of a vocabulary change from training to training, so the weights of a value are moved to where the
value is now. A value, a domain or a column that the trained model doesn't know begins as in a cold start. The
optimizer's state is never carried over, nor is the weight of the item history, which is fitted anew. Numbers
are standardised anew and keep their weights, which the first pass corrects.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from mmlora.encoding import Encoder
from mmlora.encoding.vocabularies import FIRST_KNOWN, Bag, Vocabulary
from mmlora.models.builder import assemble_model
from mmlora.models.crosses.columns import SideColumns
from mmlora.models.crosses.sparse import SparseTerm
from mmlora.models.crosses.terms import CrossTerms
from mmlora.models.ctr import CTRModel, State
from mmlora.models.spec import ModelSpec

_CHUNK = 1 << 20  # sparse weights moved at a time


@dataclass(frozen=True)
class WarmStart:
    """What a training begins with.

    Attributes:
        model: the trained model, without experts; on the CPU.
        encoder: its encoder.
        own: the encoder of the training that begins with it.
    """

    model: CTRModel
    encoder: Encoder
    own: Encoder

    @classmethod
    def of(cls, spec: ModelSpec, backbone: State, encoder: Encoder, own: Encoder) -> WarmStart:
        """Return a start with a trained model's backbone; the arguments are as in the attributes."""
        model = assemble_model(replace(spec, adaptation="none"), backbone=backbone)
        return cls(model, encoder, own)

    @property
    def tower_is_trained(self) -> bool:
        """Whether the model's backbone and tower were kept, and not just its cross terms."""
        return not self.model.is_silent

    @torch.no_grad()
    def carry_crosses(self, new: CrossTerms) -> None:
        """Set the weights and precisions of new cross terms, except those of values that are new."""
        old = self.model.crosses
        assert old is not None  # the shapes were compared
        user, item = (self._columns(*sides) for sides in ((new.user, old.user), (new.item, old.item)))
        pairs = _by_name(*([name for pair in of.pairs for name in pair.names] for of in (new, old)))
        domains = self._domains if new.num_domains and old.num_domains else torch.zeros(1, dtype=torch.int64)
        every_knot = torch.arange(new.basis.shape[1])
        _move(new.weight, old.weight, user, item)
        _move(new.domain_user, old.domain_user, domains, user)
        _move(new.domain_item, old.domain_item, domains, item)
        _move(new.basis, old.basis, domains, every_knot)
        _move(new.pair, old.pair, domains, pairs)
        _move(new.precision[:, None], old.precision[:, None], _by_name(new.groups()[1], old.groups()[1]))
        was = {term.name: term for term in old.terms}
        for term in new.terms:
            if term.name in was:
                self._carry_term(new.table, term, old.table, was[term.name])

    @torch.no_grad()
    def carry_tower(self, new: CTRModel) -> None:
        """Set all that phase 1 trains, except the embeddings of values that are new."""
        state, old = new.backbone_state(), self.model.backbone_state()
        for name, value in state.items():
            if name == "embedding.table":
                _move(value, old[name], self._rows())
            elif not name.startswith("crosses."):
                value.copy_(old[name])
        new.load_backbone(state)

    def _carry_term(self, table: Tensor, new: SparseTerm, old_table: Tensor, old: SparseTerm) -> None:
        """Move the weights of a large field; if several share one by a hash, it is their mean."""
        index = self._known[new.field.name]
        if new.small is not None:
            other = self._known[new.small.name]
        else:
            other = torch.zeros(1, dtype=torch.int64) if new.others == 1 else self._domains[1:] - 1
        here, there = _both(index), _both(other)
        here = here[:, here[0] > 0]  # missing has no weight
        total, count = np.zeros(new.size), np.zeros(new.size)
        for part in torch.split(here, max(1, _CHUNK // max(there.shape[1], 1)), 1):
            places = new.places(part[0][:, None], there[0]).flatten() - new.start
            values = old_table[old.places(part[1][:, None], there[1])].flatten()
            total += np.bincount(places.numpy(), values.double().numpy(), minlength=new.size)
            count += np.bincount(places.numpy(), minlength=new.size)
        filled = torch.from_numpy(count > 0)
        mean = torch.from_numpy(total / np.maximum(count, 1)).to(table.dtype)
        table[new.start : new.start + new.size][filled] = mean[filled].to(table.device)

    def _columns(self, new: SideColumns, old: SideColumns) -> Tensor:
        """Return the old column of each new one, -1 for none."""
        columns = [torch.zeros(1, dtype=torch.int64)]
        for name, block in itertools.groupby(new.names[1:]):
            size = len(list(block))
            place = self._known.get(name, torch.arange(size))
            known = name in old.names
            columns.append(
                torch.where(place < 0, -1, place + old.names.index(name)) if known else place * 0 - 1
            )
        return torch.cat(columns)

    def _rows(self) -> Tensor:
        """Return the old row of each row of the embedding table, -1 for none."""
        rows, start = [], 0
        for name in (*self.own.names("categorical"), *self.own.names("bag")):
            place = self._known[name]
            rows.append(torch.where(place < 0, -1, place + start))
            start += _vocabulary(self.encoder, name).size
        return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)

    @cached_property
    def _known(self) -> Mapping[str, Tensor]:
        """The old index of each index of a field with a vocabulary, -1 for a value that is new."""
        return {
            name: _old_indices(_vocabulary(self.own, name), _vocabulary(self.encoder, name))
            for name, field in self.own.fields.items()
            if isinstance(field, Vocabulary | Bag)
        }

    @cached_property
    def _domains(self) -> Tensor:
        """The old row of each row of a table by domain, whose row 0 is for absent ones; -1 for a new one."""
        before = self.encoder.domains
        places = [before.index(domain) + 1 if domain in before else -1 for domain in self.own.domains]
        return torch.tensor([0, *places])


def changed_inputs(old: ModelSpec, new: ModelSpec) -> list[str]:
    """Return the fields whose weights in a trained model have no place in a new one."""
    before, after = _inputs(old), _inputs(new)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _inputs(spec: ModelSpec) -> dict[str, object]:
    """Return what the place of a field's weights depends on, besides its vocabulary."""
    return {
        f.name: (place, f.kind, f.side, f.partner, f.size if f.kind == "vector" else None)
        for place, f in enumerate(spec.fields)
    }


def _vocabulary(encoder: Encoder, name: str) -> Vocabulary:
    field = encoder.fields[name]
    vocabulary = field.vocabulary if isinstance(field, Bag) else field
    assert isinstance(vocabulary, Vocabulary)
    return vocabulary


def _old_indices(new: Vocabulary, old: Vocabulary) -> Tensor:
    places = np.full(len(new.values), -1, np.int64)
    if new.values.type == old.values.type:
        found = pc.fill_null(pc.index_in(new.values, value_set=old.values), -1 - FIRST_KNOWN)
        places = np.asarray(found, np.int64) + FIRST_KNOWN
    reserved = torch.arange(FIRST_KNOWN)
    return torch.cat([reserved, torch.from_numpy(places)])


def _by_name(new: list[str], old: list[str]) -> Tensor:
    """Return the old place of each name, -1 for none; equal names correspond in their order."""
    place = {key: number for number, key in enumerate(_numbered(old))}
    return torch.tensor([place.get(key, -1) for key in _numbered(new)], dtype=torch.int64)


def _numbered(names: list[str]) -> list[tuple[str, int]]:
    return [(name, names[:number].count(name)) for number, name in enumerate(names)]


def _both(old_of_new: Tensor) -> Tensor:
    """Return the new and the old index of everything that both have, ``[2, n]``."""
    kept = (old_of_new >= 0).nonzero()[:, 0]
    return torch.stack([kept, old_of_new[kept]])


def _move(new: Tensor, old: Tensor, rows: Tensor, columns: Tensor | None = None) -> None:
    """Set ``new[rows, columns]`` to the old values; an index of -1 leaves what is there."""
    here, there = _both(rows), _both(torch.arange(old.shape[1]) if columns is None else columns)
    new[here[0][:, None], there[0]] = old[here[1][:, None], there[1]].to(new.device)
