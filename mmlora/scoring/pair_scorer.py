"""From encoded sides and a model to the scores of pairs.

A field is decided by the user (and domain), by the item (and domain), or by the domain alone. Each side is
encoded once, and a pair's input is gathered from its two rows. Whoever calls :meth:`PairScorer.scores`
needn't know how a pair is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from mmlora.batch import Batch
from mmlora.encoding import EncodedColumns, Encoder
from mmlora.errors import ContractError
from mmlora.models.ctr import CTRModel
from mmlora.models.folding import fold
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID, FeatureField
from mmlora.training.calibration import Calibration


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
    """Scores pairs of encoded users and items in one domain by the forward pass of the model folded for it.

    Args:
        model: the model; it stays as it is.
        encoder: what the model was trained with.
        users: a row a user: the fields keyed by the user.
        items: a row an item: the fields keyed by the item.
        domain: one row: the domain's id and the fields keyed by the domain alone.
        calibration: makes probabilities of logits.
        device: where to compute.
    """

    def __init__(
        self,
        model: CTRModel,
        encoder: Encoder,
        *,
        users: pa.Table,
        items: pa.Table,
        domain: pa.Table,
        calibration: Calibration,
        device: str = "cpu",
    ) -> None:
        sides = Sides.of(encoder.contract.fields)
        encoded = [
            encoder.encode(table, fields) for table, fields in zip((users, items, domain), sides, strict=True)
        ]
        self._calibration, self._device = calibration, device
        self._domain_index = int(encoder.domain_index(domain.column(DOMAIN_ID))[0])
        self._model = fold(model, self._domain_index).to(device)
        self._sides = [_to_batch(side, device) for side in encoded]
        self._categorical_order = _order(encoder.names("categorical"), [s.categorical_names for s in encoded])
        self._dense_order = _order(encoder.names("dense"), [s.dense_names for s in encoded])

    @torch.inference_mode()
    def scores(self, user_rows: Tensor, item_rows: Tensor) -> Tensor:
        """Places ``[B]`` of users and of items -> calibrated scores in [0, 1], ``[B]`` float32."""
        batch = self._gather(user_rows.to(self._device), item_rows.to(self._device))
        return self._calibration.apply(self._model(batch).float(), batch.domain)

    def _gather(self, user_rows: Tensor, item_rows: Tensor) -> Batch:
        rows = len(user_rows)
        user, item = self._sides[0].take(user_rows), self._sides[1].take(item_rows)
        domain = self._sides[2].map(lambda value: value.expand(rows, *value.shape[1:]))
        return Batch(
            categorical=_join(
                [user.categorical, item.categorical, domain.categorical], self._categorical_order
            ),
            dense=_join([user.dense, item.dense, domain.dense], self._dense_order),
            domain=torch.full((rows,), self._domain_index, dtype=torch.int64, device=self._device),
            vectors={**user.vectors, **item.vectors, **domain.vectors},
            bags={**user.bags, **item.bags, **domain.bags},
        )


def _to_batch(side: EncodedColumns, device: str) -> Batch:
    """Put a side's columns into tensors (its domain is not used)."""
    return Batch(
        categorical=torch.from_numpy(side.categorical).to(torch.int64),
        dense=torch.from_numpy(side.dense),
        domain=torch.zeros(side.rows, dtype=torch.int64),
        vectors={name: torch.from_numpy(value) for name, value in side.vectors.items()},
        bags={name: torch.from_numpy(value).to(torch.int64) for name, value in side.bags.items()},
    ).to(device)


def _order(wanted: Sequence[str], held: Sequence[Sequence[str]]) -> Tensor | None:
    """Return the wanted columns' places among the sides' side by side; None when they lie right already."""
    places = {name: place for place, name in enumerate(name for names in held for name in names)}
    order = [places[name] for name in wanted]
    return None if order == list(range(len(places))) else torch.tensor(order)


def _join(parts: list[Tensor], order: Tensor | None) -> Tensor:
    joined = torch.cat(parts, 1)
    return joined if order is None else joined.index_select(1, order.to(joined.device))
