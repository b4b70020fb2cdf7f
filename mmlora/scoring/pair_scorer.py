"""Score pairs with a model from encoded sides.

A field depends on the user (and domain), on the item (and domain), or on the domain alone. Each side is
encoded once, and its part of the model's side plan is computed once. The domain's fields are constant here
and belong to the user's side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmlora.batch import Batch
from mmlora.encoding import EncodedColumns, Encoder
from mmlora.errors import ContractError
from mmlora.models.builder import Model
from mmlora.models.calibration import Calibration
from mmlora.models.side_plans.pair_model import PairModel
from mmlora.models.side_plans.pairs import Pairs
from mmlora.models.side_plans.parts import Part, Role, SideTensors
from mmlora.models.side_plans.trees import TreePairs
from mmlora.models.trees.model import TreeModel
from mmlora.names import Precision
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID, FeatureField, FieldKind
from mmlora.scoring.blocks import ScorePairs
from mmlora.scoring.workers import ParallelMap

SIDE_ROWS = 1024
# The order of a model's embedded fields.
_EMBEDDED_KINDS: tuple[FieldKind, ...] = ("categorical", "bag", "vector")


class Sides(NamedTuple):
    """The contract's fields by side.

    Attributes:
        user: fields keyed by the user, alone or with the domain.
        item: fields keyed by the item, alone or with the domain.
        domain: fields keyed by the domain alone.
    """

    user: tuple[FeatureField, ...]
    item: tuple[FeatureField, ...]
    domain: tuple[FeatureField, ...]

    @classmethod
    def of(cls, fields: Sequence[FeatureField]) -> Sides:
        """Split a contract's fields.

        Raises:
            ContractError: a field is keyed by user and item together, and so belongs to no side.
        """
        both = [field.name for field in fields if {USER_ID, ITEM_ID} <= set(field.keys)]
        if both:
            raise ContractError(
                f"{', '.join(both)}: keyed by user and item together; scoring reads each side once and can't "
                "join such a view: leave it out of the feature service and train again",
                found=both,
            )
        user = tuple(field for field in fields if USER_ID in field.keys)
        item = tuple(field for field in fields if ITEM_ID in field.keys)
        return cls(user, item, tuple(field for field in fields if field not in (*user, *item)))


class PairScorer:
    """A scorer of pairs in one domain, which computes the items' side at once and users' sides on demand.

    Args:
        model: the model, which isn't changed.
        encoder: the encoder that the model was trained with.
        users: one row per user with the fields keyed by the user.
        items: one row per item with the fields keyed by the item.
        domain: one row with the domain's id and the fields keyed by the domain alone.
        calibration: converts logits to probabilities.
        device: the device to compute on.
        precision: precision of the products per pair.
        run: map that computes blocks of a side's rows in parallel.
    """

    def __init__(
        self,
        model: Model,
        encoder: Encoder,
        *,
        users: pa.Table,
        items: pa.Table,
        domain: pa.Table,
        calibration: Calibration,
        device: str = "cpu",
        precision: Precision = "float32",
        run: ParallelMap = map,
    ) -> None:
        sides = Sides.of(encoder.contract.fields)
        self._encoder, self._domain = encoder, domain
        user, item = encode_users(encoder, users, domain), encoder.encode(items, sides.item)
        domain_index = int(encoder.domain_index(domain.column(DOMAIN_ID))[0])
        self._model = (
            TreePairs(model, device=device)
            if isinstance(model, TreeModel)
            else PairModel(
                model,
                domain=domain_index,
                user=_part(encoder, user),
                item=_part(encoder, item),
                device=device,
                precision=precision,
            )
        )
        self._device, self._run = device, run
        self._users = user
        self._item = self._side(item, "item", 0, item.rows)
        self._scale, self._shift = calibration.line(domain_index)

    @property
    def user_bytes(self) -> int:
        """Size of a user's side tensors in bytes."""
        empty = self._side_block(self._users, "user", np.zeros(0, np.int64))
        return sum(tensor.shape[1:].numel() * tensor.itemsize for tensor in empty)

    def with_users(self, users: pa.Table) -> PairScorer:
        """Return a scorer of other users that shares the items' side."""
        scorer = copy(self)
        scorer._users = encode_users(self._encoder, users, self._domain)
        return scorer

    def of_users(self, first: int, last: int) -> ScorePairs:
        """Compute the side of users ``first..last - 1``, and return the function that scores their pairs.

        User rows are counted from ``first``; scores are calibrated, in [0, 1], ``[B]`` float32.
        """
        users = self.user_side(first, last)

        @torch.inference_mode()
        def scores(pairs: Pairs) -> Tensor:
            logits = self._model.logits(pairs.to(self._device), users, self._item)
            # Calibration.apply for one domain, in place.
            return logits.mul_(self._scale).add_(self._shift).sigmoid_()

        return scores

    def cross_scores(self, first: int, last: int) -> Callable[[int, int], Tensor]:
        """Compute the side of users ``first..last - 1``, and return a function for their cross terms.

        For a range of their rows, counted from ``first``, it returns the cross terms with all items, ``[n,
        I]`` float32, on the CPU.

        Raises:
            UsageError: the model has no cross terms.
        """
        users = self.user_side(first, last)

        @torch.inference_mode()
        def scores(first: int, last: int) -> Tensor:
            selected = tuple(tensor[first:last] for tensor in users)
            return self._model.cross_logits(selected, self._item).cpu()

        return scores

    def user_side(self, first: int, last: int) -> SideTensors:
        """Compute the side of users ``first..last - 1``."""
        return self._side(self._users, "user", first, last)

    def _side(self, encoded: EncodedColumns, role: Role, first: int, last: int) -> SideTensors:
        """Compute a side in blocks of a fixed size, so that a row's bits don't depend on the other rows."""

        def block(start: int) -> SideTensors:
            return self._side_block(encoded, role, np.arange(start, start + SIDE_ROWS).clip(max=last - 1))

        # Without any rows there are no pairs to score, and the shape is unknown.
        blocks = list(self._run(block, range(first, last, SIDE_ROWS)))
        return tuple(torch.cat(parts)[: last - first] for parts in zip(*blocks, strict=True))

    @torch.inference_mode()
    def _side_block(self, encoded: EncodedColumns, role: Role, rows: NDArray[np.int64]) -> SideTensors:
        return self._model.side(_to_batch(encoded, rows).to(self._device), role)


