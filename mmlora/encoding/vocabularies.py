"""Fields of known values: categorical fields and bags of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmlora.encoding.arrow import elements_of, is_list, plain, whole, without
from mmlora.errors import ContractError
from mmlora.schema import FeatureField

MISSING, OUT_OF_VOCABULARY, FIRST_KNOWN = 0, 1, 2
DEFAULT_BAG_LENGTH = 16
# Integers are looked up in a table, at a tenth of the cost of hashing, unless the table would be mostly
# empty.
_TABLE_SIZE = 16


def _has_fewer_values(array: pa.Array) -> bool:
    """Return whether looking up a dictionary's values takes fewer look-ups than its rows.

    False for floats, because a cast may fail on a value that no row has.
    """
    return (
        pa.types.is_dictionary(array.type)
        and len(array.dictionary) <= len(array)
        and not pa.types.is_floating(array.type.value_type)
    )


def _numbers(array: pa.Array) -> NDArray[np.uint64]:
    """Return an int64 array's values as unsigned (wrapped); values at nulls are arbitrary."""
    values: NDArray[np.int64] = pc.fill_null(array, 0).to_numpy()
    return values.view(np.uint64)


@dataclass(frozen=True)
class Vocabulary:
    """The known values of a field, sorted."""

    values: pa.Array

    @property
    def size(self) -> int:
        """Number of known values plus the two reserved indices."""
        return len(self.values) + FIRST_KNOWN

    def spec(self) -> dict[str, object]:
        """Return an empty mapping, because the values are stored as a table."""
        return {}

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return ``[N]`` indices.

        Raises:
            ContractError: the column's type differs from the fitted one.
        """
        array = whole(column)
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
        """Return the index of each value; arbitrary for nulls."""
        if self._by_number is None:
            found = pc.fill_null(pc.index_in(array, value_set=self.values), OUT_OF_VOCABULARY - FIRST_KNOWN)
            return np.asarray(found) + np.int32(FIRST_KNOWN)
        lowest, table = self._by_number
        # As unsigned, a number below the lowest wraps to far above the highest.
        offset = _numbers(array) - lowest
        np.minimum(offset, np.uint64(len(table) - 1), out=offset)
        return np.asarray(table.take(offset.view(np.int64)))

    @cached_property
    def _by_number(self) -> tuple[np.uint64, NDArray[np.int32]] | None:
        """The lowest value, and the index of each number from there to one past the highest.

        None if the values aren't integers, or are too far apart.
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
        """Cast numbers to the fitted type, because integer columns with nulls often arrive as floats."""
        fitted = self.values.type
        if array.type == fitted:
            return array
        try:
            if pa.types.is_string(array.type) == pa.types.is_string(fitted):
                return pc.cast(array, fitted)
        except pa.ArrowInvalid:
            pass
        raise ContractError(
            f"field {name!r} has type {array.type}, but the encoder was fitted on {fitted}: "
            f"convert the column to {fitted}, or train again",
            expected=str(fitted),
            found=str(array.type),
        )


@dataclass(frozen=True)
class Bag:
    """A field of lists: its vocabulary, and L, the number of values kept per list (the first ones)."""

    vocabulary: Vocabulary
    length: int

    @property
    def size(self) -> int:
        """The vocabulary's size."""
        return self.vocabulary.size

    def spec(self) -> dict[str, object]:
        """Return L."""
        return {"length": self.length}

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
        """Return ``[N, L]`` indices; null elements are dropped."""
        elements, counts = elements_of(name, column)
        index = self.vocabulary.encode(name, elements)
        if (missing := index == MISSING).any():
            counts, index = without(counts, missing), index[~missing]
        if counts.max(initial=0) > self.length:
            place = np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)
            index = index[place < self.length]
        out = np.zeros((len(column), self.length), np.int32)
        out[np.arange(self.length) < counts[:, None]] = index
        return out


class VocabularyFit:
    """Counts values over tables; values with too few rows are left out of the vocabulary."""

    def __init__(self, field: FeatureField, min_count: int) -> None:
        self.field, self.min_count = field, min_count
        self.counts: pa.Table | None = None
        self.longest = 1

    def add(self, column: pa.ChunkedArray) -> None:
        """Add another table's column."""
        if self.field.kind == "bag":
            elements, counts = elements_of(self.field.name, column)
            array = plain(elements)
            valid = without(counts, np.asarray(array.is_null()))
            self.longest = max(self.longest, int(valid.max(initial=0)))
        else:
            array = plain(column)
        if pa.types.is_null(array.type):
            return
        if is_list(array.type):
            raise ContractError(
                f"field {self.field.name!r} has type {array.type}: tag it kind=bag or kind=vector"
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
        ContractError: some fields have text values and others numbers.
    """
    tables = [fit.counts for fit in fits if fit.counts is not None]
    if len(kinds := {str(table.schema.field("value").type) for table in tables}) > 1:
        names = ", ".join(fit.field.name for fit in fits)
        raise ContractError(
            f"fields {names} can't share a vocabulary: their values are {' and '.join(sorted(kinds))}; "
            "convert them to one type, or remove the tag `vocabulary`"
        )
    if tables:
        merged = pa.concat_tables(tables).group_by("value").aggregate([("count", "sum")])
        for fit in fits:
            fit.counts = pa.table({"value": merged["value"], "count": merged["count_sum"]})
