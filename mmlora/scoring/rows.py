"""A stream of rows from which a given number is taken at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from mmlora.errors import MmloraError


class RowStream:
    """The rows of tables, in order.

    Args:
        tables: tables of any size with the same schema.
    """

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._rest: pa.Table | None = None

    def take(self, rows: int) -> Iterator[pa.Table]:
        """Yield the next rows.

        Raises:
            MmloraError: there are fewer.
        """
        while rows:
            if self._rest is None or not self._rest.num_rows:
                self._rest = next(self._tables, None)
                if self._rest is None:
                    raise _wrong_number(f"{rows:,} are missing")
            piece, self._rest = self._rest.slice(0, rows), self._rest.slice(rows)
            rows -= piece.num_rows
            if piece.num_rows:
                yield piece

    def end(self) -> None:
        """Read the stream to its end.

        Raises:
            MmloraError: there are rows that were not taken.
        """
        left = 0 if self._rest is None else self._rest.num_rows
        left += sum(table.num_rows for table in self._tables)
        if left:
            raise _wrong_number(f"{left:,} are too many")


def _wrong_number(what: str) -> MmloraError:
    return MmloraError(f"a load has another number of rows than its candidates: {what}; score again")
