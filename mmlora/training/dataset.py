"""Training sets: encoded rows on disk, read through memory maps.

A folder of plain ``.npy`` columns with the encoder that made them, and a list of row numbers sorted by part
of the split and domain, so that any part is a slice. It is written chunk by chunk, so memory doesn't grow
with rows, and renamed into place when it is complete; a folder that exists is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mmlora.batch import Batch
from mmlora.encoding import EncodedColumns, Encoder
from mmlora.errors import DataError, UsageError
from mmlora.files import locked, read_json, replacing, write_atomically
from mmlora.schema import FeatureContract, Id
from mmlora.training.epoch import RowNumbers
from mmlora.training.splits import SPLIT_PARTS

FORMAT = 2
INDEX_ROWS = 1 << 20  # rows sorted at a time


@dataclass(frozen=True)
class EncodedRows:
    """A chunk of encoded rows to be written to disk.

    Attributes:
        columns: every field of the contract, and the domain.
        label: ``[N]`` 0/1.
        split: ``[N]`` index in ``SPLIT_PARTS``.
        user: ``[N]`` code of the user, the same in every chunk: see :func:`user_codes`.
    """

    columns: EncodedColumns
    label: npt.NDArray[Any]
    split: npt.NDArray[np.int8]
    user: npt.NDArray[np.int32]


def user_codes(users: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Return a number for the user of every row, ``[N]``, in order of first appearance."""
    array = users.combine_chunks() if isinstance(users, pa.ChunkedArray) else users
    codes: npt.NDArray[np.int32] = array.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return codes.astype(np.int32, copy=False)


