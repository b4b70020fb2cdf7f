"""The user's own pair table, instead of users x items."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.candidates.known import KnownData
from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.candidates.report import Selection, counted
from mmlora.candidates.tables import Table, id_columns
from mmlora.load_checks import Removed
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID, Id, IdTypes


def read_pairs(table: Table, known: KnownData, *, ids: IdTypes) -> Selection:
    """Read the pairs to score in a domain.

    Users and items with neither an interaction nor a profile by then are reported, and their pairs not
    scored.

    Args:
        table: a table with ``user_id`` and ``item_id``. If it has ``domain_id``, only the domain's rows are
            used. A repeated pair is scored once; other columns are ignored.
        known: what is known on the date.
        ids: the id types; integers of any width are accepted for int64.

    Raises:
        DataError: the file does not exist or isn't Parquet, or a column is missing, has a wrong type or
            nulls.
    """
    pairs = table.read((USER_ID, ITEM_ID), (DOMAIN_ID,))
    pairs = id_columns(pairs, ("user", "item", "domain"), ids, str(table))
    if DOMAIN_ID in pairs.column_names:
        pairs = pairs.filter(pc.equal(pairs.column(DOMAIN_ID), pa.scalar(table.domain, ids.arrow("domain"))))
    known.connection.register("given_pairs", pairs)
    known.make_everyone()
    known.make_everything()
    unknown = [
        *known.unknown("given_pairs", "user", str(table)),
        *known.unknown("given_pairs", "item", str(table)),
    ]
    removed = 0
    if unknown:
        both = "SEMI JOIN everyone USING (user_id) SEMI JOIN everything USING (item_id)"
        rows = known.number("SELECT count(*) FROM (SELECT DISTINCT user_id, item_id FROM given_pairs)")
        removed = rows - known.make("pairs", f"SELECT DISTINCT user_id, item_id FROM given_pairs {both}")
        pairs = known.rows("FROM pairs")
    return Selection(
        _index(pairs.column(USER_ID), pairs.column(ITEM_ID)),
        counted([Removed("pairs", "of an unknown user or item", removed)]),
        tuple(unknown),
    )


def pair_domains(table: Table, *, ids: IdTypes) -> set[Id] | None:
    """Return the domains for which a pair table has rows; None if its rows are for every domain.

    Raises:
        DataError: see :func:`read_pairs`.
    """
    pairs = id_columns(table.read((), (DOMAIN_ID,)), ("domain",), ids, str(table))
    return set(pc.unique(pairs.column(DOMAIN_ID)).to_pylist()) if pairs.num_columns else None


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
