"""Choose how the model reads each column of the imported profiles, from its data or from a setting.

``feature_repo/definitions.py`` turns the choices into the profile views' fields and tags, and ``mmlora
features list`` prints them. A dropped column stays registered with Feast, so that models trained with it can
still read it; only the feature services leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.types as pt

from mmlora.errors import UsageError
from mmlora.features.profile_stats import ColumnStats, read_stats
from mmlora.features.transforms import BUCKETS, WORDS
from mmlora.schema import ENTITY_KEYS, ColumnKind, Entity

TABLES: dict[str, Entity] = {f"{entity}s": entity for entity in ENTITY_KEYS}
"""Entity by the name that settings and tables use for its profiles: ``users``, ``items``, ``domains``."""
FEW_ENTITIES = 20
"""Below this many entities, no column is judged constant or unique."""
FEW_VALUES = 100
"""An integer column with at most this many distinct values is a category."""
LONGEST_BAG = 256
DATES = 0.99
"""Share of a column's values that must parse as dates for a column of dates."""
UNIQUE = 0.95
MOSTLY_UNIQUE = 0.5
SHARED = 0.5
"""Share of a user column's distinct values that an item column must contain to be matched with it."""
_LONG_TAIL = 4.0
_CODES = frozenset(
    [
        "id",
        "code",
        "zip",
        "key",
        "category",
        "type",
        "class",
        "group",
        "segment",
        "brand",
        "city",
        "region",
        "country",
        "store",
        "shop",
        "seller",
        "author",
        "occupation",
    ]
)
_TIMES = frozenset(
    ["date", "time", "at", "ts", "created", "updated", "since", "birth", "signup", "launch", "joined"]
)


@dataclass(frozen=True)
class Column:
    """One profile column and the kind chosen for it.

    Attributes:
        entity: the profile's entity.
        stats: the column's statistics.
        kind: the kind chosen.
        why: the reason, in a clause.
        tags: the tags of its Feast field.
    """

    entity: Entity
    stats: ColumnStats
    kind: ColumnKind
    why: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The column's own name."""
        return self.stats.name

    @property
    def full_name(self) -> str:
        """The feature's name in the contract."""
        return f"{self.entity}_profile__{self.name}"


def analyse(offline: Path, overrides: Mapping[str, str] | None = None) -> list[Column]:
    """Choose a kind for each profile column.

    Args:
        offline: the offline store's folder.
        overrides: kind by ``users.column``, ``items.column`` or ``domains.column``.

    Raises:
        UsageError: an override names no column, or a kind that the column's type can't become.
    """
    stats = {entity: read_stats(offline, entity) for entity in ENTITY_KEYS}
    return decide(stats, overrides)


def decide(
    stats: Mapping[Entity, Iterable[ColumnStats]], overrides: Mapping[str, str] | None = None
) -> list[Column]:
    """Choose kinds from the columns' statistics; see :func:`analyse`."""
    unused = dict(overrides or {})
    columns = []
    for table, entity in TABLES.items():
        for column in stats.get(entity, ()):
            override = unused.pop(f"{table}.{column.name}", None)
            columns.append(_overridden(entity, column, override) if override else _decided(entity, column))
    if unused:
        known = ", ".join(f"{column.entity}s.{column.name}" for column in columns) or "none"
        raise UsageError(
            f"settings: features.columns names {', '.join(unused)}, but the imported columns are {known}"
        )
    return _related(columns)


def _decided(entity: Entity, of: ColumnStats) -> Column:
    kind, why = _kind(of)
    return Column(entity, of, kind, why, _tags(of, kind))


def _kind(of: ColumnStats) -> tuple[ColumnKind, str]:
    if not of.valid:
        return "drop", "no values"
    if pt.is_list(of.type):
        return _list_kind(of)
    if of.distinct <= 1 and not of.missing and of.rows >= FEW_ENTITIES:
        return "drop", "a constant"
    if pt.is_timestamp(of.type) or pt.is_date(of.type):
        return "days_since", "a date"
    if _written(of):
        return "days_since", f"{_written(of).replace('iso', 'ISO')} dates"
    if pt.is_string(of.type):
        return _text_kind(of)
    return _integer_kind(of) if pt.is_integer(of.type) else _number_kind(of)


def _list_kind(of: ColumnStats) -> tuple[ColumnKind, str]:
    if pt.is_floating(of.type.value_type):
        if len(of.widths) != 1:
            return "drop", f"lists of numbers of {len(of.widths)} different lengths; vectors need one length"
        return "vector", f"vectors of {of.widths[0]}"
    if not of.distinct:
        return "drop", "empty lists only"
    if of.longest > LONGEST_BAG:
        return "bag", f"lists of up to {of.longest:,}, of which the first {LONGEST_BAG} are kept"
    return "bag", f"lists of up to {of.longest:,}"


def _text_kind(of: ColumnStats) -> tuple[ColumnKind, str]:
    many = of.rows >= FEW_ENTITIES
    if many and of.words >= 2 and of.distinct > MOSTLY_UNIQUE * of.valid:
        return "words", f"free text of {of.words:.0f} words: {WORDS} at most, hashed to {BUCKETS} buckets"
    if many and of.distinct > UNIQUE * of.valid:
        return "drop", "nearly one value per entity, which says nothing about other entities"
    return "categorical", "repeated texts"


def _integer_kind(of: ColumnStats) -> tuple[ColumnKind, str]:
    if of.distinct <= FEW_VALUES:
        return "categorical", "few distinct integers"
    if _named(of.name, _CODES):
        if of.distinct > UNIQUE * of.valid:
            return "drop", "nearly one code per entity"
        return "categorical", "a code, by its name"
    kind, why = _number_kind(of)
    return kind, f"{of.distinct:,} distinct integers, {why}"


