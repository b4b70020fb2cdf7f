"""Profile features that take more than one row to compute: a price's rank in its category, an entity's age.

``item_derived`` and ``user_derived`` have a row for each profile version, stamped as that is:

* ``<price>_rank``: the share of prices below, among those of the same category that were known before that
  day or with it; missing where there are fewer than ``FEWEST``;
* ``known_since``: when the entity's first version began, of which the model reads the days since; missing
  where it has no date.

They lie under ``offline/derived`` and are written anew when the profiles have changed. What there is, is
decided from the data when definitions are applied; what a model may read stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmlora.features.asof.database import database
from mmlora.features.asof.source import literal, quote
from mmlora.features.built import STATE, file_faults, read_state, retire, sweep
from mmlora.features.columns import Column
from mmlora.files import locked, read_json, replacing, write_json
from mmlora.manifest import record
from mmlora.schema import CREATED_TIMESTAMP, ENTITY_KEYS, EVENT_TIMESTAMP, TIMESTAMP, Entity, fingerprint

FEWEST = 10
"""Prices that a rank needs."""
DATED = 0.5
"""Share of entities whose first version must have a date."""
_PRICES = frozenset({"price", "cost", "amount", "fare", "rate", "msrp", "rent"})
_MAIN = ("category", "genre", "class", "type", "department", "group")
_MOST_CATEGORIES = 500
_DAY = 86_400_000_000
KNOWN_SINCE = "known_since"


@dataclass(frozen=True)
class Derived:
    """One derived feature.

    Attributes:
        entity: of whose profile.
        name: the feature.
        column: the price; empty for ``known_since``.
        within: the category that it is ranked in.
    """

    entity: Entity
    name: str
    column: str = ""
    within: str = ""

    @property
    def what(self) -> str:
        """What it says, in a clause."""
        if self.column:
            return f"the rank of {self.column} within {self.within}"
        return f"days since the {self.entity}'s first version"

    @property
    def view(self) -> str:
        """The Feast view that holds it."""
        return f"{self.entity}_derived"


def load(offline: Path) -> list[Derived]:
    """Return the features that are there."""
    path = offline / "derived" / "features.json"
    return [Derived(**of) for of in read_json(path, "delete it, and build again")] if path.exists() else []


def decide(offline: Path, columns: Sequence[Column]) -> list[Derived]:
    """Return the features to compute: those that are there, and what the columns give rise to."""
    found = {(of.entity, of.name): of for of in load(offline)}
    items = [column for column in columns if column.entity == "item"]
    if main := _main_category(items):
        for column in items:
            name = f"{column.name}_rank"
            if column.kind in ("log", "dense") and _is_price(column.name):
                found.setdefault(("item", name), Derived("item", name, column.name, main))
    for entity in ("user", "item"):
        if _dated(offline, entity):
            found.setdefault((entity, KNOWN_SINCE), Derived(entity, KNOWN_SINCE))
    return list(found.values())


def refresh(offline: Path, wanted: Sequence[Derived] | None = None) -> None:
    """Write the features anew where the profiles, or what is wanted, have changed since they were written.

    Args:
        offline: the offline store's folder.
        wanted: the features; those that are there when None.

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
    """Write an entity's features, unless the file of these profiles and features is there and whole."""
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
    gone = retire(state.get("retired", {}), [f"{entity}/{old}" for old in files.get(entity, ())], [path])
    write_json(folder / STATE, {"files": files | wanted, "records": records, "retired": gone})
    sweep(folder, records, gone)


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
    with database(offline / ".spill") as connection:
        rows = connection.sql(query).to_arrow_table()
    for stamp in (EVENT_TIMESTAMP, CREATED_TIMESTAMP, "available", "first"):
        rows = rows.set_column(rows.column_names.index(stamp), stamp, rows[stamp].cast(TIMESTAMP, safe=False))
    found = rows.select([key, EVENT_TIMESTAMP, CREATED_TIMESTAMP])
    moments = rows["available"].cast(pa.int64()).to_numpy()
    for n, of in enumerate(ranked):
        codes = rows[f"within{n}"].combine_chunks().dictionary_encode().indices
        prices = rows[f"price{n}"].to_numpy(zero_copy_only=False).astype(np.float64)
        category = np.asarray(codes.fill_null(-1))
        rank = rank_within(prices, category, moments)
        found = found.append_column(of.name, pa.array(rank.astype(np.float32), mask=np.isnan(rank)))
    if any(of.name == KNOWN_SINCE for of in features):
        first = rows["first"].combine_chunks()
        began = first.cast(pa.int64()).to_numpy()
        found = found.append_column(KNOWN_SINCE, pa.array(began, TIMESTAMP, mask=began <= 0))
    return found


def rank_within(
    prices: NDArray[np.float64], category: NDArray[np.int64], moments: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return each price's place among those of its category, in (0, 1).

    Args:
        prices: ``[N]``, NaN where there is none.
        category: ``[N]`` codes, -1 where there is none.
        moments: ``[N]`` when each was known (microseconds), rising.

    Returns:
        ``[N]``: of the prices known before that day, and of those known at the same moment, the share below
        (equal ones count half); NaN without price or category, or with fewer than ``FEWEST``.
    """
    rank = np.full(len(prices), np.nan)
    for code in np.unique(category[category >= 0]):
        rows = np.flatnonzero((category == code) & ~np.isnan(prices))
        before = np.empty(0)
        for today in np.split(rows, np.flatnonzero(np.diff(moments[rows] // _DAY)) + 1):
            for together in np.split(today, np.flatnonzero(np.diff(moments[today])) + 1):
                own = np.sort(prices[together])
                known = len(before) + len(own)
                if known >= FEWEST:
                    places = [
                        np.searchsorted(of, prices[together], side=side)
                        for of in (before, own)
                        for side in ("left", "right")
                    ]
                    rank[together] = sum(places) / (2 * known)
            before = np.sort(np.concatenate([before, prices[today]]), kind="stable")
    return rank


def _main_category(items: Sequence[Column]) -> str | None:
    """Return the item's category by its name, else the one of fewest values (of at least 3)."""
    of = [c for c in items if c.kind == "categorical" and 2 < c.stats.distinct <= _MOST_CATEGORIES]
    named = [c for word in _MAIN for c in of if word in c.name.lower()]
    chosen = named or sorted(of, key=lambda column: column.stats.distinct)
    return chosen[0].name if chosen else None


def _is_price(name: str) -> bool:
    return not _PRICES.isdisjoint(name.lower().split("_"))


def _dated(offline: Path, entity: Entity) -> bool:
    """Whether the first versions of most entities have dates of their own.

    Those of an import without dates are valid from 1970, or from the entity's first interaction.
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
    with database(offline / ".spill") as connection:
        pattern = str(interactions / "**" / "*.parquet")
        row = connection.execute(query, {"interactions": pattern}).fetchone()
    return bool(row and row[0])


def _files(offline: Path, entity: Entity) -> list[Path]:
    return sorted((offline / "profiles" / entity).glob("*.parquet"))


def _scan(offline: Path, entity: Entity) -> str:
    files = ", ".join(literal(str(path)) for path in _files(offline, entity))
    return f"read_parquet([{files}], union_by_name = true)"
