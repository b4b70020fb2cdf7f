"""Reads one Parquet or CSV file, or a folder of Parquet files, as a raw Arrow table.

Ids and times of a CSV stay text here: whether ``007`` is a number is decided where all tables of an id are
    at hand.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from mmlora.data.faults import SHOWN
from mmlora.errors import DataError, Fault, UsageError

CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_PARQUET_MAGIC = b"PAR1"


def is_csv(path: Path) -> bool:
    """Return whether a file is read as CSV: by its name, unless its first bytes are Parquet's."""
    return path.is_file() and _delimiter(path) is not None and _head(path) != _PARQUET_MAGIC


def read_raw(path: Path, *, as_text: Callable[[str], bool]) -> pa.Table:
    """Read a table as it is.

    Args:
        path: ``.csv``, ``.tsv`` (also ``.gz``), a Parquet file, or a folder of Parquet files.
        as_text: whether a CSV column is left as text; the types of the others are inferred.

    Raises:
        UsageError: there is nothing at ``path``.
        DataError: it can't be read.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file; give a Parquet or CSV file, or a folder of Parquet files")
    if path.is_dir():
        return _read_folder(path)
    if path.stat().st_size == 0:
        raise DataError(str(path), "the file is empty; give a Parquet or CSV file with a header and rows")
    if is_csv(path):
        return _read_csv(path, as_text)
    return _read_parquet(path)


def _delimiter(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return CSV_DELIMITERS.get(suffixes[-1]) if suffixes else None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_PARQUET_MAGIC))


def _read_parquet(path: Path) -> pa.Table:
    if _head(path) != _PARQUET_MAGIC:
        raise DataError(str(path), "not a Parquet file (it doesn't begin with PAR1); name a CSV .csv or .tsv")
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"a broken Parquet file: {_first_line(error)}") from None


def _read_folder(path: Path) -> pa.Table:
    files = sorted(path.rglob("*.parquet"))
    if not files:
        raise DataError(str(path), "no *.parquet files in this folder")
    tables = [_read_parquet(file) for file in files]
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise DataError(str(path), f"its files have different columns: {_first_line(error)}") from None


def _read_csv(path: Path, as_text: Callable[[str], bool]) -> pa.Table:
    ragged: list[pa.csv.InvalidRow] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    parse = pa.csv.ParseOptions(delimiter=_delimiter(path), invalid_row_handler=skip, newlines_in_values=True)
    convert = pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in _header(path) if as_text(name)},
        strings_can_be_null=True,
        null_values=["", "NULL", "null", "\\N"],
    )
    try:
        # One thread, for then a ragged row knows its number.
        read = pa.csv.ReadOptions(use_threads=False)
        table = pa.csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"not a CSV file in UTF-8: {_first_line(error)}") from None
    if ragged:
        raise DataError(str(path), [_ragged(ragged)])
    return table


def _header(path: Path) -> list[str]:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as file:
            line = file.readline()
        parse = pa.csv.ParseOptions(delimiter=_delimiter(path))
        return list(pa.csv.read_csv(pa.BufferReader(line + b"\n"), parse_options=parse).column_names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(path), f"not a CSV file in UTF-8: {_first_line(error)}") from None


def _ragged(rows: list[pa.csv.InvalidRow]) -> Fault:
    # Line 1 is the header, row 1 the line after it.
    quoted = tuple(f"row {(row.number or 1) - 1}: {row.text[:60]}" for row in rows[:SHOWN])
    what = f"{rows[0].actual_columns} values where the header has {rows[0].expected_columns} columns"
    return Fault(what, None, len(rows), quoted)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
