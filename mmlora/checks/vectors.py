"""Whether entities still have the vectors that a model has learned, as far as a few of them tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.encoding import Encoder
from mmlora.schema import FeatureField

KEPT = 50
"""Entities of a domain whose vectors are kept."""
LEAST = 10
"""Fewer of them tell nothing."""

Vectors = Mapping[str, Sequence[float]]
"""Vectors by the entity's id as text."""


def kept_vectors(encoder: Encoder, field: FeatureField, ids: pa.Array, table: pa.Table) -> Vectors:
    """Return the vectors of a few entities, evenly spaced, as the model reads them.

    Args:
        encoder: the model's encoder.
        field: a field of vectors.
        ids: the entities, ``[N]``.
        table: their features, with the field, ``[N]`` rows.
    """
    present: npt.NDArray[np.int64] = np.flatnonzero(np.asarray(pc.is_valid(table[field.name])))
    if not len(present):
        return {}
    places: npt.NDArray[np.int64] = present[np.unique(np.linspace(0, len(present) - 1, KEPT, dtype=np.int64))]
    vectors = _unit(encoder, field, table.take(pa.array(places, pa.int64())))
    return {
        str(ids[int(place)]): vector.round(4).tolist() for place, vector in zip(places, vectors, strict=True)
    }


def vector_change(
    encoder: Encoder, field: FeatureField, ids: pa.ChunkedArray, table: pa.Table, kept: Vectors
) -> float | None:
    """Return how much the kept entities' vectors changed: 0 not at all, 1 as if they were other entities'.

    It is the mean cosine distance of each vector from its former self, over that from those of the others.
    None if too few of the entities have a vector, or all vectors point the same way.
    """
    place = pc.index_in(pa.array(kept), value_set=ids.cast(pa.string()).combine_chunks())
    rows = table.take(place.drop_null())
    former = np.array(list(kept.values()))[np.asarray(place.is_valid())]
    present = np.asarray(pc.is_valid(rows[field.name]))
    if present.sum() < LEAST:
        return None
    now, former = _unit(encoder, field, rows.filter(pa.array(present))), former[present]
    near = now @ former.T
    own = float(np.trace(near)) / len(near)
    others = (float(near.sum()) - own * len(near)) / (near.size - len(near))
    return (1 - own) / (1 - others) if 1 - others > 0.01 else None


def _unit(encoder: Encoder, field: FeatureField, rows: pa.Table) -> npt.NDArray[np.float64]:
    """Return the vectors of rows, each with the length 1 unless it is 0."""
    vectors = encoder.encode(rows, [field]).vectors[field.name].astype(np.float64)
    length = np.sqrt(np.square(vectors).sum(1, keepdims=True))
    return np.asarray(vectors / np.where(length > 0, length, 1))
