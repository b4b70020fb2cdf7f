"""The encoder of a whole contract, composed of its fields' encoders.

It is used between retrieval and the model, in training and in scoring. It is fitted once, on training
rows, and stored with the bundle. Everything with a vocabulary has the same index layout: 0 is missing, 1 is
out of vocabulary, 2 and up are the known values in sorted order.

========== ====================== ==================================================
kind       Arrow column           encoded
========== ====================== ==================================================
categorical  string, int, bool    index, ``[N]`` int32
bag          list of those        indices, ``[N, L]`` int32, padded with 0
dense        number               standardised, ``[N]`` float32; missing is 0, the mean
vector       list of numbers      ``[N, W]`` float32; missing is 0
weights      list of numbers      ``[N, L]`` float32, of a bag's elements; missing is 0
history      list of item ids     ``[N, R]`` float32, and the same for the item: see :mod:`.history`
counts       list of numbers      read only by its history
========== ====================== ==================================================

NaN counts as missing. A side table (of users, items or domains) is encoded with the side's own fields, once
per entity; :meth:`Encoder.assemble` then gathers rows of several sides into batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mmlora.batch import Batch
from mmlora.encoding.arrow import plain, without_null_elements
from mmlora.encoding.fields import FieldEncoder, FieldFit, fitter
from mmlora.encoding.history import History
from mmlora.encoding.numbers import Standard, Vector, Weights
from mmlora.encoding.vocabularies import FIRST_KNOWN, Bag, Vocabulary, VocabularyFit, share_vocabulary
from mmlora.errors import ContractError
from mmlora.schema import DOMAIN_ID, ITEM_ID, Entity, FeatureContract, FeatureField, FieldKind, Id, items_of


class Shape(NamedTuple):
    """What the model needs to know about a field.

    Attributes:
        size: vocabulary size with the two reserved indices (categorical, bag), width (vector), 1 (dense).
        side: the side that the field belongs to.
        partner: for a user's field, the item's field that it is matched or multiplied with; for weights,
            their bag.
    """

    name: str
    kind: FieldKind
    size: int
    side: Entity
    partner: str = ""


@dataclass(frozen=True)
class EncodedColumns:
    """N encoded rows of some of the contract's fields.

    Attributes:
        rows: number of rows, N.
        categorical: ``[N, Fc]`` int32, a column for each of ``categorical_names``.
        dense: ``[N, Fd]`` float32, a column for each of ``dense_names``.
        vectors: ``[N, W]`` float32 by field name, including the kinds ``weights`` and ``history``.
        bags: ``[N, L]`` int32 by field name.
        domain: the domain's index, ``[N]`` int32, -1 when unknown; None without a domain column.
    """

    rows: int
    categorical_names: tuple[str, ...]
    categorical: NDArray[np.int32]
    dense_names: tuple[str, ...]
    dense: NDArray[np.float32]
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    bags: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    domain: NDArray[np.int32] | None = None


Side = tuple[EncodedColumns, NDArray[np.int64]]


@dataclass(frozen=True)
class Encoder:
    """A fitted encoder of one feature contract.

    Attributes:
        contract: the fields, in the order of a batch.
        domains: the training domains, sorted; a domain's index is its position.
        fields: the fitted encoders by field name.
    """

    contract: FeatureContract
    domains: tuple[Id, ...]
    fields: Mapping[str, FieldEncoder]

    @classmethod
    def fit(
        cls,
        contract: FeatureContract,
        tables: pa.Table | Iterable[pa.Table],
        *,
        domains: Iterable[Id],
        min_count: int = 1,
        history: History | None = None,
    ) -> Encoder:
        """Fit on training rows, in one table or many that are read one after another.

        The same rows in the same tables give the same encoder to the last bit. Vocabularies don't depend on
        the order of rows; the last bits of a mean may.

        Args:
            contract: the fields to encode; each must be a column of every table.
            tables: only training rows, because otherwise vocabularies and means would leak test rows.
            domains: the training domains.
            min_count: a value with fewer rows than this is out of vocabulary.
            history: the history fitted on the same rows, if the contract has one.

        Raises:
            ContractError: a field's column is absent or of a type that its kind can't encode.
            DataError: vectors of a field differ in width.
        """
        others = [f for f in contract.fields if f.kind not in ("history", "counts")]
        fitters = {f.name: fitter(f, min_count) for f in others}
        for table in [tables] if isinstance(tables, pa.Table) else tables:
            _require(table, contract.fields)
            for f in others:
                fitters[f.name].add(_column(table, f))
        _share_vocabularies(fitters, {f.name: f.tag("vocabulary") for f in contract.fields})
        fitted: dict[str, FieldEncoder] = {name: fit.done() for name, fit in fitters.items()}
        if history is not None:
            fitted |= {f.name: history for f in contract.fields if f.kind == "history"}
        return cls(contract, tuple(sorted(set(domains))), fitted)

    def field_shapes(self) -> list[Shape]:
        """Return each field's name, kind, size and side, in the contract's order."""
        names = {f.name for f in self.contract.fields}
        partners = {f.name: f.partner if f.partner in names else "" for f in self.contract.fields}
        shapes = []
        for f in self.contract.fields:
            if f.kind == "history":
                size, item = self.fields[f.name].size, items_of(f.name)
                shapes += [Shape(f.name, f.kind, size, f.side, item), Shape(item, f.kind, size, "item")]
            elif f.kind != "counts":
                shapes.append(Shape(f.name, f.kind, self.fields[f.name].size, f.side, partners[f.name]))
        return shapes

    def names(self, kind: FieldKind) -> tuple[str, ...]:
        """Return the names of a kind's fields, in the order of a batch's columns."""
        return tuple(f.name for f in self.contract.fields if f.kind == kind)

    def domain_index(self, domains: pa.Array | pa.ChunkedArray | Sequence[Id]) -> NDArray[np.int32]:
        """Return the index of each domain, ``[N]``; -1 for one absent at training."""
        column = domains if isinstance(domains, pa.Array | pa.ChunkedArray) else pa.array(domains)
        known = Vocabulary(plain(pa.array(self.domains)))
        return np.maximum(known.encode(DOMAIN_ID, column) - FIRST_KNOWN, -1).astype(np.int32)

    def encode(self, table: pa.Table, fields: Iterable[FeatureField] | None = None) -> EncodedColumns:
        """Encode a table's rows.

        Args:
            table: N rows with a column for each field.
            fields: the fields to encode, e.g. ``contract.keyed_by(["user_id"]).fields``; None means all.

        Raises:
            ContractError: a column is absent, or its type differs from the fitted one.
            DataError: a vector has another width.
        """
        wanted = self.contract.fields if fields is None else tuple(fields)
        _require(table, wanted)
        if unknown := [f.name for f in wanted if f not in self.contract.fields]:
            raise ContractError(f"fields {unknown} are not in the contract", expected=list(self.fields))
        encoded: dict[str, NDArray[Any]] = {
            f.name: of.encode(f.name, _column(table, f))
            for f in wanted
            if (of := self.fields.get(f.name)) and not isinstance(of, History)
        }
        of_kind = {kind: [f.name for f in wanted if f.kind == kind] for kind in ("categorical", "dense")}
        return EncodedColumns(
            rows=table.num_rows,
            categorical_names=tuple(of_kind["categorical"]),
            categorical=_matrix([encoded[name] for name in of_kind["categorical"]], table.num_rows, np.int32),
            dense_names=tuple(of_kind["dense"]),
            dense=_matrix([encoded[name] for name in of_kind["dense"]], table.num_rows, np.float32),
            vectors={
                **{f.name: encoded[f.name] for f in wanted if f.kind in ("vector", "weights")},
                **self._histories(table, {f.name for f in wanted}),
            },
            bags={f.name: encoded[f.name] for f in wanted if f.kind == "bag"},
            domain=self.domain_index(table[DOMAIN_ID]) if DOMAIN_ID in table.column_names else None,
        )

    def _histories(self, table: pa.Table, wanted: set[str]) -> dict[str, NDArray[np.float32]]:
        """Return the wanted vectors of histories and of items."""
        found = {}
        for f in self.contract.fields:
            history = self.fields.get(f.name)
            if not isinstance(history, History):
                continue
            if f.name in wanted:
                lists = (table[name] for name in (f.name, f.tag("rows"), f.tag("clicks")))
                found[f.name] = history.of_users(f.name, *lists)
            if ITEM_ID in wanted:
                found[items_of(f.name)] = history.of_items(ITEM_ID, table[ITEM_ID])
        return found

    def assemble(self, sides: Sequence[Side], *, label: NDArray[Any] | None = None) -> Batch:
        """Gather rows of several sides into one batch.

        Args:
            sides: encoded columns, each with the rows to take, ``[B]``: row b of the batch joins row
                ``rows[b]`` of every side. A field that several sides have is taken from the first.
            label: ``[B]`` 0/1, if known.

        Raises:
            ContractError: no side has one of the contract's fields, or none has the domain.
        """
        held = {n for s, _ in sides for n in (*s.categorical_names, *s.dense_names, *s.vectors, *s.bags)}
        absent = [f.name for f in self.contract.fields if f.name not in held and f.kind != "counts"]
        domains = [s.domain[rows] for s, rows in sides if s.domain is not None]
        if absent or not domains:
            raise ContractError(
                f"no side has {', '.join(absent) or 'the domain'}", expected=self.fields.keys()
            )
        vectors = {n: s.vectors[n][rows] for s, rows in reversed(sides) for n in s.vectors}
        bags = {n: s.bags[n][rows].astype(np.int64) for s, rows in reversed(sides) for n in s.bags}
        return Batch(
            categorical=torch.from_numpy(
                _gather(
                    [(s.categorical_names, s.categorical, r) for s, r in sides],
                    self.names("categorical"),
                    np.int64,
                )
            ),
            dense=torch.from_numpy(
                _gather([(s.dense_names, s.dense, r) for s, r in sides], self.names("dense"), np.float32)
            ),
            domain=torch.from_numpy(domains[0].astype(np.int64)),
            vectors={n: torch.from_numpy(vectors[n]) for n in self.contract.vectors},
            bags={n: torch.from_numpy(bags[n]) for n in self.names("bag")},
            label=None if label is None else torch.from_numpy(np.asarray(label).astype(np.float32)),
        )

    def to_tables(self) -> dict[str, pa.Table]:
        """Return the vocabularies by field name; with :meth:`spec` they are the whole encoder."""
        vocabularies = {
            name: fitted.vocabulary if isinstance(fitted, Bag) else fitted
            for name, fitted in self.fields.items()
            if isinstance(fitted, Bag | Vocabulary)
        }
        tables = {name: pa.table({"value": vocabulary.values}) for name, vocabulary in vocabularies.items()}
        histories = {name: of.to_table() for name, of in self.fields.items() if isinstance(of, History)}
        return tables | histories

    def spec(self) -> dict[str, object]:
        """Return everything but the vocabularies, JSON-ready."""
        fitted = {name: encoder.spec() for name, encoder in self.fields.items()}
        return {"contract": self.contract.to_json(), "domains": list(self.domains), "fields": fitted}

    @classmethod
    def from_tables(cls, spec: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> Encoder:
        """Restore from the results of :meth:`spec` and :meth:`to_tables`."""
        contract = FeatureContract.from_json(spec["contract"])
        fields: dict[str, FieldEncoder] = {}
        for f in contract.fields:
            if f.kind == "counts":
                continue
            fitted = spec["fields"][f.name]
            if f.kind == "history":
                fields[f.name] = History.from_table(tables[f.name])
            elif f.kind == "dense":
                fields[f.name] = Standard.from_spec(fitted)
            elif f.kind == "vector":
                fields[f.name] = Vector(**fitted)
            elif f.kind == "weights":
                fields[f.name] = Weights(**fitted)
            else:
                vocabulary = Vocabulary(plain(tables[f.name]["value"]))
                fields[f.name] = Bag(vocabulary, **fitted) if f.kind == "bag" else vocabulary
        return cls(contract, tuple(spec["domains"]), fields)


def _share_vocabularies(fitters: Mapping[str, FieldFit], named: Mapping[str, str]) -> None:
    """Share one vocabulary among fields linked by the tag ``vocabulary``."""
    groups: dict[str, list[VocabularyFit]] = {}
    for name, fit in fitters.items():
        if isinstance(fit, VocabularyFit):
            groups.setdefault(_last_named(name, named), []).append(fit)
    for fits in groups.values():
        if len(fits) > 1:
            share_vocabulary(fits)


def _last_named(field: str, named: Mapping[str, str]) -> str:
    """Follow the tags from field to field; a cycle is represented by any of its fields."""
    passed = [field]
    while (field := named.get(field, "")) in named and field not in passed:
        passed.append(field)
    return min(passed[passed.index(field) :]) if field in passed else passed[-1]


def _column(table: pa.Table, f: FeatureField) -> pa.ChunkedArray:
    """Return a field's column; for weights, without those of the null elements that their bag drops."""
    column = table[f.name]
    if f.kind == "weights" and f.partner in table.column_names:
        return without_null_elements(f.name, column, table[f.partner])
    return column


def _require(table: pa.Table, fields: Iterable[FeatureField]) -> None:
    absent = [f.name for f in fields if f.name not in table.column_names]
    if absent:
        raise ContractError(
            f"columns {', '.join(absent)} are absent; the contract's fields must all be retrieved",
            expected=absent,
            found=table.column_names,
        )


def _matrix(columns: list[NDArray[Any]], rows: int, dtype: type[np.generic]) -> NDArray[Any]:
    out = np.empty((rows, len(columns)), dtype)
    for place, column in enumerate(columns):
        out[:, place] = column
    return out


def _gather(
    sides: Sequence[tuple[tuple[str, ...], NDArray[Any], NDArray[np.int64]]],
    names: tuple[str, ...],
    dtype: type[np.generic],
) -> NDArray[Any]:
    """Gather each side's rows and put its columns in the order of ``names``."""
    out = np.empty((len(sides[0][2]), len(names)), dtype)
    place = {name: number for number, name in enumerate(names)}
    for held, matrix, rows in reversed(sides):  # so that the first side takes precedence
        if held:
            out[:, [place[name] for name in held]] = matrix.take(rows, axis=0)
    return out
