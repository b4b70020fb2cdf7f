"""Affinity views: what users, domains, and users in a domain saw and clicked, by attribute of the item.

``user_affinity``, ``domain_affinity`` and ``user_domain_affinity`` hold, for each attribute of the item
profile (a category or a bag of a few hundred values), three parallel lists: ``<attribute>``, the values seen;
``<attribute>_lift``, the logarithm of each value's smoothed CTR relative to the entity's own; and
``<attribute>_rows``, the logarithm of 1 + each value's rows. ``user_taste`` holds the mean vector of the
items that a user clicked.

They are written like the activity views (:mod:`mmlora.features.build`): rows stamped T cover what happened
before T, late data restates earlier rows, and an increment equals a full build. An interaction is counted
with the item's attributes known by the end of its day (``sql/features/versioned.sql``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow.types as pt

from mmlora.features.asof.source import literal, quote
from mmlora.features.columns import Column
from mmlora.features.views import entries_sql, filled, narrowed_sql
from mmlora.records import Record
from mmlora.resources import sql
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID

MOST = 32
"""Values kept per attribute."""
FEWEST_VALUES, MOST_VALUES = 2, 500
CROSSING = 0.1
"""Minimum share of rows outside their user's main domain for the view by user and domain; below it, that view
would only repeat the user's own."""
_SCALE = 2**24
_LARGEST = 1e11
"""Largest absolute value of a vector's element; beyond it values are clipped, to fit 64 bits when scaled."""
Attribute = Literal["string", "int64", "bag"]


@dataclass(frozen=True)
class Affinity(Record):
    """The content of the affinity views; kept in the build's state, so that increments use the same.

    Attributes:
        attributes: type of values by column of the item profile.
        vectors: vector columns of the item profile.
        by_domain: whether there is a view by user and domain.
    """

    attributes: dict[str, Attribute] = field(default_factory=dict)
    vectors: tuple[str, ...] = ()
    by_domain: bool = False

    def union(self, newer: Affinity) -> Affinity:
        """Return the union; what this one has comes first, because models may read it in that order."""
        vectors = tuple(dict.fromkeys((*self.vectors, *newer.vectors)))
        return Affinity({**self.attributes, **newer.attributes}, vectors, self.by_domain or newer.by_domain)

    def within(self, columns: Collection[str]) -> Affinity:
        """Return the part that these columns of the item profile can supply."""
        attributes = {name: kind for name, kind in self.attributes.items() if name in columns}
        return replace(
            self, attributes=attributes, vectors=tuple(name for name in self.vectors if name in columns)
        )

    @property
    def views(self) -> tuple[AffinityView | TasteView, ...]:
        """The views to build."""
        names = tuple(self.attributes)
        keys: dict[str, tuple[str, ...]] = {"user_affinity": (USER_ID,), "domain_affinity": (DOMAIN_ID,)}
        if self.by_domain:
            keys["user_domain_affinity"] = (USER_ID, DOMAIN_ID)
        views: list[AffinityView | TasteView] = []
        if names:
            views += [AffinityView(name, key, names) for name, key in keys.items()]
        if self.vectors:
            views.append(TasteView("user_taste", (USER_ID,), self.vectors))
        return tuple(views)

    @property
    def columns(self) -> tuple[str, ...]:
        """The item profile's columns that are read."""
        return (*self.attributes, *self.vectors)


@dataclass(frozen=True)
class AffinityView:
    """A view of affinities, with the interface of :class:`mmlora.features.views.ActivityView`."""

    name: str
    keys: tuple[str, ...]
    attributes: tuple[str, ...]
    what = f"the {MOST} values met most, how much more they are clicked, how many rows"

    @property
    def features(self) -> tuple[str, ...]:
        """The feature columns."""
        return tuple(f"{name}{part}" for name in self.attributes for part in ("", "_lift", "_rows"))

    def narrowed_sql(self) -> str:
        """Return the statements that leave what an increment of this view needs in ``increments``."""
        return _narrowed_sql(self.keys)

    def entries_sql(self) -> str:
        """Return the statement that creates this view's temporary table ``entries``."""
        return entries_sql(self.keys, detail="item_version")

    def rows_sql(self) -> str:
        """Return the statements whose last is the query for this view's rows, over the temporary tables."""
        columns = [
            f"coalesce(list_transform({_alias(number)}.met, lambda x: x.{field}), []) AS {quote(name + end)}"
            for number, name in enumerate(self.attributes)
            for field, end in (("value", ""), ("lift", "_lift"), ("rows", "_rows"))
        ]
        aliases = [_alias(number) for number in range(len(self.attributes))]
        script = _script("affinity", "affinity_attribute", self.keys, aliases, columns)
        return script.replace("{most}", str(MOST))


@dataclass(frozen=True)
class TasteView:
    """A view of the mean vectors of clicked items."""

    name: str
    keys: tuple[str, ...]
    features: tuple[str, ...]
    what = "the mean vector of the items clicked"

    def narrowed_sql(self) -> str:
        """Return the statements that leave what an increment of this view needs in ``increments``."""
        return _narrowed_sql(self.keys)

    def entries_sql(self) -> str:
        """Return the statement that creates the temporary table ``entries`` from clicks alone."""
        return entries_sql(self.keys, detail="item_version", which="clicks <> 0 AND item_version IS NOT NULL")

    def rows_sql(self) -> str:
        """Return the statements whose last is the query for this view's rows, over the temporary tables."""
        aliases = [_alias(number, "vector") for number in range(len(self.features))]
        columns = [f"{a}.mean AS {quote(name)}" for a, name in zip(aliases, self.features, strict=True)]
        return _script("taste", "taste_vector", self.keys, aliases, columns).replace("{scale}", str(_SCALE))


