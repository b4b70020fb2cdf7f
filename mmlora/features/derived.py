"""Profile features computed from several rows: a price's rank in its category, an entity's age.

``item_derived`` and ``user_derived`` have one row per profile version, with the version's timestamps:

* ``<price>_rank``: the share of lower prices in the same category, among those known before that day or at
  the same moment; missing with fewer than ``FEWEST`` prices;
* ``known_since``: the start of the entity's first version, which the model reads as an age in days; missing
  when that version has no date.

They are stored under ``offline/derived`` and rewritten when the profiles change. The features are chosen from
the data when definitions are applied; existing ones stay, because models may read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmlora.duck import in_memory
from mmlora.features.asof.source import literal, quote
from mmlora.features.built import STATE, file_faults, read_state, retire, sweep
from mmlora.features.columns import Column
from mmlora.files import locked, read_json, replacing, write_json
from mmlora.manifest import record
from mmlora.schema import CREATED_TIMESTAMP, ENTITY_KEYS, EVENT_TIMESTAMP, TIMESTAMP, Entity, fingerprint

FEWEST = 10
"""Minimum number of prices for a rank."""
DATED = 0.5
"""Minimum share of entities whose first version has a date, for ``known_since``."""
_PRICES = frozenset({"price", "cost", "amount", "fare", "rate", "msrp", "rent"})
_MAIN = ("category", "genre", "class", "type", "department", "group")
_MOST_CATEGORIES = 500
_DAY = 86_400_000_000
KNOWN_SINCE = "known_since"


@dataclass(frozen=True)
class Derived:
    """One derived feature.

    Attributes:
        entity: the profile's entity.
        name: the feature's name.
        column: the price column; empty for ``known_since``.
        within: the category column within which prices are ranked.
    """

    entity: Entity
    name: str
    column: str = ""
    within: str = ""

    @property
    def what(self) -> str:
        """Description of the feature, in a clause."""
        if self.column:
            return f"the rank of {self.column} within {self.within}"
        return f"days since the {self.entity}'s first version"

    @property
    def view(self) -> str:
        """The Feast view that holds it."""
        return f"{self.entity}_derived"


def load(offline: Path) -> list[Derived]:
    """Return the features computed so far."""
    path = offline / "derived" / "features.json"
    return [Derived(**of) for of in read_json(path, "delete it, and build again")] if path.exists() else []


def decide(offline: Path, columns: Sequence[Column]) -> list[Derived]:
    """Return the features to compute: the existing ones, and new ones that the columns allow."""
    features = {(feature.entity, feature.name): feature for feature in load(offline)}
    items = [column for column in columns if column.entity == "item"]
    if main := _main_category(items):
        for column in items:
            name = f"{column.name}_rank"
            if column.kind in ("log", "dense") and _is_price(column.name):
                features.setdefault(("item", name), Derived("item", name, column.name, main))
    for entity in ("user", "item"):
        if _dated(offline, entity):
            features.setdefault((entity, KNOWN_SINCE), Derived(entity, KNOWN_SINCE))
    return list(features.values())


def refresh(offline: Path, wanted: Sequence[Derived] | None = None) -> None:
    """Rewrite the features of entities whose profiles or requested features have changed.

    Args:
        offline: the offline store's folder.
        wanted: the features to have; None keeps the existing ones.

    Raises:
        TransientError: another process is writing them.
    """
    features = load(offline) if wanted is None else list(wanted)
    if not features:
        return
    folder = offline / "derived"
    busy = f"another process is writing derived features ({folder / '.lock'})"
    with locked(folder / ".lock", wait=60, busy=busy):
        for entity in sorted({of.entity for of in features}):
            _write(offline, entity, [of for of in features if of.entity == entity])
        write_json(folder / "features.json", [of.__dict__ for of in features])


def _write(offline: Path, entity: Entity, features: Sequence[Derived]) -> None:
    """Write an entity's features, unless an intact file for these profiles and features exists."""
    sources = _files(offline, entity)
    made_of = {path.name: path.stat().st_size for path in sources}
    name = fingerprint([made_of, [of.__dict__ for of in features]])[:16]
    folder, target = offline / "derived", f"{name}.parquet"
    state = read_state(folder)
    files, records = state.get("files", {}), state.get("records", {})
    wanted: dict[str, list[str]] = {entity: [target]}
    if not sources or (files.get(entity) == [target] and not file_faults(folder, wanted, records)):
        return
    path = f"{entity}/{target}"
    records = {known: of for known, of in records.items() if not known.startswith(f"{entity}/")}
    with replacing(folder / path, alone=True) as aside:
        pq.write_table(_compute(offline, entity, features), aside)
        records[path] = record(aside)
    old = [f"{entity}/{name}" for name in files.get(entity, ())]
    retired = retire(state.get("retired", {}), old, [path])
    write_json(folder / STATE, {"files": files | wanted, "records": records, "retired": retired})
    sweep(folder, records, retired)


