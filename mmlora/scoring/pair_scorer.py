"""From encoded sides and a model to the scores of pairs.

A field is decided by the user (and domain), by the item (and domain), or by the domain alone. Each side is
encoded once, and what the model's side plan computes of it once as well; the domain's fields go with the
user's, for here they are constants.
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
# The order in which a model holds its embedded fields.
_EMBEDDED_KINDS: tuple[FieldKind, ...] = ("categorical", "bag", "vector")


class Sides(NamedTuple):
    """The contract's fields by what decides them.

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
            ContractError: a field is keyed by user and item, so that no side decides it.
        """
        both = [field.name for field in fields if {USER_ID, ITEM_ID} <= set(field.keys)]
        if both:
            raise ContractError(
                f"{', '.join(both)}: keyed by user and item together, which scoring doesn't join; "
                "leave the view out of the feature service and train again",
                found=both,
            )
        user = tuple(field for field in fields if USER_ID in field.keys)
        item = tuple(field for field in fields if ITEM_ID in field.keys)
        return cls(user, item, tuple(field for field in fields if field not in (*user, *item)))


class PairScorer:
    """Scores pairs of users and items in one domain: the items' side is computed now, users' on demand.

    Args:
        model: the model; it stays as it is.
        encoder: what the model was trained with.
        users: a row a user: the fields keyed by the user.
        items: a row an item: the fields keyed by the item.
        domain: one row: the domain's id and the fields keyed by the domain alone.
        calibration: makes probabilities of logits.
        device: where to compute.
        precision: of the products that a pair costs.
        run: computes blocks of a side's rows side by side.
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
        self._encoder, self._domain, self._sides = encoder, domain, sides
        user, item = self._encode_users(users), encoder.encode(items, sides.item)
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
        self._scale = calibration.scale
        self._shift = calibration.shift if domain_index < 0 else calibration.domain_shifts[domain_index]

    @property
    def user_bytes(self) -> int:
        """Bytes of a user's side tensors."""
        of_none = self._side_block(self._users, "user", np.zeros(0, np.int64))
        return sum(tensor.shape[1:].numel() * tensor.itemsize for tensor in of_none)

    def with_users(self, users: pa.Table) -> PairScorer:
        """Return a scorer of other users, which shares all that was computed of the items."""
        other = copy(self)
        other._users = self._encode_users(users)
        return other

    def of_users(self, first: int, last: int) -> ScorePairs:
        """Compute the side of users ``first..last - 1``, and return what scores pairs of them.

        Their rows are counted from ``first``; scores are calibrated, in [0, 1], ``[B]`` float32.
        """
        users = self._side(self._users, "user", first, last)

        @torch.inference_mode()
        def scores(pairs: Pairs) -> Tensor:
            logits = self._model.logits(pairs.to(self._device), users, self._item)
            # As Calibration.apply has it, of one domain: in place, and without a table of all domains.
            return logits.mul_(self._scale).add_(self._shift).sigmoid_()

        return scores

    def cross_scores(self, first: int, last: int) -> Callable[[int, int], Tensor]:
        """Compute the side of users ``first..last - 1``, and return what crosses them with all items.

        Of some of their rows, counted from ``first``, the cross terms ``[n, I]`` float32, on the CPU.

        Raises:
            UsageError: the model has no cross terms.
        """
        users = self._side(self._users, "user", first, last)

        @torch.inference_mode()
        def scores(first: int, last: int) -> Tensor:
            some = tuple(tensor[first:last] for tensor in users)
            return self._model.cross_logits(some, self._item).cpu()

        return scores

    def _encode_users(self, users: pa.Table) -> EncodedColumns:
        fields = tuple(field for field in self._encoder.contract.fields if field not in self._sides.item)
        return self._encoder.encode(_repeat_beside(users, self._domain, self._sides.domain), fields)

    def _side(self, encoded: EncodedColumns, role: Role, first: int, last: int) -> SideTensors:
        """Compute a side's rows in blocks of one size, so that a row's bits don't depend on the others."""

        def block(start: int) -> SideTensors:
            return self._side_block(encoded, role, np.arange(start, start + SIDE_ROWS).clip(max=last - 1))

        # With no rows at all there is no pair to score, and no shape to know.
        blocks = list(self._run(block, range(first, last, SIDE_ROWS)))
        return tuple(torch.cat(parts)[: last - first] for parts in zip(*blocks, strict=True))

    @torch.inference_mode()
    def _side_block(self, encoded: EncodedColumns, role: Role, rows: NDArray[np.int64]) -> SideTensors:
        return self._model.side(_to_batch(encoded, rows).to(self._device), role)


def _repeat_beside(table: pa.Table, domain: pa.Table, fields: Sequence[FeatureField]) -> pa.Table:
    """Put the domain's values beside every row, instead of any the table has."""
    first = pa.array(np.zeros(table.num_rows, np.int64))
    names = [field.name for field in fields]
    table = table.drop_columns([name for name in names if name in table.column_names])
    for name in names:
        table = table.append_column(name, domain.column(name).take(first))
    return table


def _part(encoder: Encoder, side: EncodedColumns) -> Part:
    """Return the places of a side's inputs among the model's: categorical fields, bags and vectors; dense."""
    embedded = [name for kind in _EMBEDDED_KINDS for name in encoder.names(kind)]
    held = {*side.categorical_names, *side.bags, *side.vectors}
    dense = encoder.names("dense")
    return Part(
        tuple(place for place, name in enumerate(embedded) if name in held),
        tuple(place for place, name in enumerate(dense) if name in side.dense_names),
    )


def _to_batch(side: EncodedColumns, rows: NDArray[np.int64]) -> Batch:
    """Put some of a side's rows into tensors (its domain is not used)."""
    return Batch(
        categorical=torch.from_numpy(side.categorical[rows]).to(torch.int64),
        dense=torch.from_numpy(side.dense[rows]),
        domain=torch.zeros(len(rows), dtype=torch.int64),
        vectors={name: torch.from_numpy(value[rows]) for name, value in side.vectors.items()},
        bags={name: torch.from_numpy(value[rows]).to(torch.int64) for name, value in side.bags.items()},
    )