def encode_users(encoder: Encoder, users: pa.Table, domain: pa.Table) -> EncodedColumns:
    """Encode the user's side: the fields keyed by the user, and those keyed by the domain alone."""
    sides = Sides.of(encoder.contract.fields)
    fields = tuple(field for field in encoder.contract.fields if field not in sides.item)
    return encoder.encode(_repeat_beside(users, domain, sides.domain), fields)


def _repeat_beside(table: pa.Table, domain: pa.Table, fields: Sequence[FeatureField]) -> pa.Table:
    """Add the domain's values to every row, replacing columns of the same names."""
    first = pa.array(np.zeros(table.num_rows, np.int64))
    names = [field.name for field in fields]
    table = table.drop_columns([name for name in names if name in table.column_names])
    for name in names:
        table = table.append_column(name, domain.column(name).take(first))
    return table


def _part(encoder: Encoder, side: EncodedColumns) -> Part:
    """Return the positions of a side's inputs among the model's: embedded fields, then dense fields."""
    embedded = [name for kind in _EMBEDDED_KINDS for name in encoder.names(kind)]
    held = {*side.categorical_names, *side.bags, *side.vectors}
    dense = encoder.names("dense")
    return Part(
        tuple(position for position, name in enumerate(embedded) if name in held),
        tuple(position for position, name in enumerate(dense) if name in side.dense_names),
    )


def _to_batch(side: EncodedColumns, rows: NDArray[np.int64]) -> Batch:
    """Convert some of a side's rows to tensors; the domain is not used."""
    return Batch(
        categorical=torch.from_numpy(side.categorical[rows]).to(torch.int64),
        dense=torch.from_numpy(side.dense[rows]),
        domain=torch.zeros(len(rows), dtype=torch.int64),
        vectors={name: torch.from_numpy(value[rows]) for name, value in side.vectors.items()},
        bags={name: torch.from_numpy(value[rows]).to(torch.int64) for name, value in side.bags.items()},
    )