@dataclass(frozen=True)
class TrainingManifest:
    """What a training set is made of.

    Attributes:
        rows: number of rows, N.
        fingerprint: fingerprint of the source data.
        contract: the feature contract.
        domains: training domains; a domain's index is its position.
        splits: number of rows by part of the split.
        domain_splits: number of rows by domain (in the order of ``domains``) and part.
        positives: number of rows with label 1.
        info: facts for the caller to keep, such as the as-of date and the split.
        format: version of the layout on disk.
    """

    rows: int
    fingerprint: str
    contract: FeatureContract
    domains: tuple[Id, ...]
    splits: dict[str, int]
    domain_splits: tuple[tuple[int, ...], ...]
    positives: int
    info: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """Return readable JSON."""
        raw = {**asdict(self), "contract": json.loads(self.contract.to_json())}
        return json.dumps(raw, indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainingManifest:
        """Read back what :meth:`to_json` wrote."""
        raw = json.loads(text)
        raw["contract"] = FeatureContract.from_json(json.dumps(raw["contract"]))
        raw["domains"] = tuple(raw["domains"])
        raw["domain_splits"] = tuple(tuple(counts) for counts in raw["domain_splits"])
        return cls(**raw)


class TrainingSet:
    """A training set on disk: memory-mapped columns, and batches of any of its rows.

    Attributes:
        path: the folder.
        manifest: what it is made of.
        domain: domain index, ``[N]`` int32.
        label: ``[N]`` int8.
        split: index in ``SPLIT_PARTS``, ``[N]`` int8.
        user: user code, ``[N]`` int32.
    """

    def __init__(self, path: Path, manifest: TrainingManifest) -> None:
        self.path, self.manifest = path, manifest
        self.domain, self.label = self._column("domain"), self._column("label")
        self.split, self.user = self._column("split"), self._column("user")
        self._categorical, self._dense = self._column("categorical"), self._column("dense")
        self._rows = self._column("rows")
        fields = manifest.contract.fields
        vectors = manifest.contract.vectors
        self._vectors = {name: self._column(_file_name("vector", name)) for name in vectors}
        self._bags = {f.name: self._column(_file_name("bag", f.name)) for f in fields if f.kind == "bag"}

    @classmethod
    def open(cls, path: Path) -> TrainingSet:
        """Open a finished training set.

        Raises:
            UsageError: there is none at ``path``, or it has another layout version.
        """
        file = path / "manifest.json"
        if not file.exists():
            raise UsageError(f"there is no training set at {path}: create it first")
        raw = read_json(file, "delete its folder, and train again")
        if raw["format"] != FORMAT:
            raise UsageError(
                f"{path} has layout {raw['format']}, not {FORMAT}: create the training set again"
            )
        return cls(path, TrainingManifest.from_json(json.dumps(raw)))

    @classmethod
    def write(
        cls,
        path: Path,
        chunks: Iterable[EncodedRows],
        *,
        encoder: Encoder,
        fingerprint: str,
        info: Mapping[str, Any] | None = None,
    ) -> TrainingSet:
        """Write a training set, or open it if it exists.

        The name should be derived from the set's content, so that an existing set is the same. A killed
        writer leaves a hidden folder, which the next writer of that name removes.

        Raises:
            DataError: there are no rows, or a row's domain is not a training domain.
        """
        with locked(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                with replacing(path, alone=True) as folder:
                    manifest = _write_columns(folder, chunks, encoder, fingerprint, dict(info or {}))
                    _write_rows(folder, manifest)
                    _write_encoder(folder, encoder)
                    write_atomically(folder / "manifest.json", manifest.to_json())
        return cls.open(path)

    def __len__(self) -> int:
        return self.manifest.rows

    @property
    def domains(self) -> list[Id]:
        """The training domains; a domain's index is its position."""
        return list(self.manifest.domains)

    @property
    def num_domains(self) -> int:
        """Number of training domains."""
        return len(self.manifest.domains)

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that made the columns."""
        spec = read_json(self.path / "encoder.json", "delete its folder, and train again")
        tables = {name: pq.read_table(self.path / file) for name, file in spec["files"].items()}
        return Encoder.from_tables(spec["encoder"], tables)

    def rows(self, split: str) -> RowNumbers:
        """Return the row numbers of a part of the split: ``train``, ``validation`` or ``test``.

        They are a slice of a file, in the order of domains, and of row numbers within each.
        """
        counts = [self.manifest.splits[part] for part in SPLIT_PARTS]
        part = SPLIT_PARTS.index(split)
        return self._rows[sum(counts[:part]) : sum(counts[: part + 1])]

    def batch(self, rows: npt.NDArray[np.integer[Any]]) -> Batch:
        """Gather rows in the given order, labels included."""
        return Batch(
            categorical=_take(self._categorical, rows, np.int64),
            dense=_take(self._dense, rows, np.float32),
            domain=_take(self.domain, rows, np.int64),
            vectors={name: _take(values, rows, np.float32) for name, values in self._vectors.items()},
            bags={name: _take(values, rows, np.int64) for name, values in self._bags.items()},
            label=_take(self.label, rows, np.float32),
        )

    def _column(self, name: str) -> npt.NDArray[Any]:
        # A plain array over the memory map, because np.memmap's own indexing is slow.
        return np.asarray(np.load(self.path / f"{name}.npy", mmap_mode="r"))


def _take(values: npt.NDArray[Any], rows: npt.NDArray[Any], dtype: type[np.generic]) -> torch.Tensor:
    return torch.from_numpy(values.take(rows, axis=0).astype(dtype, copy=False))


def _file_name(kind: str, field_name: str) -> str:
    """Return a field's file name, hashed because field names may contain characters that file names can't."""
    return f"{kind}-{hashlib.sha256(field_name.encode()).hexdigest()[:16]}"


class _ColumnFile:
    """A ``.npy`` file that grows; numpy's header leaves room for the final number of rows."""

    def __init__(self, file: BinaryIO, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self.file, self.dtype, self.shape, self.rows = file, np.dtype(dtype), shape, 0
        self._write_header()

    def append(self, values: npt.NDArray[Any]) -> None:
        block = np.ascontiguousarray(values, self.dtype)
        if block.shape[1:] != self.shape:
            raise ValueError(f"a chunk's columns have shape {block.shape[1:]}, not {self.shape}")
        self.file.write(block.data)
        self.rows += len(block)

    def finish(self) -> None:
        self.file.seek(0)
        self._write_header()
        self.file.flush()
        os.fsync(self.file.fileno())

    def _write_header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _write_columns(
    folder: Path, chunks: Iterable[EncodedRows], encoder: Encoder, fingerprint: str, info: dict[str, Any]
) -> TrainingManifest:
    folder.mkdir()
    counts = np.zeros((len(encoder.domains), len(SPLIT_PARTS)), np.int64)
    positives = 0
    with ExitStack() as stack:
        files: dict[str, _ColumnFile] = {}
        for chunk in chunks:
            blocks = _blocks(chunk, encoder)
            for name, block in blocks.items():
                if name not in files:
                    opened = stack.enter_context((folder / f"{name}.npy").open("wb"))
                    files[name] = _ColumnFile(opened, block.dtype.type, block.shape[1:])
                files[name].append(block)
            np.add.at(counts, (blocks["domain"], blocks["split"]), 1)
            positives += int(blocks["label"].sum())
        for file in files.values():
            file.finish()
    if not counts.sum():
        raise DataError(
            "training set", "there are no rows to train on: import more data, or widen the window"
        )
    return TrainingManifest(
        rows=int(counts.sum()),
        fingerprint=fingerprint,
        contract=encoder.contract,
        domains=encoder.domains,
        splits=dict(zip(SPLIT_PARTS, counts.sum(0).tolist(), strict=True)),
        domain_splits=tuple(tuple(row) for row in counts.tolist()),
        positives=positives,
        info=info,
    )


def _blocks(chunk: EncodedRows, encoder: Encoder) -> dict[str, npt.NDArray[Any]]:
    columns = chunk.columns
    expected = (encoder.names("categorical"), encoder.names("dense"))
    if (columns.categorical_names, columns.dense_names) != expected or columns.domain is None:
        raise ValueError("a chunk must have every field of the encoder, in its order, and the domain")
    if unknown := int((columns.domain < 0).sum()):
        raise DataError(
            "training set", f"{unknown:,} rows have a domain that is not a training domain: leave them out"
        )
    return {
        "domain": columns.domain,
        "label": chunk.label.astype(np.int8),
        "split": chunk.split.astype(np.int8),
        "user": chunk.user.astype(np.int32),
        "categorical": columns.categorical,
        "dense": columns.dense,
        **{_file_name("vector", name): values for name, values in columns.vectors.items()},
        **{_file_name("bag", name): values for name, values in columns.bags.items()},
    }


def _write_rows(folder: Path, manifest: TrainingManifest) -> None:
    """Sort the row numbers by part and domain, by a counting sort in chunks."""
    split, domain = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("split", "domain"))
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.int64, (manifest.rows,))
    counts = np.array(manifest.domain_splits).T.ravel()
    place = np.cumsum(counts) - counts
    for start in range(0, manifest.rows, INDEX_ROWS):
        chunk = slice(start, start + INDEX_ROWS)
        group = split[chunk].astype(np.int64) * len(manifest.domains) + domain[chunk]
        order = np.argsort(group, kind="stable")
        sizes = np.bincount(group, minlength=len(counts))
        before = np.cumsum(sizes) - sizes
        rows[np.repeat(place - before, sizes) + np.arange(len(order))] = start + order
        place += sizes
    rows.flush()


def _write_encoder(folder: Path, encoder: Encoder) -> None:
    files = {}
    for name, table in encoder.to_tables().items():
        files[name] = f"{_file_name('vocabulary', name)}.parquet"
        pq.write_table(table, folder / files[name])
    write_atomically(folder / "encoder.json", json.dumps({"encoder": encoder.spec(), "files": files}))
