"""Reads one CSV file with every value as text; types are inferred elsewhere."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from mmlora.data.faults import SHOWN
from mmlora.data.options import ReadOptions
from mmlora.errors import DataError, Fault

DELIMITERS = {".csv": ",", ".tsv": "\t"}
NULLS = ("", "NULL", "null", "\\N")
"""Texts that are a missing value in every column, whatever its type."""
_OTHERS = (";", "\t", "|", ",")
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def suffix_of(path: Path) -> str:
    """Return a file's last suffix in lower case, ignoring that of a compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".zst"):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_csv(path: Path, options: ReadOptions, notes: list[str]) -> pa.Table:
    """Read a CSV file, compressed or not; every column is string, :data:`NULLS` are null.

    Args:
        path: the file.
        options: encoding and delimiter, if given.
        notes: a line is added if either was guessed.

    Raises:
        DataError: the file isn't text in this encoding, or a row has too many or too few values.
    """
    try:
        encoding = options.encoding or _encoding(path)
        if encoding != (options.encoding or "utf-8"):
            notes.append(f"{path.name}: read as {encoding.upper()}, as its byte-order mark says")
        names, delimiter, lines = _header(path, encoding, options.delimiter)
        if delimiter != (options.delimiter or DELIMITERS.get(suffix_of(path), ",")):
            shown = "a tab" if delimiter == "\t" else delimiter
            notes.append(f"{path.name}: values are separated by {shown}, as its header shows")
        table = _read(path, encoding, delimiter, len(names), lines)
    except UnicodeError:
        raise _undecodable(path, options.encoding) from None
    except (pa.ArrowException, OSError, EOFError, csv.Error) as error:
        if "UTF8" in str(error):
            raise _undecodable(path, options.encoding) from None
        raise DataError(str(path), f"not a CSV file: {str(error).splitlines()[0]}") from None
    _refuse_open_quote(path, encoding, table)
    return table.rename_columns(names)


def _undecodable(path: Path, encoding: str | None) -> DataError:
    if encoding:
        return DataError(str(path), f"not {encoding}; give the encoding that it was written in")
    return DataError(str(path), "not UTF-8; give --encoding, e.g. --encoding latin-1 or --encoding utf-16")


def _open(path: Path) -> pa.NativeFile:
    with path.open("rb") as file:
        head = file.read(4)
    found = [name for magic, name in _COMPRESSIONS.items() if head.startswith(magic)]
    return pa.input_stream(str(path), compression=found[0] if found else None)


def _encoding(path: Path) -> str:
    with _open(path) as file:
        head = file.read(256)
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if b"\0" in head:
        what = (
            "NUL bytes: not UTF-8. UTF-16 without a byte-order mark? Give --encoding utf-16-le or utf-16-be"
        )
        raise DataError(str(path), what)
    return "utf-8"


def _header(path: Path, encoding: str, delimiter: str | None) -> tuple[list[str], str, int]:
    """Return the column names, the delimiter and how many lines they take."""
    decoder = "utf-8-sig" if encoding == "utf-8" else encoding
    with _open(path) as file, io.TextIOWrapper(file, decoder, newline="") as text:
        lines: list[str] = []
        for line in text:  # a name in quotes may hold a line break
            lines.append(line)
            if lines[-1].strip() and "".join(lines).count('"') % 2 == 0:
                break
    joined = "".join(lines)
    usual = delimiter or DELIMITERS.get(suffix_of(path), ",")
    if delimiter is None and usual not in joined:
        usual = max(_OTHERS, key=joined.count) if any(other in joined for other in _OTHERS) else usual
    rows = [row for row in csv.reader(io.StringIO(joined, newline=""), delimiter=usual) if row]
    if not rows:
        raise DataError(str(path), "no header: the first line gives the names of the columns")
    return [name.strip() for name in rows[0]], usual, _line_breaks(joined)


def _line_breaks(text: str) -> int:
    return max(1, len(text.splitlines()))


def _read(path: Path, encoding: str, delimiter: str, columns: int, skip: int) -> pa.Table:
    ragged: list[pa.csv.InvalidRow] = []

    def note(row: pa.csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    names = [f"c{n}" for n in range(columns)]
    # One thread, because then the number of a ragged row is known.
    read = pa.csv.ReadOptions(use_threads=False, column_names=names, skip_rows=skip, encoding=encoding)
    parse = pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note, newlines_in_values=True)
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=list(NULLS)
    )
    try:
        with _open(path) as file:
            table = pa.csv.read_csv(file, read_options=read, parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        if "Empty CSV" not in str(error) and "skip initial" not in str(error):
            raise
        table = pa.table({name: pa.array([], pa.string()) for name in names})
    if ragged:
        raise DataError(str(path), [_ragged(ragged, skip)])
    return table


def _ragged(rows: list[pa.csv.InvalidRow], skipped: int) -> Fault:
    # Line 1 is the header, row 1 the line after it.
    quoted = tuple(f"row {(row.number or 1) - skipped}: {row.text[:60]}" for row in rows[:SHOWN])
    what = f"{rows[0].actual_columns} values where the header has {rows[0].expected_columns} columns"
    return Fault(what, None, len(rows), quoted)


def _refuse_open_quote(path: Path, encoding: str, table: pa.Table) -> None:
    """Refuse a quote that is never closed, which would put all following rows into one value."""
    last = table.column(table.num_columns - 1)[-1].as_py() if table.num_rows else None
    if last is None or "\n" not in last:
        return
    with _open(path) as file:
        text = codecs.decode(file.read(), encoding)
    if not text.rstrip().endswith('"'):
        row = f"row {table.num_rows}: {last[:60]!r}"
        raise DataError(str(path), [Fault("a quote that is never closed", None, 1, (row,))])
