"""Fields of numbers: single ones, vectors, and the weights of a bag's elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmlora.encoding.arrow import elements_of, is_list, plain, whole
from mmlora.encoding.vocabularies import DEFAULT_BAG_LENGTH
from mmlora.errors import ContractError, DataError, Fault
from mmlora.schema import FeatureField

# A broken upstream value must not swamp a row's other inputs; no useful training value is larger than this.
MAX_DEVIATIONS = 20.0
# Squares of it can still be summed in float64, and it fits into float32.
LARGEST = 1e30


Transform = Literal["", "log", "log1p"]


@dataclass(frozen=True)
class Standard:
    """A number: mean and standard deviation over training rows, after a logarithm where tagged.

    Attributes:
        mean: mean over training rows.
        std: standard deviation over training rows.
        transform: ``log1p`` (negative numbers count as 0), ``log`` (0 and below are missing), or none.
    """

    mean: float
    std: float
    transform: Transform = ""

    @property
    def size(self) -> int:
        """1: a single number."""
        return 1

    def spec(self) -> dict[str, object]:
        """Return all attributes."""
        return {"mean": self.mean, "std": self.std, "transform": self.transform}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Standard:
        """Restore from the result of :meth:`spec`; older bundles have ``log1p`` instead of ``transform``."""
        known = {"mean": spec["mean"], "std": spec["std"]}
        return cls(**known, transform=spec.get("transform", "log1p" if spec.get("log1p") else ""))

    @staticmethod
    def numbers(
        name: str, column: pa.Array | pa.ChunkedArray, transform: Transform = ""
    ) -> NDArray[np.float64]:
        """Return the values after the transform, ``[N]``, NaN where missing or infinite."""
        array = whole(column)
        values: NDArray[np.float64]
        if array.type in (pa.float32(), pa.float64()):
            values = array.to_numpy(zero_copy_only=False).astype(np.float64)
        else:
            array = plain(array)
            if pa.types.is_string(array.type) or is_list(array.type):
                raise ContractError(
                    f"field {name!r} has type {array.type} but is encoded as a number",
                    expected="a number",
                    found=str(array.type),
                )
            values = np.array(pc.cast(array, pa.float64()).to_numpy(zero_copy_only=False))
        wild = ~np.isfinite(values)
        if wild.any():
            values[wild] = np.nan
        np.clip(values, -LARGEST, LARGEST, out=values)
        if transform == "log1p":
            np.log1p(np.maximum(values, 0.0, out=values), out=values)
        elif transform == "log":
            values[values <= 0] = np.nan
            np.log(values, out=values)
        return values

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
        """Return the standardised values, ``[N]``."""
        values = self.numbers(name, column, self.transform)
        values -= self.mean
        values /= self.std
        encoded = np.clip(values, -MAX_DEVIATIONS, MAX_DEVIATIONS, out=values).astype(np.float32)
        encoded[np.isnan(encoded)] = 0.0
        return encoded


@dataclass(frozen=True)
class Vector:
    """A dense vector of fixed width W; if no training row has one, W is 0 and each is encoded as a 0."""

    width: int

    @property
    def size(self) -> int:
        """The width."""
        return max(self.width, 1)

    def spec(self) -> dict[str, object]:
        """Return the width."""
        return {"width": self.width}

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
        """Return the vectors, ``[N, W]``; a null or empty list becomes zeros.

        Raises:
            DataError: a list has another width.
        """
        elements, counts = elements_of(name, column)
        if not self.width:
            return np.zeros((len(column), 1), np.float32)
        wrong = np.flatnonzero((counts != 0) & (counts != self.width))
        if len(wrong):
            rows = tuple(f"row {row}: {counts[row]} values" for row in wrong[:3].tolist())
            raise DataError(
                "vectors", [Fault(f"a vector must have {self.width} values", name, len(wrong), rows)]
            )
        values = Standard.numbers(name, elements).astype(np.float32)
        values[np.isnan(values)] = 0.0
        if len(values) == len(column) * self.width:
            return values.reshape(-1, self.width)
        out = np.zeros((len(column), self.width), np.float32)
        out[counts != 0] = values.reshape(-1, self.width)
        return out


@dataclass(frozen=True)
class Weights:
    """One number for each element of a bag; the first L are kept, as in the bag."""

    length: int

    @property
    def size(self) -> int:
        """L."""
        return self.length

    def spec(self) -> dict[str, object]:
        """Return L."""
        return {"length": self.length}

    def encode(self, name: str, column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
        """Return ``[N, L]``; 0 where the list is shorter, and where a number is missing."""
        elements, counts = elements_of(name, column)
        values = Standard.numbers(name, elements).astype(np.float32)
        values[np.isnan(values)] = 0.0
        if counts.max(initial=0) > self.length:
            place = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
            values = values[place < self.length]
        out = np.zeros((len(column), self.length), np.float32)
        out[np.arange(self.length) < counts[:, None]] = values
        return out


class StandardFit:
    """Merges mean and squared deviations over tables (Chan et al. 1979)."""

    def __init__(self, field: FeatureField) -> None:
        self.name, self.transform = field.name, _transform_of(field)
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in another table's column."""
        values = Standard.numbers(self.name, column, self.transform)
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
        # A constant's deviation is only rounding errors, which standardising would blow up.
        if not np.isfinite(std) or std <= 1e-9 * abs(self.mean):
            std = 1.0
        return Standard(self.mean, std, self.transform)


def _transform_of(field: FeatureField) -> Transform:
    """Return the encoder's transform of a number; other transforms are applied at retrieval."""
    named = field.tag("transform")
    return cast(Transform, named) if named in ("log", "log1p") else ""


class VectorFit:
    """Finds the vectors' common width."""

    def __init__(self, field: FeatureField) -> None:
        self.name, self.width = field.name, 0

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in another table's column."""
        if not self.width:
            _, counts = elements_of(self.name, column)
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
        _, counts = elements_of(self.name, column)
        self.longest = max(self.longest, int(counts.max(initial=0)))

    def done(self) -> Weights:
        """Return the fitted encoder."""
        return Weights(min(self.longest, self.most))
