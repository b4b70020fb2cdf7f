"""Renames a table's columns to mmlora's canonical names."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from mmlora.data.files import RawTable
from mmlora.errors import DataError, Fault


def rename(source: RawTable, columns: Mapping[str, str], canonical: tuple[str, ...]) -> None:
    """Rename the columns that ``columns`` names, in place; replaced columns are noted.

    A column may get two names (``known_at=event_timestamp``). If a column already has a name that another
    column gets, it is replaced.

    Raises:
        DataError: there are several columns with a name that ``columns`` gives.
    """
    names = source.table.column_names
    given = {
        ours: columns[ours]
        for ours in canonical
        if columns.get(ours, ours) != ours and columns[ours] in names
    }
    for ours, theirs in given.items():
        if names.count(theirs) > 1:
            raise DataError(source.source, [Fault("more than one column of this name", theirs)])
        if ours in names and ours not in given.values():
            source.notes.append(f"column {ours} isn't used, because --column {ours}={theirs} replaces it")
    kept = [
        place
        for place, name in enumerate(names)
        if name not in given and (name not in given.values() or name in canonical)
    ]
    table = source.table.select(kept)
    for ours, theirs in given.items():
        table = table.append_column(ours, source.table.column(names.index(theirs)))
    texts = {ours for ours, theirs in given.items() if theirs in source.texts}
    source.texts = texts | (source.texts & {names[place] for place in kept})
    source.table = pa.Table.from_arrays(table.columns, names=table.column_names)