def _compute(offline: Path, entity: Entity, features: Sequence[Derived]) -> pa.Table:
    key = ENTITY_KEYS[entity]
    ranked = [of for of in features if of.column]
    columns = [f"{quote(of.column)}::DOUBLE AS price{n}" for n, of in enumerate(ranked)]
    columns += [f"{quote(of.within)} AS within{n}" for n, of in enumerate(ranked)]
    available = f"greatest({EVENT_TIMESTAMP}, {CREATED_TIMESTAMP})"
    query = f"""
        SELECT {", ".join([key, EVENT_TIMESTAMP, CREATED_TIMESTAMP, f"{available} AS available", *columns])},
               min({EVENT_TIMESTAMP}) OVER (PARTITION BY {key} ORDER BY {available}) AS first
        FROM {_scan(offline, entity)} ORDER BY available, {key}
    """
    with in_memory(offline / ".spill", ordered=False) as connection:
        rows = connection.sql(query).to_arrow_table()
    for stamp in (EVENT_TIMESTAMP, CREATED_TIMESTAMP, "available", "first"):
        rows = rows.set_column(rows.column_names.index(stamp), stamp, rows[stamp].cast(TIMESTAMP, safe=False))
    table = rows.select([key, EVENT_TIMESTAMP, CREATED_TIMESTAMP])
    moments = rows["available"].cast(pa.int64()).to_numpy()
    for n, of in enumerate(ranked):
        codes = rows[f"within{n}"].combine_chunks().dictionary_encode().indices
        prices = rows[f"price{n}"].to_numpy(zero_copy_only=False).astype(np.float64)
        category = np.asarray(codes.fill_null(-1))
        rank = rank_within(prices, category, moments)
        table = table.append_column(of.name, pa.array(rank.astype(np.float32), mask=np.isnan(rank)))
    if any(of.name == KNOWN_SINCE for of in features):
        first = rows["first"].combine_chunks()
        began = first.cast(pa.int64()).to_numpy()
        table = table.append_column(KNOWN_SINCE, pa.array(began, TIMESTAMP, mask=began <= 0))
    return table


def rank_within(
    prices: NDArray[np.float64], category: NDArray[np.int64], moments: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return each price's rank within its category, in (0, 1).

    Args:
        prices: ``[N]``, NaN where missing.
        category: ``[N]`` codes, -1 where missing.
        moments: ``[N]`` time at which each was known (microseconds), ascending.

    Returns:
        ``[N]``: the share of lower prices (equal ones count half) among those known before that day or at the
        same moment; NaN without a price or category, or with fewer than ``FEWEST`` prices.
    """
    rank = np.full(len(prices), np.nan)
    for code in np.unique(category[category >= 0]):
        rows = np.flatnonzero((category == code) & ~np.isnan(prices))
        before = np.empty(0)
        for today in np.split(rows, np.flatnonzero(np.diff(moments[rows] // _DAY)) + 1):
            for together in np.split(today, np.flatnonzero(np.diff(moments[today])) + 1):
                same_moment = np.sort(prices[together])
                known = len(before) + len(same_moment)
                if known >= FEWEST:
                    counts = [
                        np.searchsorted(ordered, prices[together], side=side)
                        for ordered in (before, same_moment)
                        for side in ("left", "right")
                    ]
                    rank[together] = sum(counts) / (2 * known)
            before = np.sort(np.concatenate([before, prices[today]]), kind="stable")
    return rank


def _main_category(items: Sequence[Column]) -> str | None:
    """Return the item's main category by its name, else the category with the fewest values (at least 3)."""
    categories = [c for c in items if c.kind == "categorical" and 2 < c.stats.distinct <= _MOST_CATEGORIES]
    named = [c for word in _MAIN for c in categories if word in c.name.lower()]
    chosen = named or sorted(categories, key=lambda column: column.stats.distinct)
    return chosen[0].name if chosen else None


def _is_price(name: str) -> bool:
    return not _PRICES.isdisjoint(name.lower().split("_"))


def _dated(offline: Path, entity: Entity) -> bool:
    """Whether the first versions of most entities have real dates.

    An import without dates makes profiles valid from 1970, or from the entity's first interaction.
    """
    interactions = offline / "interactions"
    if entity == "domain" or not _files(offline, entity) or not any(interactions.glob("**/*.parquet")):
        return False
    key = ENTITY_KEYS[entity]
    query = f"""
        SELECT avg((first > '1970-01-02'::TIMESTAMPTZ AND first IS DISTINCT FROM met)::INTEGER) >= {DATED}
            AND count(DISTINCT first) >= {FEWEST}
        FROM (
            SELECT {key}, min({EVENT_TIMESTAMP}) AS first FROM {_scan(offline, entity)} GROUP BY {key}
        ) LEFT JOIN (
            SELECT {key}, min({EVENT_TIMESTAMP}) AS met
            FROM read_parquet($interactions, hive_partitioning = false) GROUP BY {key}
        ) USING ({key})
    """
    with in_memory(offline / ".spill", ordered=False) as connection:
        pattern = str(interactions / "**" / "*.parquet")
        row = connection.execute(query, {"interactions": pattern}).fetchone()
    return bool(row and row[0])


def _files(offline: Path, entity: Entity) -> list[Path]:
    return sorted((offline / "profiles" / entity).glob("*.parquet"))


def _scan(offline: Path, entity: Entity) -> str:
    files = ", ".join(literal(str(path)) for path in _files(offline, entity))
    return f"read_parquet([{files}], union_by_name = true)"
