"""How each kind of field is fitted and encoded; :mod:`mmlora.encoding` puts the fields together.

Every encoder maps an Arrow column of N rows to numbers, treats NaN as missing, and has a ``size`` (what
the model needs to know of it) and a ``spec`` (what it stores beside its vocabulary).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmlora.errors import ContractError, DataError, Fault
from mmlora.schema import FeatureField

MISSING, OUT_OF_VOCABULARY, FIRST_KNOWN = 0, 1, 2
DEFAULT_BAG_LENGTH = 16
# A broken upstream value must not drown a row's other inputs: no training value of use lies further out.
MAX_DEVIATIONS = 20.0
# Its square still adds up in float64, and it fits in float32.
LARGEST = 1e30
# Whole numbers are looked up in a table, which costs a tenth of hashing them, unless it is mostly holes.
_TABLE_SIZE = 16


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return one array of int64, float64, string, a list of those, or null; NaN becomes null."""
    array = _whole(column)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return plain(array.dictionary_decode())
    if pa.types.is_null(kind) or kind in (pa.int64(), pa.string()):
        return array
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return pc.cast(array, pa.int64())
    if pa.types.is_floating(kind):
        wide = pc.cast(array, pa.float64())
        return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide)
    return array if _is_list(kind) else pc.cast(array, pa.string())


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _elements(name: str, column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return a list column's elements, nulls included, and how many each row has, ``[N]``."""
    array = plain(column)
    if pa.types.is_null(array.type):
        return pa.nulls(0), np.zeros(len(array), np.int64)
    if not _is_list(array.type):
        raise ContractError(
            f"field {name!r} holds {array.type} but is encoded from lists",
            expected="list",
            found=str(array.type),
        )
    counts = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    return pc.list_flatten(array), counts.astype(np.int64)


def _less(counts: NDArray[np.int64], dropped: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many elements each row has without the dropped ones."""
    row = np.repeat(np.arange(len(counts)), counts)
    return counts - np.bincount(row[dropped], minlength=len(counts))


def without_null_elements(
    name: str, column: pa.Array | pa.ChunkedArray, bag: pa.Array | pa.ChunkedArray
) -> pa.Array | pa.ChunkedArray:
    """Return a column of lists without the elements at whose places the bag's are null.

    Args:
        name: the column's.
        column: lists that belong one by one to the bag's elements, ``[N]``.
        bag: ``[N]`` lists.
    """
    others, others_counts = _elements(name, bag)
    if not (missing := np.asarray(plain(others).is_null())).any():
        return column
    elements, counts = _elements(name, column)
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = (np.cumsum(others_counts) - others_counts)[row]
    dropped = place < others_counts[row]
    dropped[dropped] = missing[(first + place)[dropped]]
    offsets = np.concatenate([[0], np.cumsum(_less(counts, dropped))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), elements.filter(pa.array(~dropped)))


def _has_fewer_values(array: pa.Array) -> bool:
    """Whether a dictionary's values, each once, are fewer look-ups than the rows.

    Not those of floats: a cast may fail on one that no row holds.
    """
    return (
        pa.types.is_dictionary(array.type)
        and len(array.dictionary) <= len(array)
        and not pa.types.is_floating(array.type.value_type)
    )


def _numbers(array: pa.Array) -> NDArray[np.uint64]:
    """Return an int64 array's values, anything where it is null, wrapped round as unsigned."""
    values: NDArray[np.int64] = pc.fill_null(array, 0).to_numpy()
    return values.view(np.uint64)


@dataclass(frozen=True)
class Vocabulary:
    """The known values of a field, sorted."""

    values: pa.Array

    @property
    def size(self) -> int:
        """Known values and the two reserved indices."""
        return len(self.values) + FIRST_KNOWN

    def spec(self) -> dict[str, Any]:
        """Return nothing: the values are stored as a table."""
        return {}

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return ``[N]`` indices.

        Raises:
            ContractError: the column's type isn't the one that was fitted.
        """
        array = _whole(column)
        if _has_fewer_values(array) and not pa.types.is_floating(self.values.type):
            of_value = np.append(self.encode(name, array.dictionary), np.int32(MISSING))
            places = pc.fill_null(pc.cast(array.indices, pa.int64()), len(of_value) - 1)
            return np.asarray(of_value.take(places.to_numpy()))
        array = plain(array)
        if len(self.values) == 0 or pa.types.is_null(array.type):
            index = np.full(len(array), OUT_OF_VOCABULARY, np.int32)
        else:
            index = self._look_up(self._conform(name, array))
        if array.null_count:
            index[np.asarray(array.is_null())] = MISSING
        return index

    def _look_up(self, array: pa.Array) -> NDArray[np.int32]:
        """Return the index of each value; anything where it is null."""
        if self._by_number is None:
            found = pc.fill_null(pc.index_in(array, value_set=self.values), OUT_OF_VOCABULARY - FIRST_KNOWN)
            return np.asarray(found) + np.int32(FIRST_KNOWN)
        lowest, table = self._by_number
        # Unsigned, a number below the lowest wraps round to far above the highest.
        offset = _numbers(array) - lowest
        np.minimum(offset, np.uint64(len(table) - 1), out=offset)
        return np.asarray(table.take(offset.view(np.int64)))

    @cached_property
    def _by_number(self) -> tuple[np.uint64, NDArray[np.int32]] | None:
        """The lowest value, and the index of each number from there to one past the highest.

        None where the values aren't whole numbers, or lie too far apart.
        """
        if self.values.type != pa.int64():
            return None
        values = _numbers(self.values)
        lowest = values.view(np.int64).min().view(np.uint64)
        offset = values - lowest
        if (reach := int(offset.max())) > _TABLE_SIZE * max(len(values), 1024):
            return None
        table = np.full(reach + 2, OUT_OF_VOCABULARY, np.int32)
        table[offset.view(np.int64)] = np.arange(len(offset)) + FIRST_KNOWN
        return lowest, table

    def _conform(self, name: str, array: pa.Array) -> pa.Array:
        """Cast numbers to the fitted type: a column of whole numbers with nulls often arrives as floats."""
        fitted = self.values.type
        if array.type == fitted:
            return array
        try:
            if pa.types.is_string(array.type) == pa.types.is_string(fitted):
                return pc.cast(array, fitted)
        except pa.ArrowInvalid:
            pass
        raise ContractError(
            f"field {name!r} holds {array.type}, but the encoder was fitted on {fitted}: "
            f"bring the column to {fitted}, or train again",
            expected=str(fitted),
            found=str(array.type),
        )


@dataclass(frozen=True)
class Bag:
    """A field of lists: its vocabulary, and L, the values kept of a list (the first ones)."""

    vocabulary: Vocabulary
    length: int

    @property
    def size(self) -> int:
        """The vocabulary's."""
        return self.vocabulary.size

    def spec(self) -> dict[str, Any]:
        """Return L."""
        return {"length": self.length}

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return ``[N, L]`` indices; null elements are dropped."""
        elements, counts = _elements(name, column)
        index = self.vocabulary.encode(name, elements)
        if (missing := index == MISSING).any():
            counts, index = _less(counts, missing), index[~missing]
        if counts.max(initial=0) > self.length:
            place = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
            index = index[place < self.length]
        out = np.zeros((len(column), self.length), np.int32)
        out[np.arange(self.length) < counts[:, None]] = index
        return out


@dataclass(frozen=True)
class Standard:
    """A number: mean and standard deviation over training rows, after ``log1p`` where tagged."""

    mean: float
    std: float
    log1p: bool

    @property
    def size(self) -> int:
        """One number."""
        return 1

    def spec(self) -> dict[str, Any]:
        """Return all of it."""
        return {"mean": self.mean, "std": self.std, "log1p": self.log1p}

    @staticmethod
    def numbers(name: str, column: pa.Array | pa.ChunkedArray, *, log1p: bool) -> NDArray[np.float64]:
        """Return ``[N]`` values, NaN where missing or infinite."""
        array = _whole(column)
        values: NDArray[np.float64]
        if array.type in (pa.float32(), pa.float64()):
            values = array.to_numpy(zero_copy_only=False).astype(np.float64)
        else:
            array = plain(array)
            if pa.types.is_string(array.type) or _is_list(array.type):
                raise ContractError(
                    f"field {name!r} holds {array.type} but is encoded as a number",
                    expected="a number",
                    found=str(array.type),
                )
            values = np.array(pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False))
        wild = ~np.isfinite(values)
        if wild.any():
            values[wild] = np.nan
        np.clip(values, -LARGEST, LARGEST, out=values)
        if log1p:
            np.log1p(np.maximum(values, 0.0, out=values), out=values)
        return values

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
        """Return ``[N]`` deviations from the mean in standard deviations."""
        values = self.numbers(name, column, log1p=self.log1p)
        values -= self.mean
        values /= self.std
        encoded = np.clip(values, -MAX_DEVIATIONS, MAX_DEVIATIONS, out=values).astype(np.float32)
        encoded[np.isnan(encoded)] = 0.0
        return encoded


@dataclass(frozen=True)
class Vector:
    """A dense vector of a fixed width W; 0 when no training row had one: then all are one 0."""

    width: int

    @property
    def size(self) -> int:
        """The width."""
        return max(self.width, 1)

    def spec(self) -> dict[str, Any]:
        """Return the width."""
        return {"width": self.width}

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
        """Return ``[N, W]``; a null or empty list is all 0.

        Raises:
            DataError: a list has another width.
        """
        elements, counts = _elements(name, column)
        if not self.width:
            return np.zeros((len(column), 1), np.float32)
        wrong = np.flatnonzero((counts != 0) & (counts != self.width))
        if len(wrong):
            rows = tuple(f"row {row}: {counts[row]} values" for row in wrong[:3].tolist())
            raise DataError(
                "vectors", [Fault(f"a vector must hold {self.width} values", name, len(wrong), rows)]
            )
        values = Standard.numbers(name, elements, log1p=False).astype(np.float32)
        values[np.isnan(values)] = 0.0
        if len(values) == len(column) * self.width:
            return values.reshape(-1, self.width)
        out = np.zeros((len(column), self.width), np.float32)
        out[counts != 0] = values.reshape(-1, self.width)
        return out


@dataclass(frozen=True)
class Weights:
    """Numbers that belong one by one to the elements of a bag; the first L are kept, as of the bag."""

    length: int

    @property
    def size(self) -> int:
        """L."""
        return self.length

    def spec(self) -> dict[str, Any]:
        """Return L."""
        return {"length": self.length}

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
        """Return ``[N, L]``; 0 where the list is shorter, and where a number is missing."""
        elements, counts = _elements(name, column)
        values = Standard.numbers(name, elements, log1p=False).astype(np.float32)
        values[np.isnan(values)] = 0.0
        if counts.max(initial=0) > self.length:
            place = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
            values = values[place < self.length]
        out = np.zeros((len(column), self.length), np.float32)
        out[np.arange(self.length) < counts[:, None]] = values
        return out


FieldEncoder = Vocabulary | Bag | Standard | Vector | Weights


class VocabularyFit:
    """Counts values over tables; those with too few rows stay out of the vocabulary."""

    def __init__(self, field: FeatureField, min_count: int) -> None:
        self.field, self.min_count = field, min_count
        self.counts: pa.Table | None = None
        self.longest = 1

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in another table's column."""
        if self.field.kind == "bag":
            elements, counts = _elements(self.field.name, column)
            array = plain(elements)
            valid = _less(counts, np.asarray(array.is_null()))
            self.longest = max(self.longest, int(valid.max(initial=0)))
        else:
            array = plain(column)
        if pa.types.is_null(array.type):
            return
        if _is_list(array.type):
            raise ContractError(
                f"field {self.field.name!r} holds {array.type}: tag it kind=bag or kind=vector"
            )
        found = pc.value_counts(pc.drop_null(array))
        counts = pa.table({"value": found.field("values"), "count": found.field("counts")})
        if self.counts is not None:
            if self.counts.schema != counts.schema:
                raise ContractError(
                    f"field {self.field.name!r} changes its type between tables",
                    expected=str(self.counts.schema.field("value").type),
                    found=str(array.type),
                )
            counts = pa.concat_tables([self.counts, counts])
        merged = counts.group_by("value").aggregate([("count", "sum")])
        self.counts = pa.table({"value": merged["value"], "count": merged["count_sum"]})

    def done(self) -> Vocabulary | Bag:
        """Return the fitted encoder."""
        values: pa.Array = pa.array([], pa.string())
        if self.counts is not None:
            kept = self.counts.filter(pc.greater_equal(self.counts["count"], self.min_count))["value"]
            values = plain(kept.take(pc.sort_indices(kept)))
        if self.field.kind == "categorical":
            return Vocabulary(values)
        longest_kept = int(self.field.tag("max_length", str(DEFAULT_BAG_LENGTH)))
        return Bag(Vocabulary(values), min(self.longest, longest_kept))


def share_vocabulary(fits: Sequence[VocabularyFit]) -> None:
    """Give several fields one vocabulary: a value counts as often as it occurs in any of them.

    Raises:
        ContractError: the values of one are texts, those of another numbers.
    """
    tables = [fit.counts for fit in fits if fit.counts is not None]
    if len(kinds := {str(table.schema.field("value").type) for table in tables}) > 1:
        names = ", ".join(fit.field.name for fit in fits)
        raise ContractError(
            f"fields {names} cannot share a vocabulary: their values are {' and '.join(sorted(kinds))}; bring"
            " them to one type, or remove the tag `vocabulary`"
        )
    if tables:
        merged = pa.concat_tables(tables).group_by("value").aggregate([("count", "sum")])
        for fit in fits:
            fit.counts = pa.table({"value": merged["value"], "count": merged["count_sum"]})


class StandardFit:
    """Merges mean and squared deviations over tables (Chan et al. 1979)."""

    def __init__(self, field: FeatureField) -> None:
        self.name, self.log1p = field.name, field.tag("transform") == "log1p"
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in another table's column."""
        values = Standard.numbers(self.name, column, log1p=self.log1p)
        values = values[~np.isnan(values)]
        if not len(values):
            return
        count, mean = len(values), float(values.mean())
        total, step = self.count + count, mean - self.mean
        self.squares += float(np.square(values - mean).sum()) + step * step * self.count * count / total
        self.mean += step * count / total
        self.count = total

    def done(self) -> Standard:
        """Return the fitted encoder."""
        std = float(np.sqrt(self.squares / self.count)) if self.count else 0.0
        # A constant has a deviation of rounding errors only, which would be blown up to whole numbers.
        if not np.isfinite(std) or std <= 1e-9 * abs(self.mean):
            std = 1.0
        return Standard(self.mean, std, self.log1p)


class VectorFit:
    """Finds the one width that the vectors have."""

    def __init__(self, field: FeatureField) -> None:
        self.name, self.width = field.name, 0

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in another table's column."""
        if not self.width:
            _, counts = _elements(self.name, column)
            self.width = int(counts[counts != 0][:1].sum())
        Vector(self.width).encode(self.name, column)

    def done(self) -> Vector:
        """Return the fitted encoder."""
        return Vector(self.width)


class WeightsFit:
    """Finds the longest list, up to the field's ``max_length``."""

    def __init__(self, field: FeatureField) -> None:
        self.name, self.most = field.name, int(field.tag("max_length", str(DEFAULT_BAG_LENGTH)))
        self.longest = 1

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in another table's column."""
        _, counts = _elements(self.name, column)
        self.longest = max(self.longest, int(counts.max(initial=0)))

    def done(self) -> Weights:
        """Return the fitted encoder."""
        return Weights(min(self.longest, self.most))


FieldFit = VocabularyFit | StandardFit | VectorFit | WeightsFit


def fitter(field: FeatureField, min_count: int) -> FieldFit:
    """Return what fits a field of its kind."""
    if field.kind == "dense":
        return StandardFit(field)
    if field.kind == "weights":
        return WeightsFit(field)
    return VectorFit(field) if field.kind == "vector" else VocabularyFit(field, min_count)