def _alias(number: int, kind: str = "attribute") -> str:
    return f"{kind}{number}"


def _script(
    whole: str, part: str, keys: Sequence[str], aliases: Sequence[str], columns: Sequence[str]
) -> str:
    """Fill in a view's SQL: the part's statements once per alias, then a query that joins their results."""
    statements = filled(f"{part}.sql", {})
    placeholders = {
        "parts": "\n".join(statements.replace("{a}", alias) for alias in aliases),
        "keys": ", ".join(keys),
        "same_keys": " AND ".join(f"entries.{key} = series.{key}" for key in keys),
        "joins": " ".join(f"LEFT JOIN {alias} USING (series, t)" for alias in aliases),
        "columns": ", ".join(columns),
    }
    return filled(f"{whole}.sql", placeholders)


def _narrowed_sql(keys: tuple[str, ...]) -> str:
    """Return the statements for a view by item version.

    What happened since an item's last change has the version of the day before the horizon, and counts then.
    """
    changes = (
        "LEFT JOIN (SELECT item_id, max(available)::DATE AS changed FROM item_versions "
        "WHERE available < $after - 1 GROUP BY item_id) USING (item_id)"
    )
    day = "CASE WHEN day < changed THEN day ELSE horizon - 1 END"
    statement = narrowed_sql(keys, (*keys, ITEM_ID), day=day, joins=changes)
    return f"{statement};\n{sql('features/versioned.sql')}"


def choose_affinity(
    connection: duckdb.DuckDBPyConnection,
    interactions: str,
    columns: Sequence[Column],
    *,
    by_domain: bool = False,
) -> Affinity:
    """Choose the content of the affinity views from the data.

    Args:
        connection: a database.
        interactions: glob of the stored interactions.
        columns: the profile columns and their kinds.
        by_domain: whether the view by user and domain was chosen before; it stays.
    """
    items = [column for column in columns if column.entity == "item"]
    names = {column.name for column in items}
    attributes: dict[str, Attribute] = {}
    for column in items:
        # A view can't have two features with the same name.
        clash = {column.name + "_lift", column.name + "_rows"} & names
        if (kind := _attribute(column)) and not clash:
            attributes[column.name] = kind
    vectors = tuple(column.name for column in items if column.kind == "vector")
    by_domain = by_domain or share_elsewhere(connection, interactions) >= CROSSING
    return Affinity(attributes, vectors, by_domain)


def share_elsewhere(connection: duckdb.DuckDBPyConnection, interactions: str) -> float:
    """Return the share of interactions outside their user's main domain."""
    query = """
        SELECT 1 - sum(most) / sum(rows) FROM (
            SELECT max(rows) AS most, sum(rows) AS rows FROM (
                SELECT user_id, domain_id, count(*) AS rows
                FROM read_parquet($interactions, hive_partitioning = false) GROUP BY ALL
            ) GROUP BY user_id
        )
    """
    row = connection.execute(query, {"interactions": interactions}).fetchone()
    return float(row[0] or 0.0) if row else 0.0


def _attribute(column: Column) -> Attribute | None:
    few = FEWEST_VALUES <= column.stats.distinct <= MOST_VALUES
    if not few or column.kind not in ("bag", "categorical"):
        return None
    if column.kind == "bag":
        return "bag"
    if pt.is_integer(column.stats.type):
        return "int64"
    return "string" if pt.is_string(column.stats.type) else None


def prepare(connection: duckdb.DuckDBPyConnection, items: Sequence[Path], affinity: Affinity) -> None:
    """Create the tables of the item profiles' versions and of their attributes."""
    columns = ", ".join(quote(name) for name in affinity.columns)
    script = sql("features/item_versions.sql").replace("{columns}", columns)
    files = ", ".join(literal(str(path)) for path in items)
    connection.execute(script.replace("$items", f"[{files}]"))
    for number, (name, kind) in enumerate(affinity.attributes.items()):
        value = f"unnest({quote(name)})" if kind == "bag" else quote(name)
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {_alias(number)}_all AS "
            f"SELECT DISTINCT item_version, {value} AS value FROM item_versions; "
            f"CREATE OR REPLACE TEMP TABLE {_alias(number)}_codes AS "
            "SELECT row_number() OVER (ORDER BY value) AS code, value "
            f"FROM (SELECT DISTINCT value FROM {_alias(number)}_all WHERE value IS NOT NULL); "
            f"CREATE OR REPLACE TEMP TABLE {_alias(number)}_values AS "
            f"SELECT item_version, code FROM {_alias(number)}_all JOIN {_alias(number)}_codes USING (value); "
        )
    for number, name in enumerate(affinity.vectors):
        bounded = f"greatest(-{_LARGEST}, least({_LARGEST}, x::DOUBLE))"
        whole = f"list_transform({quote(name)}, lambda x: round({bounded} * {_SCALE})::BIGINT)"
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE vector{number}_values AS SELECT item_version, {whole} AS vector "
            f"FROM item_versions WHERE len({quote(name)}) > 0"
        )