def _number_kind(of: ColumnStats) -> tuple[ColumnKind, str]:
    middle = of.median if of.median > 0 else 1.0
    if of.low >= 0 and of.high > _LONG_TAIL * middle:
        return "log", f"positive with a long tail (median {of.median:,.4g}, 99% below {of.high:,.4g})"
    return "dense", "a number"


def _written(of: ColumnStats) -> str:
    """Return the date format of a text or integer column; empty when its values aren't dates."""
    fitting = [written for written, share in of.dates if share >= DATES]
    if pt.is_integer(of.type) and not _named(of.name, _TIMES):
        fitting = []  # an amount may look like seconds since 1970
    # With several fitting formats (day or month first), a guess would be wrong half of the time.
    return fitting[0] if len(fitting) == 1 else ""


def _named(name: str, words: frozenset[str]) -> bool:
    """Whether one of the words is a part of the name: ``at`` is of ``created_at``, not of ``category``."""
    parts = "".join(f"_{c.lower()}" if c.isupper() else c for c in name).split("_")
    return any(part in words or part.removesuffix("s") in words for part in parts)


def _tags(of: ColumnStats, kind: ColumnKind) -> dict[str, str]:
    """Return the tags of the column's field; ``kind`` only where it differs from the type's default."""
    if kind == "days_since":
        return {"transform": kind, **_format(of)}
    if kind == "log":
        whole = {"kind": "dense"} if pt.is_integer(of.type) else {}
        return {"transform": "log" if of.low > 0 else "log1p", **whole}
    if kind == "words":
        return {"kind": "bag", "transform": kind, "max_length": str(WORDS)}
    if kind == "bag":
        return {"max_length": str(max(1, min(of.longest, LONGEST_BAG)))}
    unlike = (kind == "categorical" and pt.is_floating(of.type)) or (
        kind == "dense" and pt.is_integer(of.type)
    )
    return {"kind": kind} if unlike else {}


def _format(of: ColumnStats) -> dict[str, str]:
    if pt.is_timestamp(of.type) or pt.is_date(of.type):
        return {}
    return {"kind": "dense", "format": _written(of) or of.dates[0][0]}


_KINDS_BY_TYPE: tuple[tuple[str, tuple[ColumnKind, ...]], ...] = (
    ("a text", ("categorical", "words", "days_since", "drop")),
    ("an integer", ("categorical", "dense", "log", "days_since", "drop")),
    ("a number", ("dense", "log", "categorical", "drop")),
    ("a list of texts", ("bag", "drop")),
    ("a vector", ("vector", "drop")),
    ("a date", ("days_since", "drop")),
)


def _possible(kind: pa.DataType) -> tuple[str, tuple[ColumnKind, ...]]:
    if pt.is_list(kind):
        return _KINDS_BY_TYPE[4 if pt.is_floating(kind.value_type) else 3]
    if pt.is_string(kind) or pt.is_integer(kind):
        return _KINDS_BY_TYPE[0 if pt.is_string(kind) else 1]
    return _KINDS_BY_TYPE[2 if pt.is_floating(kind) else 5]


def _overridden(entity: Entity, of: ColumnStats, override: str) -> Column:
    type_name, possible = _possible(of.type)
    chosen = next((kind for kind in possible if kind == override), None)
    if chosen is None:
        raise UsageError(
            f"settings: features.columns: {entity}s.{of.name} has {type_name}, which can't become "
            f"{override}; it can be {', '.join(possible)}"
        )
    if chosen == "days_since" and not (of.dates or pt.is_timestamp(of.type) or pt.is_date(of.type)):
        raise UsageError(
            f"settings: features.columns: no value of {entity}s.{of.name} is a date; write ISO dates"
        )
    return Column(entity, of, chosen, "by the settings", _tags(of, chosen))


def _related(columns: list[Column]) -> list[Column]:
    """Tag the columns of users and domains that have a counterpart among the items' columns."""
    items = [column for column in columns if column.entity == "item"]
    related = []
    for column in columns:
        if column.entity != "item":
            if column.kind in ("bag", "categorical") and (item := _same_values(column, items)):
                tags = {"match": item.full_name, "vocabulary": item.full_name}
                column = _tagged(column, tags, f"matched with items.{item.name}")
            elif column.kind == "vector" and (item := _same_width(column, items)):
                column = _tagged(column, {"dot": item.full_name}, f"dot product with items.{item.name}")
        related.append(column)
    return related


def _tagged(column: Column, tags: Mapping[str, str], why: str) -> Column:
    return replace(column, tags={**column.tags, **tags}, why=f"{column.why}; {why}")


def _same_values(column: Column, items: list[Column]) -> Column | None:
    """Return the item column that contains most of this column's values, if it contains half of them.

    Two shared values are an accident (``true``, ``false``). Columns of any meaning share integers, so columns
    of integers must also have the same name.
    """
    values = column.stats.values
    best, most = None, 0.0
    for item in items:
        shared = values & item.stats.values
        if item.kind not in ("bag", "categorical") or len(shared) < 3:
            continue
        if any(isinstance(value, int) for value in shared) and item.name != column.name:
            continue
        # Of two columns that contain all values, prefer the one with fewer additional values.
        share = len(shared) / len(values)
        closeness = share + len(shared) / len(values | item.stats.values)
        if share >= SHARED and closeness > most:
            best, most = item, closeness
    return best


def _same_width(column: Column, items: list[Column]) -> Column | None:
    return next((i for i in items if i.kind == "vector" and i.stats.widths == column.stats.widths), None)
