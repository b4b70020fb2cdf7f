"""Reads anybody's interactions and profile tables, and checks all of a file before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.columns import is_integer_text, plain
from mmlora.data.files import is_csv, read_raw
from mmlora.data.interactions import canonical_interactions
from mmlora.data.lists import find_lists, mapped, split_lists
from mmlora.data.profiles import canonical_profile
from mmlora.errors import DataError, Fault, UsageError
from mmlora.schema import ENTITY_KEYS, EVENT_TIMESTAMP, INTERACTION_KEY, KNOWN_AT, LABEL, Entity, IdTypes

RENAMEABLE = (*INTERACTION_KEY, LABEL, KNOWN_AT)


def read_tables(
    interactions: Path,
    users: Path | None = None,
    items: Path | None = None,
    domains: Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    lists: Mapping[str, str] | None = None,
    ids: IdTypes | None = None,
    now: datetime | None = None,
) -> tuple[pa.Table, dict[Entity, pa.Table]]:
    """Read Parquet or CSV tables by the canonical column names and check them.

    Args:
        interactions: user_id, item_id, domain_id, event_timestamp, label, and known_at if the data has its
            own.
        users: a profile table: user_id, event_timestamp (valid from) if it has one, whatever else.
        items: the same by item_id.
        domains: the same by domain_id.
        columns: canonical name -> the data's own name, e.g. ``{"label": "clicked"}``. In profile tables it
            applies to the id and to event_timestamp.
        lists: separators of list columns, e.g. ``{"users.tags": ","}``; ``json`` for arrays.
        ids: the store's id types, if it has some; else CSV ids are integers when all of them are.
        now: times later than this are faults (default: the clock).

    Returns:
        Interactions (canonical columns first, others as they came) and profiles by entity, as
        :meth:`mmlora.data.store.OfflineStore.write` takes them.

    Raises:
        UsageError: a path doesn't exist, or ``columns`` names an unknown column.
        DataError: with every fault of the first file that has any.
    """
    names = dict(columns or {})
    _check_renames(names)
    now = now or datetime.now(UTC)
    source = _read(interactions, names, RENAMEABLE)
    given: dict[Entity, Path | None] = {"user": users, "item": items, "domain": domains}
    profiles = {
        entity: _read(path, names, (ENTITY_KEYS[entity], EVENT_TIMESTAMP))
        for entity, path in given.items()
        if path is not None
    }
    _split_lists(profiles, dict(lists or {}))
    for entity in ENTITY_KEYS:
        same_ids = [source, profiles[entity]] if entity in profiles else [source]
        _type_ids(same_ids, ENTITY_KEYS[entity], ids.arrow(entity) if ids else None)
    table = canonical_interactions(source.table, source=str(source.path), now=now)
    checked = {
        entity: canonical_profile(entity, profile.table, source=str(profile.path), now=now)
        for entity, profile in profiles.items()
    }
    return table, checked


@dataclass
class _Source:
    """A file and what was read from it so far."""

    path: Path
    table: pa.Table
    csv: bool


def _check_renames(columns: Mapping[str, str]) -> None:
    unknown = [name for name in columns if name not in RENAMEABLE]
    if unknown:
        raise UsageError(f"can't rename a column to {', '.join(unknown)}; valid are {', '.join(RENAMEABLE)}")


def _read(path: Path, columns: Mapping[str, str], canonical: tuple[str, ...]) -> _Source:
    wanted = {columns.get(name, name): name for name in canonical}
    table = read_raw(path, as_text=wanted.__contains__)
    # A column that already bears a name which another one is renamed to gives way to it.
    taken = {name for source, name in wanted.items() if source != name and source in table.column_names}
    kept = [i for i, name in enumerate(table.column_names) if name not in taken or name in wanted]
    table = table.select(kept)
    table = table.rename_columns([wanted.get(name, name) for name in table.column_names])
    return _Source(path, table, is_csv(path))


def _split_lists(profiles: Mapping[Entity, _Source], named: dict[str, str]) -> None:
    """Make list columns of the texts that hold lists (:mod:`mmlora.data.lists`)."""
    for entity, source in profiles.items():
        for place, name in enumerate(source.table.column_names):
            column = plain(source.table.column(place))
            if name in (ENTITY_KEYS[entity], EVENT_TIMESTAMP) or not pt.is_string(column.type):
                continue
            separator = named.pop(f"{entity}s.{name}", None)
            found = _lists(column, separator, str(source.path), name)
            if found is not None:
                source.table = source.table.set_column(place, name, found)
    if named:
        raise UsageError(
            f"--list {next(iter(named))}: no such text column; give TABLE.COLUMN=SEPARATOR, as users.tags=,"
        )


def _lists(column: pa.ChunkedArray, separator: str | None, source: str, name: str) -> pa.ChunkedArray | None:
    cells = column.unique() if isinstance(column, pa.ChunkedArray) else column
    try:
        if separator is not None:
            return mapped(column, lambda distinct: split_lists(distinct, separator))
    except ValueError as error:
        fault = Fault(f"no JSON array of texts or numbers: {str(error)[:60]!r}", name)
        raise DataError(source, [fault]) from None
    if find_lists(cells) is None:
        return None
    found: pa.ChunkedArray = mapped(column, lambda distinct: (find_lists(distinct) or (distinct, ""))[0])
    return found


def _type_ids(sources: Sequence[_Source], key: str, wanted: pa.DataType | None) -> None:
    """Make the CSV texts of an id integers: if they are to be, or else if those of all tables can be."""
    present = [source for source in sources if source.table.column_names.count(key) == 1]
    columns = [plain(source.table.column(key)) for source in present]
    if not (wanted == pa.int64() if wanted else all(_all_integers(column) for column in columns)):
        return
    for source, column in zip(present, columns, strict=True):
        # Texts that can't be integers stay: the store names the difference as a ContractError.
        if source.csv and _all_integers(column):
            place = source.table.column_names.index(key)
            source.table = source.table.set_column(place, key, column.cast(pa.int64()))


def _all_integers(column: pa.ChunkedArray) -> bool:
    if pt.is_string(column.type):
        return bool(pc.all(pc.fill_null(is_integer_text(column), True)).as_py())
    return bool(pt.is_integer(column.type))
