"""A file of user ids, for ``mmlora read`` and ``mmlora erase``."""

from __future__ import annotations

import csv
from pathlib import Path

from mmlora.errors import UsageError
from mmlora.schema import USER_ID, Id


def users_in(path: Path) -> list[Id]:
    """Return a file's user ids: Parquet or CSV with a column ``user_id``, or a text with one id per line.

    Raises:
        UsageError: there is no such file, it can't be read, has no such column, or no ids.
    """
    try:
        users = _from_parquet(path) if path.suffix == ".parquet" else _from_text(path)
    except (OSError, ValueError) as error:  # Arrow's errors are ValueErrors
        raise UsageError(f"the users' file {path} can't be read: {error}") from None
    if not users:
        raise UsageError(f"the users' file {path} has no ids")
    return users


def _from_parquet(path: Path) -> list[Id]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if USER_ID not in file.schema_arrow.names:
            raise UsageError(_no_column(path, file.schema_arrow.names))
        column = file.read([USER_ID]).column(USER_ID)
    return [user for user in column.to_pylist() if user is not None]


def _from_text(path: Path) -> list[Id]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    header = [cell.strip() for cell in rows[0]] if rows else []
    if USER_ID in header:
        place = header.index(USER_ID)
        return [row[place].strip() for row in rows[1:] if len(row) > place and row[place].strip()]
    if any(len(row) > 1 for row in rows):
        raise UsageError(_no_column(path, header))
    return [row[0].strip() for row in rows]


def _no_column(path: Path, columns: list[str]) -> str:
    return (
        f"the users' file {path} has the columns {', '.join(columns)}: give Parquet or CSV with a column "
        f"{USER_ID}, or a text with one id per line"
    )
