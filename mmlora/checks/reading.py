"""Read all interactions files into one DuckDB view, without trusting their content.

The data was checked at import, but files may have been added or damaged since. A file that can't be read or
lacks a column stops the validation, because its faults can't be attributed to a domain. A column of another
type is cast as far as possible and its rows are marked, so that the domains in that file are found at fault.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from mmlora.errors import DataError, Fault
from mmlora.schema import LABEL, IdTypes, interactions_schema

_DAY_FOLDER = re.compile(r"day=(\d{4}-\d{2}-\d{2})")


def read_ids(offline: Path) -> IdTypes:
    """Return the id types of the store.

    Raises:
        DataError: the store does not exist, or its ``ids.json`` is damaged.
    """
    path = offline / "ids.json"
    try:
        return IdTypes(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            str(offline), "there are no interactions yet: import data first (mmlora data --help)"
        ) from None
    except (ValueError, TypeError) as error:
        raise DataError(str(path), f"not the id types of a store ({error}): import the data again") from None


def open_interactions(connection: duckdb.DuckDBPyConnection, offline: Path, ids: IdTypes) -> None:
    """Create the view ``interactions``: the canonical columns and the origin of each row.

    In addition to the canonical columns (``label`` as DOUBLE, so that 0.5 isn't rounded) it has ``file``,
    ``day`` (of the file's folder) and ``wrong_type_found`` (the faults of the file's columns, or NULL).
    A value that can't be cast to its canonical type is NULL.

    Raises:
        DataError: a file is unreadable or lacks a column; every such file is named.
    """
    folder = offline / "interactions"
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DataError(str(folder), "there are no Parquet files: import data first (mmlora data --help)")
    groups = _by_wrong_types(files, folder, interactions_schema(ids))
    days = pa.table(
        {
            "filename": [str(file) for file in files],
            "file": [file.relative_to(folder).as_posix() for file in files],
            "day": pa.array([_folder_day(file) for file in files], pa.date32()),
        }
    )
    connection.register("files", days)
    selects = [_select(wrong, group, ids) for wrong, group in groups.items()]
    connection.execute(
        "CREATE OR REPLACE TEMP VIEW interactions AS SELECT * EXCLUDE (filename) FROM (\n"
        + "\nUNION ALL ".join(selects)
        + "\n) JOIN files USING (filename)"
    )


def _by_wrong_types(
    files: list[Path], folder: Path, expected: pa.Schema
) -> dict[tuple[tuple[str, str], ...], list[str]]:
    """Group files by their wrongly typed columns, as (column, actual type); usually all have none."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    faults = []
    for file in files:
        name = file.relative_to(folder).as_posix()
        try:
            schema = pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            faults.append(Fault(f"{name} is not a readable Parquet file ({str(error).splitlines()[0]})"))
            continue
        missing = [column for column in expected.names if column not in schema.names]
        faults += [Fault(f"missing from {name}", column) for column in missing]
        if not missing:
            wrong = tuple(
                (field.name, str(schema.field(field.name).type))
                for field in expected
                if _plain(schema.field(field.name).type) != field.type
            )
            groups[wrong].append(str(file))
    if faults:
        raise DataError(
            str(folder), [*faults, Fault("remove these files, or import them with mmlora data import")]
        )
    return groups


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, without Arrow's variants of the same type."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return kind


def _folder_day(file: Path) -> date | None:
    match = _DAY_FOLDER.fullmatch(file.parent.name)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


def _select(wrong: tuple[tuple[str, str], ...], files: list[str], ids: IdTypes) -> str:
    """Return the SELECT that reads files with the same wrongly typed columns."""
    wrong_columns = dict(wrong)
    expected = interactions_schema(ids)
    columns = []
    for field in expected:
        kind = "DOUBLE" if field.name == LABEL else _DUCKDB_TYPES[field.type]
        # Cast through text, because a cast between types that doesn't exist is an error.
        source = f"CAST({field.name} AS VARCHAR)" if field.name in wrong_columns else field.name
        columns.append(f"TRY_CAST({source} AS {kind}) AS {field.name}")
    faults = "; ".join(f"{name} is {kind}, not {expected.field(name).type}" for name, kind in wrong)
    columns.append(f"{_quoted(faults)} AS wrong_type_found" if wrong else "NULL::VARCHAR AS wrong_type_found")
    names = ", ".join(_quoted(file) for file in files)
    options = "hive_partitioning = false, union_by_name = true"
    return f"SELECT {', '.join(columns)}, filename FROM read_parquet([{names}], {options})"


_DUCKDB_TYPES = {
    pa.int64(): "BIGINT",
    pa.string(): "VARCHAR",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
