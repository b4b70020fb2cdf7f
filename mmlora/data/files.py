"""Reads the files of one table, Parquet and CSV, as one raw Arrow table.

Values of a CSV, and of hive partitions, stay texts here: their type is inferred over all files together
(:mod:`mmlora.data.texts`), and for ids over all tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmlora.data.columns import is_integer_text, plain
from mmlora.data.csv_file import DELIMITERS, read_csv, suffix_of
from mmlora.data.options import ReadOptions
from mmlora.data.paths import TableFile, find_files
from mmlora.data.unify import unify
from mmlora.errors import DataError

_PARQUET_MAGIC = b"PAR1"
_PARQUET_SUFFIXES = {".parquet", ".pq", ".parq"}


@dataclass
class RawTable:
    """A table as delivered.

    Attributes:
        source: its files, for messages.
        table: all rows.
        texts: columns with untyped texts from a CSV or a folder's name.
        starts: the first row of each file, and the file.
        notes: notes on reading it, for the summary.
    """

    source: str
    table: pa.Table
    texts: set[str] = field(default_factory=set)
    starts: list[tuple[int, Path]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, number: int) -> str:
        """Name a row (counted from 0) by its position from 1 and, if there are several files, by its file."""
        first, path = max((start for start in self.starts if start[0] <= number), default=(0, Path()))
        return f"{path.name} row {number - first + 1}" if len(self.starts) > 1 else f"row {number + 1}"


def read_raw(paths: Sequence[Path], options: ReadOptions) -> RawTable:
    """Read the files of a table.

    Args:
        paths: files (Parquet, or CSV and TSV, compressed too), folders of them, patterns.
        options: how CSV is written.

    Raises:
        UsageError: a path does not exist.
        DataError: a file can't be read, or the files have columns of incompatible types.
    """
    files = find_files(paths)
    kinds = {file.path: _kind(file) for file in files}
    if strange := [str(file.path) for file in files if kinds[file.path] is None]:
        shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
        raise DataError(str(paths[0]), f"some files are neither Parquet nor CSV: {shown}; remove them")
    notes: list[str] = []
    pieces = []
    for file in files:
        csv = kinds[file.path] == "csv"
        table = read_csv(file.path, options, notes) if csv else _read_parquet(file.path)
        pieces.append(_Piece(file.path, *_with_partitions(file, table, csv)))
    source = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    return _combine(source, pieces, notes)


@dataclass(frozen=True)
class _Piece:
    path: Path
    table: pa.Table
    texts: set[str]


def _kind(file: TableFile) -> str | None:
    """Distinguish Parquet and CSV by the first bytes, then by the name; None means neither.

    Raises:
        DataError: the file is empty, or the user named it and it is neither.
    """
    path = file.path
    if path.stat().st_size == 0:
        raise DataError(str(path), "the file is empty; give a Parquet or CSV file with a header and rows")
    with path.open("rb") as opened:
        head = opened.read(len(_PARQUET_MAGIC))
    if head == _PARQUET_MAGIC:
        return "parquet"
    suffix = suffix_of(path)
    if suffix in DELIMITERS:
        return "csv"
    if file.named or suffix in _PARQUET_SUFFIXES:
        what = "not a Parquet file (it doesn't begin with PAR1); name a CSV .csv or .tsv"
        raise DataError(str(path), what)
    return None


def _read_parquet(path: Path) -> pa.Table:
    try:
        # Microseconds reach from year 1 to 9999; read as nanoseconds, INT96 would wrap around in 2262.
        table = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()
        return pa.Table.from_arrays([plain(column) for column in table.columns], names=table.column_names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"a broken Parquet file: {str(error).splitlines()[0]}") from None


def _with_partitions(file: TableFile, table: pa.Table, csv: bool) -> tuple[pa.Table, set[str]]:
    """Return the table with the columns that its folders name, and which of its columns are texts."""
    texts = set(table.column_names) if csv else set()
    for name, value in file.partitions:
        if name in table.column_names:
            _refuse_other(file.path, table.column(name), name, value)
            continue
        table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), table.num_rows))
        texts.add(name)
    return table, texts


def _refuse_other(path: Path, column: pa.ChunkedArray, name: str, value: str | None) -> None:
    found = {str(part) for part in column.unique().to_pylist()}
    if found - {str(value), str(value).lstrip("0")}:
        shown = ", ".join(sorted(found)[:3])
        raise DataError(str(path), f"column {name!r} has {shown}, but its folder says {value}")


def _combine(source: str, pieces: list[_Piece], notes: list[str]) -> RawTable:
    ends = np.cumsum([piece.table.num_rows for piece in pieces]).tolist()
    starts = list(zip([0, *ends[:-1]], (piece.path for piece in pieces), strict=True))
    if len(pieces) == 1:
        return RawTable(source, pieces[0].table, pieces[0].texts, starts, notes)
    for piece in pieces:
        if len(set(piece.table.column_names)) < piece.table.num_columns:
            raise DataError(str(piece.path), "more than one column of the same name")
    columns: dict[str, pa.ChunkedArray] = {}
    texts = set()
    for name in dict.fromkeys(name for piece in pieces for name in piece.table.column_names):
        lacking = [piece.path.name for piece in pieces if name not in piece.table.column_names]
        if lacking:
            notes.append(f"{name} is missing in {len(lacking)} of {len(pieces)} files, {lacking[0]} first")
        columns[name], is_text = _one_column(source, pieces, name)
        if is_text:
            texts.add(name)
    return RawTable(source, pa.table(columns), texts, starts, notes)


def _one_column(source: str, pieces: list[_Piece], name: str) -> tuple[pa.ChunkedArray, bool]:
    """Return a column over all files, and whether its texts are still to be read.

    Where only some files are CSV, the others' type says what the texts are.
    """
    parts = [
        piece.table.column(name) if name in piece.table.column_names else pa.nulls(piece.table.num_rows)
        for piece in pieces
    ]
    has = [name in piece.table.column_names for piece in pieces]
    is_text = [name in piece.texts for piece in pieces]
    typed = [part for part, text, there in zip(parts, is_text, has, strict=True) if there and not text]
    try:
        if not typed:
            return unify(parts), True
        if any(is_text):
            parts = _as_typed(parts, is_text, unify(typed).type)
        return unify(parts), False
    except (pa.ArrowException, ValueError) as error:
        kinds = ", ".join(
            f"{piece.path.name} {'CSV' if text else part.type}"
            for piece, part, text, there in zip(pieces, parts, is_text, has, strict=True)
            if there
        )
        what = f"column {name!r} has incompatible types: {kinds[:300]} ({error}); convert them to one type"
        raise DataError(source, what) from None


def _as_typed(parts: list[pa.ChunkedArray], is_text: list[bool], kind: pa.DataType) -> list[pa.ChunkedArray]:
    """Cast texts to the type that other files give the column."""
    for part, text in zip(parts, is_text, strict=True):
        if text and pa.types.is_integer(kind) and not pc.all(is_integer_text(part.drop_null())).as_py():
            raise ValueError("a text is not an integer as programs write it")
    return [part.cast(kind) if text else part for part, text in zip(parts, is_text, strict=True)]
