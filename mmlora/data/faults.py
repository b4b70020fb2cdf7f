"""Gathers every fault of one table before anything is raised.

Readers check a whole file, note all faults here, and raise once, so that a person with a bad export
sees all of its faults at the first attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.errors import DataError, Fault

SHOWN = 3
"""Number of bad rows that a message quotes."""


class FaultList:
    """The faults of one table so far.

    Args:
        table: the original table, for quoting bad rows.
        show: columns to quote besides the bad one, if they exist.
        locate: names a row (counted from 0) by its file and position.
    """

    def __init__(
        self, table: pa.Table, show: Sequence[str] = (), locate: Callable[[int], str] | None = None
    ) -> None:
        self.table = table
        self.locate = locate or (lambda row: f"row {row + 1}")
        self.show = [name for name in show if table.column_names.count(name) == 1]
        self.found: list[Fault] = []

    def add(self, what: str, column: str | None = None) -> None:
        """Note a fault of a whole column or table."""
        self.found.append(Fault(what, column))

    def add_rows(self, what: str, column: str | None, mask: pa.ChunkedArray | pa.Array) -> None:
        """Note a fault of the rows where ``mask`` is true; nothing when there is none."""
        rows = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
        if len(rows):
            self.found.append(Fault(what, column, len(rows), self.quote(rows[:SHOWN].tolist(), column)))

    def quote(self, rows: Iterable[int], column: str | None = None) -> tuple[str, ...]:
        """Return rows (counted from 0) as short texts; they are shown counted from 1."""
        names = list(self.show)
        if column is not None and column not in names and self.table.column_names.count(column) == 1:
            names.append(column)
        return tuple(f"{self.locate(row)}: {self._values(row, names)}" for row in rows)

    def _values(self, row: int, names: Sequence[str]) -> str:
        return ", ".join(f"{name}={_short(self.table.column(name)[row])}" for name in names)

    def raise_if_any(self, source: str) -> None:
        """Raise all faults, if any.

        Raises:
            DataError: there is at least one fault.
        """
        if self.found:
            raise DataError(source, self.found)


def _short(scalar: pa.Scalar) -> str:
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError):  # a time that Python can't hold
        value = scalar.value
    text = value.isoformat() if hasattr(value, "isoformat") else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
