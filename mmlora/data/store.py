"""The offline store: canonical tables that hold every version of every interaction and profile.

::

    ids.json                                    types of the id columns, chosen at the first import
    interactions/day=YYYY-MM-DD/<hash>.parquet  schema.interactions_schema; the day (UTC) is in the path only
    profiles/{user,item,domain}/<hash>.parquet  id, event_timestamp, created_timestamp, features

Files are only ever added (but for a profile table that gains a column, which is rewritten), and an import
happens as a whole or not at all (:mod:`mmlora.data.commit`). Importing what is stored already adds no file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.commit import Commit, finish, locked, settle
from mmlora.data.interactions import REQUIRED, canonical_interactions
from mmlora.data.merge import connect, new_interactions
from mmlora.data.profile_store import add_profile
from mmlora.data.profiles import canonical_profile
from mmlora.errors import ContractError, UsageError
from mmlora.schema import (
    DOMAIN_ID,
    ENTITY_KEYS,
    EVENT_TIMESTAMP,
    ITEM_ID,
    KNOWN_AT,
    USER_ID,
    Entity,
    Id,
    IdTypes,
    fingerprint,
)

logger = logging.getLogger(__name__)

_DAY_MICROSECONDS = 86_400_000_000
_EPOCH = date(1970, 1, 1)
_DOMAINS = "domains.json"


@dataclass(frozen=True)
class ImportReport:
    """What one import did.

    Attributes:
        interactions: rows stored whose key is new.
        unchanged: rows that were stored already.
        corrections: rows stored as a new version of a stored key.
        late: those of ``interactions`` that became known only after they happened: now, or when their own
            ``known_at`` says.
        users, items, domains: distinct ids among the interactions that came.
        first_day, last_day: of the interactions that came (UTC).
        profiles: versions stored, by entity that came.
        ignored_columns: columns left out: those of the interactions that aren't canonical, and ``user.age``
            for a profile column without any value.
    """

    interactions: int
    unchanged: int
    corrections: int
    late: int
    users: int
    items: int
    domains: int
    first_day: date
    last_day: date
    profiles: dict[Entity, int] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()


class OfflineStore:
    """The canonical tables under one folder.

    Args:
        root: the folder; made at the first import.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def interactions_glob(self) -> str:
        """The Parquet files of all interactions, as DuckDB takes them."""
        return str(self.root / "interactions" / "**" / "*.parquet")

    def profile_folder(self, entity: Entity) -> Path:
        """Return where an entity's profiles lie; absent when it has none."""
        return self.root / "profiles" / entity

    @property
    def ids(self) -> IdTypes:
        """The types of the id columns.

        Raises:
            UsageError: nothing was imported yet.
        """
        settle(self.root)
        found = self._ids_or_none()
        if found is None:
            raise UsageError(f"{self.root} holds no data yet; import some first (mmlora data --help)")
        return found

    def _ids_or_none(self) -> IdTypes | None:
        path = self.root / "ids.json"
        return IdTypes(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def fingerprint(self) -> str:
        """Return a hash that changes when the data does: of file names (content hashes) and sizes."""
        settle(self.root)
        files = [
            path
            for folder in ("interactions", "profiles")
            for path in (self.root / folder).rglob("*.parquet")
        ]
        return fingerprint({path.relative_to(self.root).as_posix(): path.stat().st_size for path in files})

    def days(self) -> list[date]:
        """Return the days (UTC) that hold interactions, in order."""
        settle(self.root)
        return self._days()

    def _days(self) -> list[date]:
        folders = (self.root / "interactions").glob("day=*")
        days = [
            date.fromisoformat(path.name.removeprefix("day="))
            for path in folders
            if any(path.glob("*.parquet"))
        ]
        return sorted(days)

    def domains(self) -> list[Id]:
        """Return the domains that interactions were ever seen in, in order."""
        settle(self.root)
        path = self.root / _DOMAINS
        if path.exists():
            found: list[Id] = json.loads(path.read_text(encoding="utf-8"))
            return found
        if not self._days():
            return []
        with connect() as con:  # a store of before the file
            query = (
                f"SELECT DISTINCT {DOMAIN_ID} FROM read_parquet($glob, hive_partitioning = false) ORDER BY 1"
            )
            return [row[0] for row in con.sql(query, params={"glob": self.interactions_glob}).fetchall()]

    def write(
        self, interactions: pa.Table, profiles: Mapping[Entity, pa.Table], *, imported_at: datetime
    ) -> ImportReport:
        """Add what is new in these tables, or nothing at all.

        Args:
            interactions: what :func:`mmlora.data.reader.read_tables` or ``read_movielens`` returned, or an
                own table with the same columns.
            profiles: profile tables by entity.
            imported_at: when late rows and corrections became known (with a time zone).

        Raises:
            DataError: a table has faults; all of them are named.
            ContractError: id types, or a profile's columns, differ from the store's.
            TransientError: another import is under way.
        """
        if imported_at.tzinfo is None:
            raise UsageError(f"imported_at {imported_at} has no time zone; give one, e.g. UTC")
        imported_at = imported_at.astimezone(UTC)
        table = canonical_interactions(interactions, source="interactions", now=imported_at)
        checked = {
            entity: canonical_profile(entity, profile, source=f"{entity} profiles", now=imported_at)
            for entity, profile in profiles.items()
        }
        with locked(self.root):
            finish(self.root)
            with Commit(self.root) as commit:
                report = self._stage(commit, table, checked, imported_at)
                commit.apply()
        return report

    def _stage(
        self,
        commit: Commit,
        table: pa.Table,
        profiles: Mapping[Entity, pa.Table],
        imported_at: datetime,
    ) -> ImportReport:
        ids = self._agree_on_ids(table, profiles)
        if self._ids_or_none() is None:
            commit.add_bytes("ids.json", (json.dumps(ids.to_dict(), indent=2) + "\n").encode())
        ignored = [name for name in table.column_names if name not in (*REQUIRED, KNOWN_AT)]
        table = table.drop_columns(ignored)
        came, stored = day_numbers(table), self._days()
        self._add_domains(commit, table)
        files = self._files(came)
        new = new_interactions(
            table,
            files,
            ids=ids,
            last_day=stored[-1] if stored else None,
            imported_at=imported_at,
            source="interactions",
        )
        _stage_days(commit, new.versions)
        written: dict[Entity, int] = {}
        for entity, profile in profiles.items():
            written[entity], empty = add_profile(
                commit, self.profile_folder(entity), profile, entity=entity, imported_at=imported_at
            )
            ignored += [f"{entity}.{name}" for name in empty]
        rows = new.versions.num_rows
        logger.info(
            "storing %d interactions of %d, %d of them corrections", rows, table.num_rows, new.corrections
        )
        return ImportReport(
            interactions=rows - new.corrections,
            unchanged=table.num_rows - rows,
            corrections=new.corrections,
            late=new.late,
            users=_distinct(table, USER_ID),
            items=_distinct(table, ITEM_ID),
            domains=_distinct(table, DOMAIN_ID),
            first_day=_day(came.min()),
            last_day=_day(came.max()),
            profiles=written,
            ignored_columns=tuple(ignored),
        )

    def _add_domains(self, commit: Commit, table: pa.Table) -> None:
        """Keep the list of domains: a scan for it opens every day's file."""
        before = self.domains()
        after = sorted({*before, *pc.unique(table.column(DOMAIN_ID)).to_pylist()})
        if after != before or not (self.root / _DOMAINS).exists():
            commit.add_bytes(_DOMAINS, (json.dumps(after, indent=2) + "\n").encode())

    def _files(self, days: np.ndarray) -> list[Path]:
        """Return the stored files of some days."""
        folders = [self.root / "interactions" / f"day={_day(day)}" for day in np.unique(days)]
        return [path for folder in folders for path in sorted(folder.glob("*.parquet"))]

    def _agree_on_ids(self, table: pa.Table, profiles: Mapping[Entity, pa.Table]) -> IdTypes:
        """Return the store's id types, or at the first import this table's, if all tables have them."""
        came = IdTypes(**{entity: str(table.schema.field(key).type) for entity, key in ENTITY_KEYS.items()})  # type: ignore[arg-type]
        ids = self._ids_or_none() or came
        found = {f"interactions' {key}": (entity, came.arrow(entity)) for entity, key in ENTITY_KEYS.items()}
        for entity, profile in profiles.items():
            key = ENTITY_KEYS[entity]
            found[f"{entity} profiles' {key}"] = (entity, profile.schema.field(key).type)
        wrong = [
            f"{name} is {kind}, expected {ids.arrow(entity)}"
            for name, (entity, kind) in found.items()
            if kind != ids.arrow(entity)
        ]
        if wrong:
            message = f"{'; '.join(wrong)}: the first import chose a store's id types; convert, or start anew"
            raise ContractError(
                message, expected=ids, found={name: str(kind) for name, (_, kind) in found.items()}
            )
        return ids


def day_numbers(table: pa.Table) -> np.ndarray:
    """Return each row's day (UTC) as days since 1970 (int64)."""
    micros: np.ndarray = table.column(EVENT_TIMESTAMP).cast(pa.int64()).to_numpy()
    return np.asarray(micros // _DAY_MICROSECONDS)


def _day(number: int) -> date:
    return _EPOCH + timedelta(days=int(number))


def _stage_days(commit: Commit, versions: pa.Table) -> None:
    """Stage a file a day; the rows are in order of time."""
    days = day_numbers(versions)
    bounds = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for start, end in pairwise(bounds if len(days) else []):
        commit.add_table(f"interactions/day={_day(days[start])}", versions.slice(start, end - start))


def _distinct(table: pa.Table, name: str) -> int:
    return int(pc.count_distinct(table.column(name)).as_py())
