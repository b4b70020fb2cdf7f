"""A pair table of the user's own, instead of users x items."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmlora.errors import DataError, Fault
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID, Entity, Id, IdTypes
from mmlora.scoring.candidates import Candidates, PairIndex

_SHOWN = 3


def read_pairs(path: Path, *, ids: IdTypes, domain: Id) -> Candidates:
    """Read the pairs to score in a domain.

    Args:
        path: a Parquet file, or a folder of them, with ``user_id`` and ``item_id``. With ``domain_id`` as
            well, only the domain's rows are taken. A pair that comes twice is scored once; other columns are
            ignored.
        ids: the id types; whole numbers of any width will do for int64.
        domain: the domain.

    Raises:
        DataError: no such file, no Parquet, a column is missing, of a wrong type, or holds nulls.
    """
    table = _read(path)
    users, items = _column(table, "user", ids), _column(table, "item", ids)
    domains = _column(table, "domain", ids) if DOMAIN_ID in table.column_names else None
    faults = [part for part in (users, items, domains) if isinstance(part, Fault)]
    if faults or isinstance(users, Fault) or isinstance(items, Fault):
        raise DataError(str(path), faults)
    if domains is not None:
        mine = pc.equal(domains, pa.scalar(domain, ids.arrow("domain")))
        users, items = users.filter(mine), items.filter(mine)
    return _index(users, items)


def pair_domains(path: Path, *, ids: IdTypes) -> set[Id] | None:
    """Return the domains that a pair table has rows of; None when its rows are of every domain.

    Raises:
        DataError: see :func:`read_pairs`.
    """
    table = _read(path)
    if DOMAIN_ID not in table.column_names:
        return None
    domains = _column(table, "domain", ids)
    if isinstance(domains, Fault):
        raise DataError(str(path), [domains])
    return set(pc.unique(domains).to_pylist())


def _read(path: Path) -> pa.Table:
    try:
        names = pq.ParquetDataset(path).schema.names
        wanted = [name for name in (USER_ID, ITEM_ID, DOMAIN_ID) if name in names]
        missing = [
            Fault(f"missing; the table has {', '.join(names)}", name)
            for name in (USER_ID, ITEM_ID)
            if name not in names
        ]
        if missing:
            raise DataError(str(path), missing)
        return pq.read_table(path, columns=wanted)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(str(path), f"cannot be read as Parquet: {error}") from None


def _column(table: pa.Table, entity: Entity, ids: IdTypes) -> pa.ChunkedArray | Fault:
    """Return an id column in its type, or what is wrong with it."""
    name = f"{entity}_id"
    column, wanted = table.column(name), ids.arrow(entity)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    whole = pa.types.is_integer(column.type) and pa.types.is_int64(wanted)
    text = (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)) and pa.types.is_string(
        wanted
    )
    if not (whole or text):
        return Fault(f"is {column.type}, but the imported {entity} ids are {wanted}", name)
    if column.null_count:
        rows = np.flatnonzero(column.is_null().to_numpy())[:_SHOWN]
        return Fault("null", name, column.null_count, tuple(f"row {row}" for row in rows))
    return column.cast(wanted)


def _index(users: pa.ChunkedArray, items: pa.ChunkedArray) -> Candidates:
    """Sort the distinct pairs by user, then item."""
    user_ids, item_ids = (_sorted_distinct(column) for column in (users, items))
    user_rows, item_rows = (
        pc.index_in(column, value_set=values).to_numpy().astype(np.int64)
        for column, values in ((users, user_ids), (items, item_ids))
    )
    width = max(1, len(item_ids))
    pairs = np.unique(user_rows * width + item_rows)
    return Candidates(
        user_ids, item_ids, PairIndex.from_rows(pairs // width, pairs % width, len(user_ids)), listed=True
    )


def _sorted_distinct(column: pa.ChunkedArray) -> pa.Array:
    values = pc.unique(column)
    return values.take(pc.sort_indices(values))
