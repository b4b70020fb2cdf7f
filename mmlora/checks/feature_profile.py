"""What a model's features are like when it is trained, and how a night's differ, field by field.

Both sides are described as the model reads them, i.e. encoded: a sample of the entities that a night scores,
one row each. The profile of the training date is a part of the bundle; a night is compared with it by domain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.checks.vectors import Vectors, kept_vectors, vector_change
from mmlora.encoding import Encoder
from mmlora.encoding.vocabularies import MISSING, OUT_OF_VOCABULARY
from mmlora.metrics.psi import Counts, count, cuts, psi
from mmlora.names import FieldKind
from mmlora.records import Record
from mmlora.schema import FeatureField

SAMPLE = 2000
"""Users, and items, that are described."""
_COMMON = 20
"""Values of a category that are told apart."""
_DESCRIBED: tuple[FieldKind, ...] = ("categorical", "bag", "dense", "vector")


@dataclass(frozen=True)
class FieldProfile(Record):
    """One field of a side in a domain.

    Attributes:
        rows: number of rows.
        missing: share of rows without a value.
        unknown: share of values out of vocabulary.
        edges: the cut points of numbers (of a vector's length), or the most common indices, sorted.
        counts: rows in the bins of the edges; of indices, one more for all others.
        low, high: the least and the largest number; None for categories, and without numbers.
        vectors: those of a few entities; None for other kinds of fields.
    """

    rows: int
    missing: float
    unknown: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    low: float | None = None
    high: float | None = None
    vectors: Vectors | None = None


Profile = Mapping[str, Mapping[str, FieldProfile]]
"""Fields by name, by domain."""


@dataclass(frozen=True)
class FieldDifference:
    """How a night's field differs from its profile.

    Attributes:
        field: the field.
        missing: share of rows without a value, less that of the profile and what chance explains.
        unknown: share of values out of vocabulary, likewise.
        outside: share of numbers further from the profile's range than its width; 0 if that is 0.
        shift: PSI beyond chance; None if either has no values, and for ids.
        change: how much the vectors of the same entities changed; None for other fields, or if unknown.
    """

    field: FeatureField
    missing: float
    unknown: float
    outside: float
    shift: float | None
    change: float | None


@dataclass(frozen=True)
class _Values:
    """A field's encoded values: indices (0 missing, 1 unknown), or numbers without the missing ones."""

    rows: int
    missing: float
    indices: npt.NDArray[np.int64] | None
    numbers: npt.NDArray[np.float64]

    @property
    def unknown(self) -> float:
        if self.indices is None or not len(self.indices):
            return 0.0
        return float((self.indices == OUT_OF_VOCABULARY).mean())


def sample(table: pa.Table) -> pa.Table:
    """Return up to :data:`SAMPLE` rows, evenly spaced."""
    if table.num_rows <= SAMPLE:
        return table
    return table.take(pa.array(np.linspace(0, table.num_rows - 1, SAMPLE).astype(np.int64)))


def describe(encoder: Encoder, ids: pa.Array, table: pa.Table) -> dict[str, FieldProfile]:
    """Return the profile of the fields that a side's table has; ``ids`` are its entities."""
    profiles = {field: _profile(values) for field, values in _values(encoder, table)}
    return {
        field.name: profile
        if field.kind != "vector"
        else replace(profile, vectors=kept_vectors(encoder, field, ids, table))
        for field, profile in profiles.items()
    }


def differences(
    encoder: Encoder, ids: pa.ChunkedArray, table: pa.Table, profile: Mapping[str, FieldProfile]
) -> list[FieldDifference]:
    """Compare a side's table with the profile of the same side and domain; ``ids`` are its entities."""
    found = [
        _difference(field, values, profile[field.name])
        for field, values in _values(encoder, table)
        if field.name in profile
    ]
    for place, difference in enumerate(found):
        kept = profile[difference.field.name].vectors
        if kept:
            change = vector_change(encoder, difference.field, ids, table, kept)
            found[place] = replace(difference, change=change)
    return found


def _values(encoder: Encoder, table: pa.Table) -> Iterator[tuple[FeatureField, _Values]]:
    """Encode a sample of a table; yield each field that it has with its values."""
    rows = sample(table)
    fields = [
        field
        for field in encoder.contract.fields
        if field.kind in _DESCRIBED and field.name in rows.column_names
    ]
    encoded = encoder.encode(rows, fields)
    categorical = dict(zip(encoded.categorical_names, encoded.categorical.T, strict=True))
    dense = dict(zip(encoded.dense_names, encoded.dense.T, strict=True))
    for field in fields:
        if field.kind == "categorical":
            index = categorical[field.name].astype(np.int64)
            yield field, _of_indices(index, (index == MISSING).mean() if len(index) else 0.0, len(index))
        elif field.kind == "bag":
            bag = encoded.bags[field.name]
            empty = float((bag == MISSING).all(1).mean()) if len(bag) else 0.0
            yield field, _of_indices(bag.ravel().astype(np.int64), empty, len(bag))
        else:
            absent = _absent(rows[field.name])
            numbers = dense[field.name] if field.kind == "dense" else _lengths(encoded.vectors[field.name])
            share = float(absent.mean()) if len(absent) else 0.0
            yield field, _Values(rows.num_rows, share, None, numbers[~absent].astype(np.float64))


def _of_indices(index: npt.NDArray[np.int64], missing: float, rows: int) -> _Values:
    return _Values(rows, float(missing), index[index != MISSING], np.zeros(0))


def _lengths(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray(np.sqrt(np.square(vectors).sum(1)))


def _absent(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return where a column has no number, ``[N]``."""
    null = pc.is_null(column, nan_is_null=True) if pa.types.is_floating(column.type) else pc.is_null(column)
    return np.asarray(null.combine_chunks() if isinstance(null, pa.ChunkedArray) else null)


def _profile(values: _Values) -> FieldProfile:
    low = high = None
    if values.indices is None:
        numbers = values.numbers
        edges = cuts(numbers) if len(numbers) else np.zeros(0)
        if len(numbers):
            low, high = float(numbers.min()), float(numbers.max())
    else:
        index, times = np.unique(values.indices, return_counts=True)
        edges = np.sort(index[np.argsort(-times, kind="stable")[:_COMMON]]).astype(np.float64)
    counts = _counts(values, edges)
    return FieldProfile(
        rows=values.rows,
        missing=values.missing,
        unknown=values.unknown,
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        low=low,
        high=high,
    )


def _counts(values: _Values, edges: npt.NDArray[np.float64]) -> Counts:
    """Count values in the bins of a profile."""
    if values.indices is None:
        return count(values.numbers, edges)
    place = np.searchsorted(edges, values.indices)
    known = np.append(edges, np.nan)[place] == values.indices
    return np.bincount(np.where(known, place, len(edges)), minlength=len(edges) + 1).astype(np.int64)


def _difference(field: FeatureField, values: _Values, before: FieldProfile) -> FieldDifference:
    edges = np.asarray(before.edges, np.float64)
    outside = 0.0
    reach = (before.high or 0.0) - (before.low or 0.0)
    if before.low is not None and before.high is not None and reach > 0 and len(values.numbers):
        wild = (values.numbers < before.low - reach) | (values.numbers > before.high + reach)
        outside = float(wild.mean())
    return FieldDifference(
        field=field,
        missing=_beyond(values.missing, values.rows, before.missing, before.rows),
        unknown=_beyond(values.unknown, values.rows, before.unknown, before.rows),
        outside=outside,
        # The ids themselves come and go.
        shift=psi(np.asarray(before.counts, np.int64), _counts(values, edges)) if field.view else None,
        change=None,
    )


def _beyond(share: float, rows: int, before: float, before_rows: int) -> float:
    """Return how far a share is above another, beyond three standard deviations."""
    if not rows or not before_rows:
        return 0.0
    both = (share * rows + before * before_rows + 1) / (rows + before_rows + 2)
    return share - before - 3 * float(np.sqrt(both * (1 - both) * (1 / rows + 1 / before_rows)))
