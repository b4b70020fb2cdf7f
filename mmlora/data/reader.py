"""Reads any interactions and profile tables, and checks a whole delivery before any of it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.column_types import type_profile
from mmlora.data.columns import is_integer_text, plain, refuse_spoilt_ids
from mmlora.data.faults import FaultList
from mmlora.data.files import RawTable, read_raw
from mmlora.data.interactions import canonical_interactions
from mmlora.data.options import FIRST, IMPORT, RENAMEABLE, TABLES, ReadOptions
from mmlora.data.profiles import canonical_profile
from mmlora.data.renames import rename
from mmlora.data.summary import ColumnNote, describe_interactions, describe_profile
from mmlora.errors import UsageError
from mmlora.schema import ENTITY_KEYS, EVENT_TIMESTAMP, Entity, IdTypes

INTERACTIONS = "interactions"
NAMES: dict[Entity, str] = {entity: table for table, entity in TABLES.items()}


@dataclass(frozen=True)
class Delivery:
    """A checked delivery for :meth:`mmlora.data.store.OfflineStore.write`.

    Attributes:
        interactions: canonical columns first, then the others unchanged; None if there are only profiles.
        profiles: profiles by entity.
        duplicates: number of interactions left out because they equal another one of the delivery.
        columns: what each column is and becomes.
        notes: what was dropped, cut, merged or guessed.
    """

    interactions: pa.Table | None
    profiles: dict[Entity, pa.Table]
    duplicates: int = 0
    columns: tuple[ColumnNote, ...] = ()
    notes: tuple[str, ...] = ()


def read_delivery(
    interactions: Sequence[Path],
    profiles: Mapping[Entity, Sequence[Path]],
    *,
    options: ReadOptions | None = None,
    ids: IdTypes | None = None,
    stored: Mapping[Entity, pa.Schema] | None = None,
    now: datetime | None = None,
    may_be_empty: bool = False,
) -> Delivery:
    """Read Parquet or CSV tables by the canonical column names and check them.

    Args:
        interactions: files, folders or patterns with user_id, item_id, domain_id, event_timestamp, label,
            and known_at if the data has its own.
        profiles: the same by entity, with its id, optionally event_timestamp (valid from), and any features.
        options: the user's options for the tables.
        ids: the store's id types, if any; otherwise CSV ids are integers if all of them are.
        stored: the store's profile schemas: a CSV column is read as its stored type.
        now: interactions later than this are faults (default: the clock).
        may_be_empty: whether interactions may be missing or have no rows.

    Raises:
        UsageError: a path doesn't exist, or an option names something that doesn't exist.
        DataError: lists every fault of the first table that has any.
    """
    options = options or ReadOptions()
    options.check()
    if not interactions and not any(profiles.values()):
        if may_be_empty:
            return Delivery(None, {}, 0, (), ())
        raise UsageError(
            "there is nothing to import: give interactions, or profiles with --users, --items or --domains"
        )
    now = now or datetime.now(UTC)
    sources = _Sources.read(interactions, profiles, options)
    for entity, key in ENTITY_KEYS.items():
        _type_ids(sources.with_ids_of(entity), key, ids.arrow(entity) if ids else None)
    if may_be_empty and sources.interactions is not None and not sources.interactions.table.num_rows:
        sources.interactions = None
    return _check(sources, options, stored or {}, now)


@dataclass
class _Sources:
    interactions: RawTable | None
    profiles: dict[Entity, RawTable] = field(default_factory=dict)

    @classmethod
    def read(
        cls, interactions: Sequence[Path], profiles: Mapping[Entity, Sequence[Path]], options: ReadOptions
    ) -> _Sources:
        raw = read_raw(interactions, options) if interactions else None
        given = {entity: read_raw(paths, options) for entity, paths in profiles.items() if paths}
        tables = [source.table for source in (raw, *given.values()) if source is not None]
        for ours, theirs in options.columns.items():
            if not any(theirs in table.column_names for table in tables):
                has = "; ".join(", ".join(table.column_names) for table in tables)
                raise UsageError(
                    f"--column {ours}={theirs}: there is no column {theirs!r}; the columns are {has}"
                )
        if raw is not None:
            rename(raw, options.columns, RENAMEABLE)
        for entity, source in given.items():
            rename(source, options.columns, (ENTITY_KEYS[entity], EVENT_TIMESTAMP))
        return cls(raw, given)

    def with_ids_of(self, entity: Entity) -> list[RawTable]:
        both = (self.interactions, self.profiles.get(entity))
        key = ENTITY_KEYS[entity]
        return [source for source in both if source and source.table.column_names.count(key) == 1]


def _type_ids(sources: Sequence[RawTable], key: str, wanted: pa.DataType | None) -> None:
    """Convert id texts to integers if the store's or the other tables' are, or else if all can be."""
    columns = [plain(source.table.column(key)) for source in sources]
    if wanted is None:
        typed = [c.type for c, source in zip(columns, sources, strict=True) if key not in source.texts]
        wanted = pa.int64() if any(pt.is_integer(kind) for kind in typed) else None
        if not typed and all(_all_integers(column) for column in columns):
            wanted = pa.int64()
    for source, column in zip(sources, columns, strict=True):
        if key not in source.texts:
            continue
        faults = FaultList(source.table, (key,), source.row)
        trimmed = pc.utf8_trim_whitespace(column)
        refuse_spoilt_ids(trimmed, key, faults)
        if wanted == pa.int64() and not faults.found:
            wrong = pc.invert(is_integer_text(trimmed))
            faults.add_rows(
                f"not an integer, but the other {key}s are integers (leading zeros count)", key, wrong
            )
        faults.raise_if_any(source.source)
        if wanted == pa.int64():
            place = source.table.column_names.index(key)
            source.table = source.table.set_column(place, key, trimmed.cast(pa.int64()))


def _all_integers(column: pa.ChunkedArray) -> bool:
    return bool(pc.all(is_integer_text(pc.utf8_trim_whitespace(column)), min_count=0).as_py())


def _check(
    sources: _Sources, options: ReadOptions, stored: Mapping[Entity, pa.Schema], now: datetime
) -> Delivery:
    columns: list[ColumnNote] = []
    notes: list[str] = []
    table, duplicates = None, 0
    if (raw := sources.interactions) is not None:
        table = canonical_interactions(
            raw.table, source=raw.source, now=now, locate=raw.row, time_unit=options.time_unit
        )
        columns += describe_interactions(raw, table)
        notes += [f"{INTERACTIONS}: {note}" for note in raw.notes]
        duplicates = raw.table.num_rows - table.num_rows
    checked: dict[Entity, pa.Table] = {}
    _refuse_unknown(sources, options)
    for entity, source in sources.profiles.items():
        name = NAMES[entity]
        _date(source, name, entity, options)
        readings = type_profile(source, name, entity, options, stored.get(entity))
        checked[entity] = canonical_profile(
            entity, source.table, source=source.source, locate=source.row, time_unit=options.time_unit
        )
        columns += describe_profile(source, name, checked[entity], readings, stored.get(entity))
        notes += [f"{name}: {note}" for note in source.notes]
    return Delivery(table, checked, duplicates, tuple(columns), tuple(notes))


def _refuse_unknown(sources: _Sources, options: ReadOptions) -> None:
    """Refuse options for columns that no table has.

    Raises:
        UsageError: with the table's columns.
    """
    for table in options.valid_from:
        if TABLES[table] not in sources.profiles:
            raise UsageError(f"--valid-from {table}: give the {table} that it applies to")
    for option, names in (("--list", options.lists), ("--text", options.texts)):
        for full in names:
            table, _, column = full.partition(".")
            source = sources.profiles.get(TABLES[table])
            if source is None or column not in source.table.column_names:
                has = ", ".join(source.table.column_names) if source else f"none: {table} weren't given"
                raise UsageError(f"{option} {full}: there is no such column; the columns are {has}")


def _date(source: RawTable, table: str, entity: Entity, options: ReadOptions) -> None:
    """Set the date from which rows are valid from the column that the user named.

    Raises:
        UsageError: it is neither a column nor a date, or the table has dates of its own.
    """
    named = options.valid_from.get(table)
    if named is None or named in (FIRST, IMPORT):
        return
    if named in source.table.column_names:
        if EVENT_TIMESTAMP in source.table.column_names:
            raise UsageError(f"--valid-from {table}={named}: {table} have {EVENT_TIMESTAMP} already")
        source.table = source.table.append_column(EVENT_TIMESTAMP, plain(source.table.column(named)))
        source.texts |= {EVENT_TIMESTAMP} if named in source.texts else set()
        return
    try:
        date.fromisoformat(named)
    except ValueError:
        has = ", ".join(name for name in source.table.column_names if name != ENTITY_KEYS[entity])
        raise UsageError(
            f"--valid-from {table}={named}: give {FIRST}, {IMPORT}, a date such as 2026-01-31, or one of the "
            f"columns {has}"
        ) from None
