"""The offline store: canonical tables with every version of every interaction and profile.

::

    ids.json                                    types of the id columns, chosen at the first import
    domains.json                                the domains, and each one's latest day
    interactions/day=YYYY-MM-DD/<hash>.parquet  schema.interactions_schema; the day (UTC) is in the path only
    profiles/{user,item,domain}/<hash>.parquet  id, event_timestamp, created_timestamp, features
    manifest.json                               size and hash of each of these files

Files are only ever added (except that a profile table that gains a column is rewritten), and an import
succeeds as a whole or not at all (:mod:`mmlora.data.commit`). Importing rows that are already stored adds no
file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace as replace_fields
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.commit import Commit, finish, locked, settle
from mmlora.data.id_types import agree_on_ids
from mmlora.data.interactions import REQUIRED, canonical_interactions
from mmlora.data.manifest import MANIFEST, accept_files, adopt, refuse, store_faults
from mmlora.data.merge import NewInteractions, Replace, new_interactions
from mmlora.data.options import FIRST, IMPORT
from mmlora.data.profile_store import add_profile, stored_schema
from mmlora.data.profiles import canonical_profile
from mmlora.data.report import (
    ImportReport,
    day_numbers,
    day_of,
    ignored,
    interactions_report,
    is_date,
    profile_notes,
)
from mmlora.duck import in_memory
from mmlora.errors import UsageError
from mmlora.files import read_json
from mmlora.schema import (
    DOMAIN_ID,
    ENTITY_KEYS,
    EVENT_TIMESTAMP,
    KNOWN_AT,
    TIMESTAMP,
    Entity,
    Id,
    IdTypes,
    fingerprint,
    interactions_schema,
    midnight,
)

logger = logging.getLogger(__name__)

_DOMAINS = "domains.json"


class OfflineStore:
    """The canonical tables under one folder.

    Args:
        root: the folder; created by the first import.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked = False

    @property
    def interactions_glob(self) -> str:
        """Glob of the Parquet files of all interactions, for DuckDB."""
        return str(self.root / "interactions" / "**" / "*.parquet")

    def profile_folder(self, entity: Entity) -> Path:
        """Return the folder of an entity's profiles; it does not exist if there are none."""
        return self.root / "profiles" / entity

    @property
    def ids(self) -> IdTypes:
        """The types of the id columns.

        Raises:
            UsageError: nothing was imported yet.
            DataError: a stored file is missing or was changed.
        """
        if not self._checked:  # once per opened store, because a night opens many
            self.check()
            self._checked = True
        settle(self.root)
        found = self._ids_or_none()
        if found is None:
            raise UsageError(f"{self.root} has no data yet: import some first (mmlora data --help)")
        return found

    def require_import(self) -> None:
        """Raise what :attr:`ids` raises, e.g. ``UsageError`` if nothing was imported yet."""
        _ = self.ids

    def check(self) -> None:
        """Finish a commit whose process died, and check that every file is as it was stored.

        Raises:
            DataError: a file is missing, truncated or swapped, or was not written by an import.
        """
        for _ in range(2):  # an import may finish between the manifest and the files
            settle(self.root)
            if not (wrong := store_faults(self.root)):
                break
        else:
            refuse(self.root, wrong)
        if not (self.root / MANIFEST).exists() and (self.root / "ids.json").exists():
            with locked(self.root, wait=60.0):
                adopt(self.root)

    def accept_files(self) -> list[str]:
        """Accept the existing files as the store; return what was wrong with them."""
        with locked(self.root):
            finish(self.root)
            return accept_files(self.root)

    def _ids_or_none(self) -> IdTypes | None:
        path = self.root / "ids.json"
        return IdTypes(**read_json(path, "import the data again")) if path.exists() else None

    def fingerprint(self) -> str:
        """Return a hash that changes with the data: over file names (content hashes) and sizes."""
        settle(self.root)
        files = [
            path
            for folder in ("interactions", "profiles")
            for path in (self.root / folder).rglob("*.parquet")
        ]
        return fingerprint({path.relative_to(self.root).as_posix(): path.stat().st_size for path in files})

    def days(self) -> list[date]:
        """Return the days (UTC) with interactions, in order."""
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
        """Return all domains ever seen in interactions, in order."""
        settle(self.root)
        return sorted(self._last_days())

    def _last_days(self) -> dict[Id, date]:
        """Return each domain's latest day."""
        path = self.root / _DOMAINS
        kept = read_json(path, "delete it") if path.exists() else []
        if kept and all(isinstance(pair, list) for pair in kept):
            return {domain: date.fromisoformat(day) for domain, day in kept}
        if not self._days():
            return {}
        with in_memory() as con:  # a store older than this file, or than the days in it
            query = (
                f"SELECT {DOMAIN_ID}, CAST(max({EVENT_TIMESTAMP}) AS DATE) FROM "
                f"read_parquet($glob, hive_partitioning = false) GROUP BY 1"
            )
            return dict(con.sql(query, params={"glob": self.interactions_glob}).fetchall())

    def profile_schemas(self) -> dict[Entity, pa.Schema]:
        """Return the columns of each entity's stored profiles."""
        settle(self.root)
        found = {entity: stored_schema(self.profile_folder(entity)) for entity in ENTITY_KEYS}
        return {entity: schema for entity, schema in found.items() if schema is not None}

    def write(
        self,
        interactions: pa.Table | None,
        profiles: Mapping[Entity, pa.Table],
        *,
        imported_at: datetime,
        history: bool = False,
        replace: Replace | None = None,
        days: Collection[date] = (),
        valid_from: Mapping[Entity, str] | None = None,
        texts: Mapping[Entity, Collection[str]] | None = None,
    ) -> ImportReport:
        """Add what is new in these tables, all of it or nothing.

        A delivery of profiles counts as known when the interactions imported with it are complete: at the
        midnight after the last day that is new and on time, but never later than the import; on its own, at
        the midnight at the start of the import's day. So the next night knows both.

        Args:
            interactions: the result of :func:`mmlora.data.reader.read_delivery` or ``read_movielens``, or a
                table with the same columns; None for profiles alone.
            profiles: profile tables by entity; null in ``event_timestamp`` means undated.
            imported_at: when late rows and corrections became known (with a time zone).
            history: whether all interactions count as known when they happened, late or not.
            replace: whether the delivery is the whole truth for its days (or for its domains' days): stored
                rows that it lacks are withdrawn, as a correction known now.
            days: with ``replace`` by day, further days for which it is the whole truth; days without
                interactions are emptied.
            valid_from: from when an entity's undated profiles are valid in its first delivery:
                ``first-interaction`` of the id (default), ``import`` or an ISO date.
            texts: columns to store as texts, even if they were stored as integers.

        Raises:
            UsageError: one of ``days`` has no stored interactions.
            DataError: a table has faults, or stored files are missing or changed; all are listed.
            ContractError: id types, or a profile's columns, differ from the store's.
            TransientError: another import is in progress.
        """
        if imported_at.tzinfo is None:
            raise UsageError(f"imported_at {imported_at} has no time zone; give one, e.g. UTC")
        imported_at = imported_at.astimezone(UTC)
        table = None
        if interactions is not None:
            table = canonical_interactions(interactions, source="interactions", now=imported_at)
        checked = {
            entity: canonical_profile(entity, profile, source=f"{entity} profiles")
            for entity, profile in profiles.items()
        }
        with locked(self.root):
            finish(self.root)
            if wrong := store_faults(self.root):
                refuse(self.root, wrong)
            with Commit(self.root) as commit:
                ids = agree_on_ids(self.root, self._ids_or_none(), table, checked)
                if self._ids_or_none() is None:
                    commit.add_bytes("ids.json", (json.dumps(ids.to_dict(), indent=2) + "\n").encode())
                self._refuse_unstored(days)
                if days and table is None:
                    table = interactions_schema(ids).empty_table()
                last_days = self._last_days()
                report, delivered = ImportReport(), datetime.combine(imported_at.date(), time(), UTC)
                if table is not None:
                    new = self._stage(commit, table, ids, last_days, imported_at, history, replace, days)
                    report = interactions_report(table, new, imported_at)
                    if new.on_time_through is not None:
                        last = max([new.on_time_through.date(), *last_days.values()])
                        delivered = min(imported_at, midnight(last + timedelta(days=1)))
                report = self._stage_profiles(
                    commit, report, table, checked, delivered, valid_from or {}, texts or {}
                )
                commit.apply()
        return report

    def _stage(
        self,
        commit: Commit,
        table: pa.Table,
        ids: IdTypes,
        last_days: Mapping[Id, date],
        imported_at: datetime,
        history: bool,
        replace: Replace | None,
        days: Collection[date],
    ) -> NewInteractions:
        table = table.select([name for name in (*REQUIRED, KNOWN_AT) if name in table.column_names])
        self._stage_last_days(commit, table, last_days)
        new = new_interactions(
            table,
            self._files({*map(day_of, np.unique(day_numbers(table))), *days}),
            ids=ids,
            last_days=last_days,
            imported_at=imported_at,
            source="interactions",
            history=history,
            replace=replace,
            days=days,
        )
        _stage_days(commit, new.versions)
        rows = new.versions.num_rows
        logger.info(
            "storing %d interactions of %d, %d of them corrections", rows, table.num_rows, new.corrections
        )
        return new

    def _stage_profiles(
        self,
        commit: Commit,
        report: ImportReport,
        table: pa.Table | None,
        profiles: Mapping[Entity, pa.Table],
        delivered: datetime,
        valid_from: Mapping[Entity, str],
        texts: Mapping[Entity, Collection[str]],
    ) -> ImportReport:
        notes, added = list(report.notes), {}
        for entity, profile in profiles.items():
            chosen = valid_from.get(entity, FIRST)
            since = None
            if stored_schema(self.profile_folder(entity)) is None:
                since = self._since(entity, profile, table, chosen)
            added[entity] = add_profile(
                commit,
                self.profile_folder(entity),
                profile,
                entity=entity,
                delivered=delivered,
                since=since,
                texts=texts.get(entity, ()),
            )
            notes += profile_notes(
                f"{entity}s",
                profile,
                added[entity],
                valid_from=chosen,
                delivered=delivered,
                known=since.num_rows if since is not None else 0,
            )
        return replace_fields(
            report,
            profiles={entity: part.versions.num_rows for entity, part in added.items()},
            ignored_columns=ignored(report.ignored_columns, added),
            notes=tuple(notes),
        )

    def _since(
        self, entity: Entity, profile: pa.Table, table: pa.Table | None, chosen: str
    ) -> pa.Table | None:
        """Return from when undated profiles of a first delivery are valid; missing ids: from the delivery."""
        key = ENTITY_KEYS[entity]
        if EVENT_TIMESTAMP in profile.column_names:
            profile = profile.filter(pc.is_null(profile.column(EVENT_TIMESTAMP)))
        if chosen == IMPORT:
            return None
        if is_date(chosen):
            moment = midnight(date.fromisoformat(chosen))
            since = pa.repeat(pa.scalar(moment, TIMESTAMP), profile.num_rows)
            return pa.table({key: profile.column(key), "since": since})
        parts = [f"SELECT {key}, {EVENT_TIMESTAMP} FROM came"] if table is not None else []
        if self._days():
            scan = "read_parquet($glob, hive_partitioning = false)"
            parts.append(f"SELECT {key}, {EVENT_TIMESTAMP} FROM {scan}")
        if not parts:
            return None
        with in_memory() as con:
            con.register("profile", profile.select([key]))
            if table is not None:
                con.register("came", table.select([key, EVENT_TIMESTAMP]))
            query = (
                f"SELECT {key}, min({EVENT_TIMESTAMP}) AS since FROM ({' UNION ALL '.join(parts)}) "
                f"SEMI JOIN profile USING ({key}) GROUP BY {key}"
            )
            params = {"glob": self.interactions_glob} if len(parts) > 1 or table is None else {}
            return con.sql(query, params=params).to_arrow_table()

    def _stage_last_days(self, commit: Commit, table: pa.Table, before: Mapping[Id, date]) -> None:
        """Store the domains and their latest days, because finding them would open every day's file."""
        groups = table.group_by(DOMAIN_ID).aggregate([(EVENT_TIMESTAMP, "max")]).to_pylist()
        came = {group[DOMAIN_ID]: group[f"{EVENT_TIMESTAMP}_max"].date() for group in groups}
        after = {
            name: max(days[name] for days in (before, came) if name in days) for name in {*before, *came}
        }
        pairs = [[name, after[name].isoformat()] for name in sorted(after)]
        text = json.dumps(pairs, indent=2) + "\n"
        path = self.root / _DOMAINS
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            commit.add_bytes(_DOMAINS, text.encode())

    def _refuse_unstored(self, days: Collection[date]) -> None:
        stored = self._days() if days else []
        if unknown := sorted(set(days).difference(stored)):
            raise UsageError(
                f"no interactions are stored for {', '.join(map(str, unknown))}: the stored days are "
                f"{stored[0]} to {stored[-1]}"
            )

    def _files(self, days: Collection[date]) -> list[Path]:
        """Return the stored files of some days."""
        folders = [self.root / "interactions" / f"day={day}" for day in sorted(days)]
        return [path for folder in folders for path in sorted(folder.glob("*.parquet"))]


def _stage_days(commit: Commit, versions: pa.Table) -> None:
    """Stage one file per day; the rows are in order of time."""
    days = day_numbers(versions)
    bounds = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for start, end in pairwise(bounds if len(days) else []):
        commit.add_table(f"interactions/day={day_of(days[start])}", versions.slice(start, end - start))
